"""A reply's text -> the deltas of a chat completion: thinking, content and tool calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...reasoning import ThinkStream
from ...toolcalls import CallDelta, Tools, ToolStream, gathered


@dataclass(frozen=True, slots=True)
class Delta:
    """What a reply goes on with: exactly one of these is there.

    Attributes:
        reasoning_content: thinking.
        content: text.
        tool_call: a call's beginning, or a piece of its arguments.
    """

    reasoning_content: str | None = None
    content: str | None = None
    tool_call: CallDelta | None = None

    def to_json(self) -> dict[str, Any]:
        """The `delta` of a chunk."""
        if self.reasoning_content is not None:
            return {"reasoning_content": self.reasoning_content}
        if self.tool_call is None:
            return {"content": self.content}
        call = self.tool_call
        if call.name is None:
            piece: dict[str, Any] = {"function": {"arguments": call.arguments}}
        else:
            function = {"name": call.name, "arguments": call.arguments}
            piece = {"id": call.id, "type": "function", "function": function}
        return {"tool_calls": [{"index": call.index, **piece}]}


class ReplyParser:
    """Takes a reply's text in pieces of any size.

    Args:
        thinking_opened: the prompt has opened a <think> block.
        tools: what the reply may call; without tools nothing is a call.
    """

    def __init__(self, thinking_opened: bool, tools: Tools | None) -> None:
        self._thinking = ThinkStream(thinking_opened)
        self._calls = ToolStream(tools) if tools else None

    @property
    def has_calls(self) -> bool:
        """Whether a call has begun."""
        return self._calls is not None and self._calls.count > 0

    def feed(self, text: str) -> list[Delta]:
        """Take the next piece; returns what is certain by now."""
        return self._deltas(*self._thinking.feed(text))

    def finish(self) -> list[Delta]:
        """End the text; returns what was held back."""
        deltas = self._deltas(*self._thinking.finish())
        if self._calls is not None:
            deltas += map(_delta, self._calls.finish())
        return deltas

    def finish_reason(self, reason: str) -> str:
        """The API's word for how a completion ended: a call that was cut off is no tool_calls."""
        return "tool_calls" if self.has_calls and reason == "stop" else reason

    def _deltas(self, thinking: str, answer: str) -> list[Delta]:
        deltas = [Delta(reasoning_content=thinking)] if thinking else []
        if answer and self._calls is None:
            deltas.append(Delta(content=answer))
        elif answer and self._calls is not None:
            deltas += map(_delta, self._calls.feed(answer))
        return deltas


def _delta(piece: str | CallDelta) -> Delta:
    return Delta(content=piece) if isinstance(piece, str) else Delta(tool_call=piece)


def message_of(deltas: Iterable[Delta]) -> dict[str, Any]:
    """The assistant's message that deltas make up.

    `reasoning_content` and `tool_calls` are there where they are not empty; `content` is None
    where there are only calls.
    """
    kept = list(deltas)
    thinking = "".join(delta.reasoning_content or "" for delta in kept)
    content = "".join(delta.content or "" for delta in kept)
    _, calls = gathered(delta.tool_call for delta in kept if delta.tool_call is not None)
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thinking:
        message["reasoning_content"] = thinking
    if calls:
        message["tool_calls"] = [call.message for call in calls]
        message["content"] = content or None
    return message
