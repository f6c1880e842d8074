"""What a choice reports of its tokens besides the text: log-probabilities, and the key `eft`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...generation import TokenEvent
from ...stream import Prepared
from .extension import Extension
from .fields import CommonFields
from .pieces import Pieces, Placed, Placement


class Reporter:
    """Follows the tokens of one choice.

    Args:
        pieces: of the model; None where nothing is reported.
        prepared: the choice.
        body: says what is reported.
        logprobs: whether log-probabilities are.
    """

    def __init__(
        self, pieces: Pieces | None, prepared: Prepared, body: CommonFields, logprobs: bool
    ) -> None:
        self._placement = Placement(pieces, prepared) if pieces and logprobs else None
        self._extension = Extension(pieces) if pieces and body.reports_tokens else None
        self._placed: list[Placed] = []
        self._described: list[dict[str, Any]] = []

    def feed(self, events: Sequence[TokenEvent]) -> None:
        """Take the next tokens."""
        if self._placement is not None:
            for event in events:
                self._placed += self._placement.feed(event)
        if self._extension is not None:
            self._described += self._extension.describe(events)

    def take_placed(self) -> list[Placed]:
        """The tokens whose text was sent since the last call."""
        placed, self._placed = self._placed, []
        return placed

    def take_extension(self) -> dict[str, Any]:
        """The key `eft`, with the tokens since the last call, where it was asked for."""
        if self._extension is None:
            return {}
        described, self._described = self._described, []
        return {"eft": {"tokens": described}}

    @property
    def has_news(self) -> bool:
        """Whether there is something that was not taken."""
        return bool(self._placed or self._described)
