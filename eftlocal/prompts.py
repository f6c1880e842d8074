"""Messages -> one prompt per context: plain transcripts, and token ids that replies keep."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from . import reasoning
from .errors import PromptError

Message = Mapping[str, str]

_ROLES = ("system", "user", "assistant")


class Tokenizer(Protocol):
    """What this module needs of a vocabulary."""

    bos: int
    add_bos: bool

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of a text."""

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Bytes of a token."""

    def is_control(self, token: int) -> bool:
        """Whether the token is a marker."""


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse what is not a conversation that asks for an answer.

    Raises:
        PromptError: naming the first message that is wrong.
    """
    if not messages or isinstance(messages, str | bytes | Mapping):
        raise PromptError("there are no messages; give a list with at least one user message")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise PromptError(f"message {number} is not a table with a role and a content")
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES:
            raise PromptError(f"message {number} has role {role!r}; use {', '.join(_ROLES)}")
        if not isinstance(content, str):
            raise PromptError(f"message {number} has no text content")


def without_thinking(messages: Sequence[Message]) -> list[Message]:
    """The conversation with the answers alone where replies begin with a <think> block.

    Qwen3's and DeepSeek's templates drop the thinking of earlier replies, too; others and plain
    transcripts would show it.
    """
    return [
        {**message, "content": reasoning.split(message["content"])[1]}
        if message["role"] == "assistant"
        else message
        for message in messages
    ]


def plain_transcript(messages: Sequence[Message]) -> str:
    """The conversation as base models know it: system text, then User: and Assistant: lines.

    As proxy tuning prompts base and reference (arXiv 2401.08565).
    """
    names = {"user": "User: ", "assistant": "Assistant: ", "system": ""}
    lines = [names[message["role"]] + message["content"] for message in messages]
    return "\n".join([*lines, "Assistant:"])


class PromptEncoder:
    """Text of a conversation -> token ids, in which generated replies keep their own ids.

    A reply that is tokenized again may give other ids than were generated; the caches would then
    not fit the next turn. So the last prompts and replies are remembered.

    Args:
        tokenizer: the vocabulary.
        capacity: conversations that are remembered.
    """

    def __init__(self, tokenizer: Tokenizer, capacity: int = 1) -> None:
        self._tokenizer = tokenizer
        self._known: deque[tuple[str, tuple[int, ...]]] = deque(maxlen=2 * capacity)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a rendered conversation; markers in it are control tokens."""
        for known, ids in self._known:
            if len(known) < len(text) and text.startswith(known):
                rest = self._tokenize(text[len(known) :])
                # Only a marker is sure to be a border between tokens.
                if rest and self._tokenizer.is_control(rest[0]):
                    return (*ids, *rest)
        tokenizer = self._tokenizer
        bos = tokenizer.piece(tokenizer.bos, special=True).decode() if tokenizer.bos >= 0 else ""
        has_bos = bool(bos) and text.startswith(bos)
        return tuple(tokenizer.tokenize(text, add_special=not has_bos, parse_special=True))

    def remember(self, text: str, ids: Sequence[int], reply: str, reply_ids: Sequence[int]) -> None:
        """Keep what a prompt and the reply to it were in tokens."""
        self._known.appendleft((text + reply, (*ids, *reply_ids)))

    def _tokenize(self, text: str) -> list[int]:
        return self._tokenizer.tokenize(text, add_special=False, parse_special=True)
