"""One choice of a chat completion: tokens -> the parts of chunks, or the whole in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...stream import Completion, Prepared
from .choices import News
from .logprobs import chat_logprobs
from .pieces import Pieces
from .reply import Delta, ReplyParser, message_of
from .reporting import Reporter
from .schemas import ChatRequest
from .usage import ReasoningCount, Spent


class ChatChoice:
    """Follows one choice and says what it adds to the answer.

    Args:
        index: its place in the answer.
        prepared: what is generated.
        body: what was asked for.
        pieces: of the model; None where no tokens are reported.
    """

    def __init__(
        self, index: int, prepared: Prepared, body: ChatRequest, pieces: Pieces | None
    ) -> None:
        self._index = index
        self._pieces = pieces
        self._has_logprobs = bool(body.logprobs)
        self._parser = ReplyParser(prepared.thinking_opened, prepared.tools)
        self._reporter = Reporter(pieces, prepared, body, self._has_logprobs)
        self._reasoning = ReasoningCount(prepared.thinking_opened)
        self._deltas: list[Delta] = []
        self._completion: Completion | None = None

    @property
    def spent(self) -> Spent:
        """What it took; only after its end."""
        assert self._completion is not None, "the choice is not over"
        return Spent(self._completion, self._index == 0, self._reasoning.tokens)

    def opening(self) -> list[dict[str, Any]]:
        """The first part: who speaks."""
        return [self._part({"role": "assistant", "content": ""})]

    def take(self, news: News) -> list[dict[str, Any]]:
        """The parts that news make, a delta each; the last one of all has the finish_reason."""
        self._reporter.feed(news.events)
        self._reasoning.feed(news.events)
        text = "".join(event.text for event in news.events)
        # What is reported waits for the next delta, where the text is held back.
        parts = self._reported(self._parser.feed(text))
        if news.completion is None:
            return parts
        self._completion = news.completion
        parts += self._reported(self._parser.finish())
        if self._reporter.has_news:
            parts.append(self._part({"content": ""}) | self._report())
        reason = self._parser.finish_reason(news.completion.finish_reason)
        return [*parts, {**self._part({}), "finish_reason": reason}]

    def whole(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The choice in one piece."""
        message = {**message_of(self._deltas), "refusal": None}
        choice = {**self._part({}), "finish_reason": parts[-1]["finish_reason"], "message": message}
        del choice["delta"]
        if self._has_logprobs:
            reports = [part["logprobs"] for part in parts if part["logprobs"]]
            content = [entry for report in reports for entry in report["content"]]
            choice["logprobs"] = {"content": content, "refusal": None}
        described = [part["eft"]["tokens"] for part in parts if "eft" in part]
        if described:
            choice["eft"] = {"tokens": [token for tokens in described for token in tokens]}
        return choice

    def _reported(self, deltas: Sequence[Delta]) -> list[dict[str, Any]]:
        self._deltas += deltas
        return [self._part(delta.to_json()) | self._report() for delta in deltas]

    def _part(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _report(self) -> dict[str, Any]:
        """What is to be reported of the tokens by now."""
        report = self._reporter.take_extension()
        if self._has_logprobs and self._pieces is not None:
            content = chat_logprobs(self._reporter.take_placed(), self._pieces)
            report["logprobs"] = {"content": content, "refusal": None}
        return report
