"""Reads pieces of JSON and of markers character by character.

The readers are generators: each `yield` takes the next character, and what they return is the
first character that they did not use, or what they read. `Over` says that the last character does
not go on with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator

Steps = Generator[None, str, str]
Sink = Callable[[str], None]

MAX_NAME = 400
"""Most characters of what stands before a separator."""
_SPACE = " \t\r\n"
_SCALAR = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null")
_HEX = frozenset("0123456789abcdefABCDEF")


class Over(Exception):
    """The last character does not go on with what was read."""


def ignore(_: str) -> None:
    """Where nobody wants the text."""


def read_spaces(c: str, sink: Sink = ignore) -> Steps:
    """White space, if there is any."""
    while c in _SPACE:
        sink(c)
        c = yield
    return c


def read_exactly(text: str) -> Generator[None, str, None]:
    """Nothing but this text, whose last character is used."""
    for wanted in text:
        if (yield) != wanted:
            raise Over


def read_until(c: str, end: str) -> Generator[None, str, str]:
    """A short text up to and without `end`, whose last character is used."""
    text = c
    while not text.endswith(end):
        if len(text) > MAX_NAME:
            raise Over
        text += yield
    return text.removesuffix(end)


def read_to(end: str) -> Generator[None, str, str]:
    """A text of any length up to and without `end`, whose last character is used."""
    text: list[str] = []
    while "".join(text[-len(end) :]) != end:
        text.append((yield))
    return "".join(text[: -len(end)])


def read_text(c: str) -> Generator[None, str, str]:
    """A JSON string's content; its last quote is used."""
    if c != '"':
        raise Over
    raw: list[str] = []
    yield from _string(raw.append)
    return str(json.loads("".join(raw)))


def _string(sink: Sink) -> Generator[None, str, None]:
    """A JSON string from behind its first quote. Bare control characters become escapes."""
    sink('"')
    while (c := (yield)) != '"':
        if c == "\\":
            sink(c)
            c = yield
            if c not in '"\\/bfnrtu':
                raise Over
            sink(c)
            for _ in range(4 if c == "u" else 0):
                c = yield
                if c not in _HEX:
                    raise Over
                sink(c)
        else:
            sink(c if c >= " " else json.dumps(c)[1:-1])
    sink('"')


def read_value(c: str, sink: Sink, depth: int) -> Steps:
    """Any JSON value; returns the character behind it."""
    if depth == 0:
        raise Over
    if c == '"':
        yield from _string(sink)
    elif c == "{":
        sink(c)
        yield from read_members((yield from read_spaces((yield), sink)), sink, depth)
    elif c == "[":
        sink(c)
        yield from _items((yield from read_spaces((yield), sink)), sink, depth)
    else:
        return (yield from _scalar(c, sink))
    return (yield)


def _scalar(c: str, sink: Sink) -> Steps:
    """A number, true, false or null."""
    text = ""
    while c.isascii() and (c.isalnum() or c in "+-."):
        text += c
        if len(text) > MAX_NAME:
            raise Over
        sink(c)
        c = yield
    if not _SCALAR.fullmatch(text):
        raise Over
    return c


def read_members(c: str, sink: Sink, depth: int) -> Generator[None, str, None]:
    """An object from the first visible character behind its brace; the last brace is used."""
    while c != "}":
        if c != '"':
            raise Over
        yield from _string(sink)
        c = yield from read_spaces((yield), sink)
        if c != ":":
            raise Over
        sink(c)
        c = yield from read_spaces((yield), sink)
        c = yield from read_spaces((yield from read_value(c, sink, depth - 1)), sink)
        if c == "}":
            break
        if c != ",":
            raise Over
        sink(c)
        c = yield from read_spaces((yield), sink)
        if c == "}":
            raise Over
    sink("}")


def _items(c: str, sink: Sink, depth: int) -> Generator[None, str, None]:
    """A list, as `_members` does objects."""
    while c != "]":
        c = yield from read_spaces((yield from read_value(c, sink, depth - 1)), sink)
        if c == "]":
            break
        if c != ",":
            raise Over
        sink(c)
        c = yield from read_spaces((yield), sink)
        if c == "]":
            raise Over
    sink("]")
