"""How a model of a certain format writes calls: for grammars, and for templates without calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .formats import DEEPSEEK, FUNCTION, HERMES, MISTRAL, PHI, Syntax, ToolFormat
from .values import as_object, as_text


@dataclass(frozen=True, slots=True)
class Shape:
    """The texts around calls; `head` and `tail` stand around a name.

    Attributes:
        first, last: before the first call, after the last one.
        between: two calls; None where there can be one only.
        head, tail: what stands before a function's name, and between it and its arguments.
        end: what stands behind the arguments.
    """

    first: str
    head: str
    tail: str
    end: str
    between: str | None = None
    last: str = ""


def shape_of(form: ToolFormat) -> Shape:
    """How the calls of a format look; the first of its forms is the model's own."""
    syntax = form.syntaxes[0] if form.syntaxes else None
    head, tail = '{"name": "', f'", "{form.key}": '
    if syntax is HERMES:
        opened, closed = HERMES.opens[0] + "\n", "\n" + HERMES.closes[0]
        return Shape(opened, head, tail, "}", f"{closed}\n{opened}", closed)
    if syntax is FUNCTION:
        return Shape("", "<function=", ">", "</function>", "\n")
    if syntax is MISTRAL and form.tagged_arguments:
        return Shape("", MISTRAL.opens[0], MISTRAL.separator, "", " ")
    if syntax in (MISTRAL, PHI):
        closed = "]" + "".join(syntax.closes)
        return Shape(syntax.opens[0] + "[", head, tail, "}", ", ", closed)
    if syntax is DEEPSEEK:
        return _deepseek(DEEPSEEK, form.fenced)
    return Shape("", head, tail, "}")


def _deepseek(syntax: Syntax, fenced: bool) -> Shape:
    opened, again = syntax.opens
    first, (close, last) = opened.removesuffix(again), syntax.closes
    if fenced:
        head, tail, end = f"{again}function{syntax.separator}", "\n```json\n", f"\n```{close}"
    else:
        head, tail, end = again, syntax.separator, close
    return Shape(first, head, tail, end, "\n" if fenced else "", last)


def write_calls(form: ToolFormat, calls: Sequence[Mapping[str, Any]]) -> str:
    """Calls of an assistant's message as the model would have written them.

    Args:
        form: of the model.
        calls: {"function": {"name", "arguments"}} each.
    """
    shape = shape_of(form)
    between = "\n" if shape.between is None else shape.between
    functions = [call["function"] for call in calls]
    texts = [
        shape.head
        + function["name"]
        + shape.tail
        + as_text(as_object(function.get("arguments", "")))
        + shape.end
        for function in functions
    ]
    return shape.first + between.join(texts) + shape.last
