"""Chat templates of GGUFs: foreign Jinja code, run in a sandbox that counts what it does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from .errors import PromptError
from .toolcalls import ToolFormat, as_object, write_calls

# What a chat template may spend: one for each step and for 16 characters that it handles.
_MAX_WORK = 10_000_000
_MAX_SECONDS = 5.0

_TRIAL = [{"role": "user", "content": "Hello"}]
_TRIAL_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}


class ChatTemplate:
    """A model's Jinja chat template, in a sandbox and with bounds on time and size.

    Several threads may render at once; they take turns.

    Args:
        source: the template as it stands in the GGUF.
        bos: text of the beginning-of-sequence token, for templates that print it.
        eos: text of the end token.

    Raises:
        PromptError: where the template cannot be parsed.
    """

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        self.source = source
        self._sandbox = _Sandbox()
        self._lock = threading.Lock()
        self._constants = {"bos_token": bos, "eos_token": eos, "documents": None}
        self._has_tools: bool | None = None
        try:
            tree = _Watch().visit(self._sandbox.parse(source))
            self._template = self._sandbox.from_string(tree)
        except Exception as error:  # a template is foreign code and may raise anything
            raise PromptError(f"the chat template cannot be read: {_line(error)}") from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The conversation as text, up to where the next reply begins.

        Args:
            messages: see `prompts.check_messages`; JSON texts of calls' arguments become objects.
                Where the template knows tools, but no calls, these become text.
            tools: {"type": "function", "function": {...}} each.

        Raises:
            PromptError: where the template refuses the messages, fails, runs too long, or would
                leave out tools or calls.
        """
        has_calls = any(message.get("tool_calls") for message in messages)
        prints_calls = "tool_calls" in self.source
        if not self.has_tools and (tools or (has_calls and not prints_calls)):
            raise PromptError("the model's chat template has no tools")
        if has_calls and not prints_calls:
            form = ToolFormat.of_template(self.source)
            messages = [_with_calls_as_text(message, form) for message in messages]
        return self._render(messages, tools)

    @property
    def has_tools(self) -> bool:
        """Whether tools change what the template prints; found out by a trial."""
        if self._has_tools is None:
            self._has_tools = "tools" in self.source and self._prints_tools()
        return self._has_tools

    def _prints_tools(self) -> bool:
        try:
            return self._render(_TRIAL, None) != self._render(_TRIAL, [_TRIAL_TOOL])
        except PromptError:
            return True  # it names tools, and wants another conversation than this

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
    ) -> str:
        values = {"messages": [_for_template(message) for message in messages], **self._constants}
        values["tools"] = [dict(tool) for tool in tools] if tools else None
        with self._lock:  # the sandbox counts the work of one rendering
            self._sandbox.start()
            try:
                return self._template.render(values, add_generation_prompt=True)
            except PromptError:
                raise
            except Exception as error:  # as above
                message = f"the chat template refuses this conversation: {_line(error)}"
                raise PromptError(message) from error


def _for_template(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates know it: system for developer, "" for no content, no empty keys."""
    known = {key: value for key, value in message.items() if value not in (None, [], ())}
    known["content"] = message.get("content") or ""
    if message.get("role") == "developer":
        known["role"] = "system"
    calls = known.get("tool_calls")
    if calls:
        known["tool_calls"] = [_call(call) for call in calls]
    return known


def _with_calls_as_text(message: Mapping[str, Any], form: ToolFormat) -> Mapping[str, Any]:
    calls = message.get("tool_calls")
    if not calls:
        return message
    parts = filter(None, [message.get("content"), write_calls(form, calls)])
    return {**message, "tool_calls": None, "content": "\n".join(parts)}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call whose arguments are an object where that is possible; most templates print it so."""
    function = {**call["function"], "arguments": as_object(call["function"].get("arguments", ""))}
    return {**call, "type": "function", "function": function}


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
