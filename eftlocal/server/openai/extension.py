"""The key `eft`: what happened at every token, under the names of trace files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...explain.records import TracedToken
from ...explain.tracefile import named_ids, piece_text
from ...generation import TokenEvent
from .logprobs import finite
from .pieces import Pieces


class Extension:
    """Describes the tokens of one choice, all of them: also end tokens, and those of stop strings.

    Without traces an entry has index, token (its id), text (what it added to the text; nothing
    while that is held back), logprob, alpha (one number per expert) and from_draft. With traces it
    is a line of `explain.tracefile`, and alpha.
    """

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._named: set[int] = set()
        self._count = 0

    def describe(self, events: Sequence[TokenEvent]) -> list[dict[str, Any]]:
        """The entries of the next tokens."""
        return [self._entry(event) for event in events]

    def _entry(self, event: TokenEvent) -> dict[str, Any]:
        index = self._count
        self._count += 1
        if event.trace is None:
            return {
                "index": index,
                "token": event.token,
                "text": event.text,
                "logprob": finite(event.logprob),
                "alpha": list(event.alpha),
                "from_draft": event.from_draft,
            }
        traced = TracedToken(
            index=index,
            token=event.token,
            text=event.text,
            logprob=event.logprob,
            from_draft=event.from_draft,
            finish_reason=event.finish_reason,
            trace=event.trace,
        )
        new = sorted(named_ids(event.token, event.trace) - self._named)
        self._named.update(new)
        pieces = {str(token): piece_text(self._pieces.shown[token]) for token in new}
        return {**traced.to_json(), "alpha": list(event.alpha), "pieces": pieces}
