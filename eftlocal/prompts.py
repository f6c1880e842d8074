"""Messages -> one prompt per context: chat templates, plain transcripts, kept token ids."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn, Protocol

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .errors import PromptError

Message = Mapping[str, str]

_MAX_CHARACTERS = 8_000_000
_MAX_SECONDS = 5.0
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
    if not messages:
        raise PromptError("there are no messages; give at least one user message")
    for number, message in enumerate(messages, 1):
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES:
            raise PromptError(f"message {number} has role {role!r}; use {', '.join(_ROLES)}")
        if not isinstance(content, str):
            raise PromptError(f"message {number} has no text content")


class ChatTemplate:
    """A model's Jinja chat template, in a sandbox and with bounds on time and length.

    Args:
        source: the template as it stands in the GGUF.
        bos: text of the beginning-of-sequence token, for templates that print it.
        eos: text of the end token.

    Raises:
        PromptError: where the template cannot be parsed.
    """

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._constants = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise PromptError(f"the chat template cannot be read: {error}") from error

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as text, up to where the next reply begins.

        Raises:
            PromptError: where the template refuses the messages, fails, or runs too long.
        """
        deadline = time.monotonic() + _MAX_SECONDS
        parts: list[str] = []
        length = 0
        try:
            for part in self._template.generate(
                messages=[dict(m) for m in messages], add_generation_prompt=True, **self._constants
            ):
                parts.append(part)
                length += len(part)
                if length > _MAX_CHARACTERS or time.monotonic() > deadline:
                    raise PromptError("the chat template runs too long or prints too much")
        except PromptError:
            raise
        except Exception as error:  # a template is foreign code and may raise anything
            raise PromptError(f"the chat template refuses this conversation: {error}") from error
        return "".join(parts)


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise PromptError(f"the chat template refuses this conversation: {message}")


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
