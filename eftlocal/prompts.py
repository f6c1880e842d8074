"""Messages -> one prompt per context: plain transcripts, and token ids that replies keep."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from reprlib import repr as brief
from typing import Any, Protocol

from . import reasoning
from .errors import PromptError
from .toolcalls import as_text, is_deep

Message = Mapping[str, Any]

MAX_MESSAGES = 10_000
MAX_CALLS = 256
MAX_NAME = 256
"""Characters of names of functions and of ids of calls."""
_ROLES = ("system", "developer", "user", "assistant", "tool")
_SHORT_TEXTS = ("name", "tool_call_id")


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

    A message has a role (developer is another word for system) and a text as content; that of an
    assistant may be None beside `tool_calls`, {"function": {"name", "arguments"}} each.

    Raises:
        PromptError: naming the first message that is wrong.
    """
    if not messages or isinstance(messages, str | bytes | Mapping):
        raise PromptError("there are no messages; give a list with at least one user message")
    if len(messages) > MAX_MESSAGES:
        raise PromptError(f"there are {len(messages)} messages; at most {MAX_MESSAGES} are allowed")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise PromptError(f"message {number} is not a table with a role and a content")
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES:
            raise PromptError(f"message {number} has role {brief(role)}; use {', '.join(_ROLES)}")
        calls = message.get("tool_calls")
        if calls is not None:
            _check_calls(calls, role, f"message {number}")
        if not isinstance(content, str) and not (content is None and calls):
            raise PromptError(f"message {number} has no text content")
        for key in _SHORT_TEXTS:
            if not _is_short(message.get(key, "")):
                raise PromptError(f"the {key} of message {number} is not a short text")
        if not isinstance(message.get("reasoning_content") or "", str):
            raise PromptError(f"the reasoning_content of message {number} is not a text")


def _check_calls(calls: object, role: str, where: str) -> None:
    if not isinstance(calls, list | tuple):
        raise PromptError(f"the tool_calls of {where} are not a list")
    if calls and role != "assistant":
        raise PromptError(f"{where} has tool_calls, which only an assistant's message may have")
    if len(calls) > MAX_CALLS:
        raise PromptError(f"{where} has {len(calls)} tool_calls; at most {MAX_CALLS} are allowed")
    for call in calls:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not function.get("name"):
            raise PromptError(f"a tool call of {where} has no function with a name")
        if not _is_short(function["name"]) or not _is_short(call.get("id")):
            raise PromptError(f"a tool call of {where} has a name or an id that is no short text")
        arguments = function.get("arguments", "")
        if not isinstance(arguments, str | Mapping):
            raise PromptError(f"a tool call of {where} has arguments that are no text or object")
        if is_deep(arguments):
            raise PromptError(f"a tool call of {where} has arguments that are nested too deep")


def _is_short(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= MAX_NAME)


def without_thinking(messages: Sequence[Message]) -> list[Message]:
    """The conversation with the answers alone where replies begin with a <think> block.

    Qwen3's and DeepSeek's templates drop the thinking of earlier replies, too; others and plain
    transcripts would show it. Behind the last user's message, where a turn goes on with what tools
    have said, thinking stays as `reasoning_content`, for templates that print it.
    """
    asked = [place for place, message in enumerate(messages) if message["role"] == "user"]
    last = asked[-1] if asked else 0
    return [
        _answer(message, place > last) if message["role"] == "assistant" else message
        for place, message in enumerate(messages)
    ]


def _answer(message: Message, is_current: bool) -> Message:
    """An assistant's message whose thinking stands apart, or nowhere."""
    thinking, answer = reasoning.split(message.get("content") or "")
    thinking = message.get("reasoning_content") or thinking
    kept = {key: value for key, value in message.items() if key != "reasoning_content"}
    if message.get("content"):
        kept["content"] = answer
    return {**kept, "reasoning_content": thinking} if thinking and is_current else kept


def plain_transcript(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
) -> str:
    """The conversation as base models know it: system text, then User: and Assistant: lines.

    As proxy tuning prompts base and reference (arXiv 2401.08565). Tools come first, a line with
    the signature and the description of each; calls are written like those of Python, and what
    tools say stands in Tool: lines.

    Args:
        messages: see `check_messages`.
        tools: {"type": "function", "function": {"name", ...}} each.
    """
    lines = [_signature(tool["function"]) for tool in tools or ()]
    if lines:
        lines.insert(0, "Tools:")
    lines += [_plain(message) for message in messages]
    return "\n".join([*lines, "Assistant:"])


def _signature(function: Mapping[str, Any]) -> str:
    """A tool as `- name(first: type, second): description`."""
    schema = function.get("parameters")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    names = []
    for name, value in (properties if isinstance(properties, Mapping) else {}).items():
        kind = value.get("type") if isinstance(value, Mapping) else None
        names.append(f"{name}: {kind}" if isinstance(kind, str) else str(name))
    text = " ".join(str(function.get("description") or "").split())
    return f"- {function['name']}({', '.join(names)})" + (f": {text}" if text else "")


def _plain(message: Message) -> str:
    """A message as one line, but for the line ends that it has itself."""
    names = {"user": "User: ", "assistant": "Assistant: ", "tool": "Tool: "}
    parts = [message["content"]] if message.get("content") else []
    for call in message.get("tool_calls") or ():
        function = call["function"]
        parts.append(f"{function['name']}({as_text(function.get('arguments') or {})})")
    return names.get(message["role"], "") + "\n".join(parts)


class PromptEncoder:
    """Text of a conversation -> token ids, in which generated replies keep their own ids.

    A reply that is tokenized again may give other ids than were generated; the caches would then
    not fit the next turn. So the last prompts and replies are remembered. Any number of threads
    may encode and remember at once.

    Args:
        tokenizer: the vocabulary.
        capacity: conversations that are remembered.
    """

    def __init__(self, tokenizer: Tokenizer, capacity: int = 1) -> None:
        self._tokenizer = tokenizer
        self._known: deque[tuple[str, tuple[int, ...]]] = deque(maxlen=2 * capacity)
        self._lock = threading.Lock()

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a rendered conversation; markers in it are control tokens."""
        with self._lock:
            remembered = tuple(self._known)
        for known, ids in remembered:
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
        entry = (text + reply, (*ids, *reply_ids))
        with self._lock:
            self._known.appendleft(entry)

    def _tokenize(self, text: str) -> list[int]:
        return self._tokenizer.tokenize(text, add_special=False, parse_special=True)
