"""A conversation as data: turns, the system prompt, and its JSON form. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError

FORMAT = "eftlocal-chat"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the user and the reply to it.

    Attributes:
        stopped: the user ended the reply with Ctrl-C; `reply` is what there was by then.
        regenerations: how often the reply was asked for again; part of its seed.
        context_tokens: tokens of the context that prompt and reply took, 0 where unknown.
        thinking: the <think> block before `reply`; saved, but no part of later prompts.
    """

    user: str
    reply: str
    stopped: bool = False
    regenerations: int = 0
    context_tokens: int = 0
    thinking: str = ""


@dataclass(slots=True)
class Conversation:
    """The turns so far, and the system prompt ("" is none)."""

    system: str = ""
    turns: list[Turn] = field(default_factory=list)

    def messages(self, user: str | None = None) -> list[dict[str, str]]:
        """Return the messages in the form that `FusedModel.chat` takes, `user` being the last."""
        messages = [_message("system", self.system)] if self.system else []
        for turn in self.turns:
            messages += [_message("user", turn.user), _message("assistant", turn.reply)]
        return messages if user is None else [*messages, _message("user", user)]

    @property
    def context_tokens(self) -> int:
        """Tokens of the context in use after the last reply; 0 where unknown."""
        return self.turns[-1].context_tokens if self.turns else 0

    def to_json(self) -> dict[str, Any]:
        """Return the parts of a saved conversation that this object knows."""
        messages: list[dict[str, Any]] = []
        if self.system:
            messages.append(_message("system", self.system))
        for turn in self.turns:
            reply: dict[str, Any] = _message("assistant", turn.reply)
            if turn.thinking:
                reply["thinking"] = turn.thinking
            if turn.stopped:
                reply["stopped"] = True
            if turn.regenerations:
                reply["regenerations"] = turn.regenerations
            messages += [_message("user", turn.user), reply]
        return {"format": FORMAT, "version": VERSION, "messages": messages}

    @classmethod
    def from_json(cls, content: object) -> tuple[Conversation, str]:
        """Return the conversation of a saved file, and a last user message without a reply.

        Raises:
            UsageError: naming what is wrong with it.
        """
        if not isinstance(content, dict):
            raise UsageError("not a saved conversation: it is not a JSON object")
        version = content.get("version", VERSION)
        if content.get("format", FORMAT) != FORMAT or version != VERSION:
            raise UsageError(f"not a conversation of format {FORMAT} {VERSION}")
        messages = content.get("messages")
        if not isinstance(messages, list) or not all(map(_is_message, messages)):
            raise UsageError("not a saved conversation: no list of messages with role and content")
        system = ""
        if messages and messages[0]["role"] == "system":
            system, messages = messages[0]["content"], messages[1:]
        for place, message in enumerate(messages):
            if message["role"] != ("user", "assistant")[place % 2]:
                raise UsageError("user and assistant messages do not alternate")
        pairs = zip(messages[::2], messages[1::2], strict=False)
        turns = [_turn(user, reply) for user, reply in pairs]
        unanswered = messages[-1]["content"] if len(messages) % 2 else ""
        return cls(system, turns), unanswered


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _is_message(item: object) -> bool:
    return (
        isinstance(item, dict)
        and isinstance(item.get("role"), str)
        and isinstance(item.get("content"), str)
    )


def _turn(user: dict[str, Any], reply: dict[str, Any]) -> Turn:
    regenerations = reply.get("regenerations", 0)
    thinking = reply.get("thinking", "")
    return Turn(
        user=user["content"],
        reply=reply["content"],
        stopped=reply.get("stopped") is True,
        regenerations=regenerations if type(regenerations) is int and regenerations >= 0 else 0,
        thinking=thinking if isinstance(thinking, str) else "",
    )
