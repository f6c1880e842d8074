"""One choice of a completion: tokens -> the parts of chunks; or the whole in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...generation import TokenEvent
from ...stream import Completion, Prepared
from .choices import News
from .logprobs import joined, legacy_logprobs, prompt_logprobs
from .pieces import Pieces
from .reporting import Reporter
from .schemas import CompletionRequest
from .usage import Spent


@dataclass(frozen=True, slots=True)
class Place:
    """Where a choice stands.

    Attributes:
        index: in the answer.
        is_first: of the choices of its prompt.
        echo: the prompt as the text shows it; "" without echo.
    """

    index: int
    is_first: bool
    echo: str


class TextChoice:
    """Follows one choice and says what it adds to the answer.

    Args:
        place: where it stands.
        prepared: what is generated.
        body: what was asked for.
        pieces: of the model; None where no tokens are reported.
    """

    def __init__(
        self, place: Place, prepared: Prepared, body: CompletionRequest, pieces: Pieces | None
    ) -> None:
        self._place = place
        self._pieces = pieces
        self._has_logprobs = body.logprobs is not None
        # The scores of a prompt are there when the choice is over.
        self._waits = self._has_logprobs and bool(body.echo)
        self._reporter = Reporter(pieces, prepared, body, self._has_logprobs)
        self._held = place.echo
        self._sent = 0
        self._completion: Completion | None = None

    @property
    def spent(self) -> Spent:
        """What it took; only after its end."""
        assert self._completion is not None, "the choice is not over"
        return Spent(self._completion, self._place.is_first)

    def take(self, news: News) -> list[dict[str, Any]]:
        """The parts that news of this choice makes; the last one has the finish_reason."""
        self._reporter.feed(news.events)
        self._held += "".join(event.text for event in news.events)
        if news.completion is not None:
            self._completion = news.completion
            reason = news.completion.finish_reason
            return [
                self._part(reason, news.completion.prompt_tokens, news.completion.prompt_scores)
            ]
        return [self._part(None)] if self._held and not self._waits else []

    def opening(self) -> list[dict[str, Any]]:
        """Nothing: a completion has no role."""
        return []

    def whole(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The choice in one piece."""
        whole = {**parts[-1], "text": "".join(part["text"] for part in parts)}
        if whole["logprobs"] is not None:
            whole["logprobs"] = {
                name: [item for part in parts for item in part["logprobs"][name]]
                for name in whole["logprobs"]
            }
        if "eft" in whole:
            whole["eft"] = {"tokens": [token for part in parts for token in part["eft"]["tokens"]]}
        return whole

    def _part(
        self,
        reason: str | None,
        prompt: Sequence[int] = (),
        scores: Sequence[TokenEvent] = (),
    ) -> dict[str, Any]:
        text, self._held = self._held, ""
        logprobs = None
        if self._has_logprobs and self._pieces is not None:
            shift, echo = len(self._place.echo), self._place.echo
            logprobs = legacy_logprobs(self._reporter.take_placed(), self._pieces, shift)
            if self._waits:
                logprobs = joined(prompt_logprobs(prompt, scores, self._pieces, echo), logprobs)
        return {
            "text": text,
            "index": self._place.index,
            "logprobs": logprobs,
            "finish_reason": reason,
            **self._reporter.take_extension(),
        }
