"""Messages -> one prompt per context: chat templates, plain transcripts, kept token ids."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, Protocol

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from .errors import PromptError

Message = Mapping[str, str]

# What a chat template may spend: one for each step and for 16 characters that it handles.
_MAX_WORK = 10_000_000
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


class ChatTemplate:
    """A model's Jinja chat template, in a sandbox and with bounds on time and size.

    Args:
        source: the template as it stands in the GGUF.
        bos: text of the beginning-of-sequence token, for templates that print it.
        eos: text of the end token.

    Raises:
        PromptError: where the template cannot be parsed.
    """

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        self._sandbox = _Sandbox()
        self._constants = {"bos_token": bos, "eos_token": eos, "tools": None, "documents": None}
        try:
            tree = _Watch().visit(self._sandbox.parse(source))
            self._template = self._sandbox.from_string(tree)
        except Exception as error:  # a template is foreign code and may raise anything
            raise PromptError(f"the chat template cannot be read: {_line(error)}") from error

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as text, up to where the next reply begins.

        Raises:
            PromptError: where the template refuses the messages, fails, or runs too long.
        """
        self._sandbox.start()
        try:
            return self._template.render(
                messages=[dict(m) for m in messages], add_generation_prompt=True, **self._constants
            )
        except PromptError:
            raise
        except Exception as error:  # as above
            message = f"the chat template refuses this conversation: {_line(error)}"
            raise PromptError(message) from error


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, set up as chat templates expect it, in which work is counted.

    Jinja bounds neither time nor memory. Here every turn of a loop, call, operator, filter and
    printed value is paid from a budget. What one filter or method does inside, as in
    `"x" | center(1000000000)`, is only counted when it is done.
    """

    intercepted_binops = frozenset({"+", "*", "**"})

    def __init__(self) -> None:
        extensions = [loopcontrols, _GenerationTag]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        self.filters["tojson"] = _to_json
        self.filters["_paid"] = self._paid
        self.filters["_paid_loop"] = self._paid_loop
        del self.globals["lipsum"]  # a slow joke
        self.globals["raise_exception"] = _refuse
        self.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self.start()

    def start(self) -> None:
        """Begin to count: a rendering has the whole budget."""
        self._budget = _MAX_WORK
        self._deadline = time.monotonic() + _MAX_SECONDS

    def _pay(self, size: int = 0) -> None:
        self._budget -= 1 + size // 16
        if self._budget < 0 or time.monotonic() > self._deadline:
            raise PromptError("the chat template runs too long or prints too much")

    # A filter that wants the context is never evaluated while a template is compiled.
    @pass_context
    def _paid(self, context: Context, value: object) -> object:
        self._pay(_size(value))
        return value

    @pass_context
    def _paid_loop(self, context: Context, items: Iterable[object]) -> Iterator[object]:
        for item in items:
            self._pay()
            yield item

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._pay()
        result = super().call(context, function, *args, **kwargs)
        self._pay(_size(result))
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self._pay(_cost(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        raise SecurityError(f"attribute {attribute!r} of {type(obj).__name__!r} is not safe")


class _Watch(NodeTransformer):
    """Puts the filters by which `_Sandbox` counts into a parsed template."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_paid_loop")
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [_filtered(child, "_paid") for child in node.nodes]
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Filter:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "_paid")

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "_paid")


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _GenerationTag(Extension):
    """`{% generation %}` marks replies for training; here it prints its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _size(value: object) -> int:
    """Roughly what a value takes: characters, items, or bits."""
    if isinstance(value, str | list | tuple | dict):
        return len(value)
    return value.bit_length() if isinstance(value, int) else 0


def _cost(operator: str, left: object, right: object) -> int:
    """Roughly what a sum, a product (also of a text and a number) or a power takes to compute."""
    if operator == "**":
        return (_size(left) * abs(right)) ** 2 if isinstance(right, int) else 0
    if operator == "*":
        if isinstance(left, int) and isinstance(right, int):
            return _size(left) * _size(right)
        sequence, count = (right, left) if isinstance(left, int) else (left, right)
        return _size(sequence) * abs(count) if isinstance(count, int) else 0
    return _size(left) + _size(right)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str) -> NoReturn:
    raise PromptError(f"the chat template refuses this conversation: {_line(message)}")


def _line(message: object) -> str:
    return " ".join(str(message).split())


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
