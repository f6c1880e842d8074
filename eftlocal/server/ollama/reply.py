"""A reply's tokens -> the pieces of an answer of Ollama's API, and a whole one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...generation import TokenEvent
from ...stream import Completion, Prepared
from ...toolcalls import CallDelta, ToolCall, gathered
from ..openai.extension import Extension
from ..openai.logprobs import chat_logprobs
from ..openai.pieces import Pieces, Placed, Placement
from ..openai.reply import Delta, ReplyParser
from .messages import ollama_calls
from .routing import nanoseconds

Json = dict[str, Any]


@dataclass(slots=True)
class Part:
    """What an answer goes on with.

    Attributes:
        content, thinking: text.
        calls: of tools, whole.
    """

    content: str = ""
    thinking: str = ""
    calls: Sequence[ToolCall] = ()


Form = Callable[[Part], Json]
"""How a part stands in an answer."""


def chat_form(part: Part) -> Json:
    """As /api/chat has it."""
    message: Json = {"role": "assistant", "content": part.content}
    if part.thinking:
        message["thinking"] = part.thinking
    calls = ollama_calls(part.calls)
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def generate_form(part: Part) -> Json:
    """As /api/generate has it."""
    thinking = {"thinking": part.thinking} if part.thinking else {}
    return {"response": part.content, **thinking}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an answer shows.

    Attributes:
        form: of its parts.
        is_raw: the text is shown as it is.
        has_thinking: whether thinking is shown at all.
        pieces: of the model, where tokens are reported.
        logprobs: whether tokens are reported with their log-probabilities.
        extension: whether they are reported under the key `eft`.
    """

    form: Form
    is_raw: bool
    has_thinking: bool
    pieces: Pieces | None
    logprobs: bool
    extension: bool


class Reply:
    """Follows one generation.

    Args:
        prepared: what is generated.
        wanted: what is shown of it.
    """

    def __init__(self, prepared: Prepared, wanted: Wanted) -> None:
        self._wanted = wanted
        raw = wanted.is_raw
        self._parser = None if raw else ReplyParser(prepared.thinking_opened, prepared.tools)
        pieces = wanted.pieces
        self._placement = Placement(pieces, prepared) if pieces and wanted.logprobs else None
        self._extension = Extension(pieces) if pieces and wanted.extension else None
        self._placed: list[Placed] = []
        self._tokens: list[Json] = []
        self._calls: list[CallDelta] = []
        self._whole = Part()
        self._reports: dict[str, list[Json]] = {}

    def feed(self, events: Sequence[TokenEvent]) -> Iterator[Json]:
        """Take the next tokens; gives what is certain by now."""
        for event in events:
            if self._placement is not None:
                self._placed += self._placement.feed(event)
        if self._extension is not None:
            self._tokens += self._extension.describe(events)
        text = "".join(event.text for event in events)
        if self._parser is None:
            yield from self._shown([Delta(content=text)] if text else [])
        else:
            yield from self._shown(self._parser.feed(text))

    def finish(self) -> Iterator[Json]:
        """End the text: what was held back, and the calls."""
        yield from self._shown(self._parser.finish() if self._parser else [])
        calls = gathered(self._calls)[1]
        if calls:
            yield self._add(Part(calls=calls))
        elif self._placed or self._tokens:
            yield self._add(Part())

    def whole(self) -> Json:
        """All of it as one."""
        found = self._wanted.form(self._whole)
        if "eft" in self._reports:
            found["eft"] = {"tokens": self._reports["eft"]}
        if "logprobs" in self._reports:
            found["logprobs"] = self._reports["logprobs"]
        return found

    @property
    def answer(self) -> str:
        """The text without thinking."""
        return self._whole.content

    def _shown(self, deltas: Sequence[Delta]) -> Iterator[Json]:
        for delta in deltas:
            if delta.tool_call is not None:
                self._calls.append(delta.tool_call)
            elif delta.content:
                yield self._add(Part(content=delta.content))
            elif delta.reasoning_content and self._wanted.has_thinking:
                yield self._add(Part(thinking=delta.reasoning_content))

    def _add(self, part: Part) -> Json:
        """A part with all that is to be reported by now."""
        whole = self._whole
        whole.content += part.content
        whole.thinking += part.thinking
        whole.calls = [*whole.calls, *part.calls]
        found = self._wanted.form(part)
        if self._placement is not None and self._wanted.pieces is not None:
            entries = chat_logprobs(self._placed, self._wanted.pieces)
            self._placed = []
            self._reports.setdefault("logprobs", []).extend(entries)
            found["logprobs"] = entries
        if self._extension is not None:
            tokens, self._tokens = self._tokens, []
            self._reports.setdefault("eft", []).extend(tokens)
            found["eft"] = {"tokens": tokens}
        return found


def ending(completion: Completion, total: float, load: float) -> Json:
    """What the last line of an answer says.

    Args:
        completion: what was generated.
        total: seconds since the request.
        load: of these, waiting for the model.
    """
    times = completion.timings
    return {
        "done": True,
        "done_reason": completion.finish_reason,
        "total_duration": nanoseconds(total),
        "load_duration": nanoseconds(load),
        "prompt_eval_count": times.prompt_tokens,
        "prompt_eval_duration": nanoseconds(times.prompt_seconds),
        "eval_count": times.generated_tokens,
        "eval_duration": nanoseconds(times.generation_seconds),
    }
