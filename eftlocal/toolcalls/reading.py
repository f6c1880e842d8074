"""Reads calls character by character, so that text may come in pieces of any size.

The readers are generators, as those of `steps` are. They end with `Over`: the last character does
not belong to a call any more, or there is none.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from typing import Any, Protocol

from .formats import CALL_ID, FUNCTION, HERMES, Syntax
from .steps import (
    Over,
    Steps,
    ignore,
    read_exactly,
    read_members,
    read_spaces,
    read_text,
    read_to,
    read_until,
    read_value,
)
from .tagged import as_json
from .values import MAX_DEPTH, parsed

_IGNORED = ("id", "type", "index", "tool_call_id")
"""Keys that models write beside a name and its arguments."""


class Receiver(Protocol):
    """Who gets what is read."""

    def begin(self, name: str) -> None:
        """A call of a function; its arguments follow."""

    def arguments(self, text: str) -> None:
        """A piece of the arguments."""

    def settle(self) -> None:
        """The arguments are complete, or what was read behind them belongs to the call."""


class CallReader:
    """The readers, for the functions of one request.

    Args:
        schemas: of the functions' arguments, by name; other calls are `Over` before they begin.
        receiver: gets the calls.
    """

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]], receiver: Receiver) -> None:
        self._schemas = schemas
        self._receiver = receiver

    def section(self, syntax: Syntax) -> Steps:
        """What stands behind an opening marker."""
        c = yield from read_spaces((yield))
        if c in "{[":
            return (yield from self.json(c))
        if syntax is HERMES and c == "<":
            # Qwen3-Coder's form of a function stands in the other marker.
            yield from read_exactly(FUNCTION.opens[0][1:])
            return (yield from self._named((yield), FUNCTION.separator))
        if not syntax.separator:
            raise Over
        return (yield from self._named(c, syntax.separator))

    def json(self, c: str = "") -> Steps:
        """Objects with a name and arguments, one behind the other, or a list of them."""
        c = c or (yield)
        if c == "[":
            c = yield from self._call((yield from read_spaces((yield))))
            while (c := (yield from read_spaces(c))) == ",":
                c = yield from self._call((yield from read_spaces((yield))))
            if c != "]":
                raise Over
            self._receiver.settle()
            yield
            raise Over
        while True:
            c = yield from read_spaces((yield from self._call(c)))
            if c in ",;":
                c = yield from read_spaces((yield))

    def _call(self, c: str) -> Steps:
        """One object; its other keys are ignored where they are known, and refused where not."""
        if c != "{":
            raise Over
        name: str | None = None
        early: list[str] = []  # arguments that come before the name
        done = False
        c = yield from read_spaces((yield))
        while True:
            key = yield from read_text(c)
            c = yield from read_spaces((yield))
            if c != ":":
                raise Over
            c = yield from read_spaces((yield))
            if key in ("name", "function") and name is None:
                name = self._known((yield from read_text(c)))
                c = yield
                if early:
                    self._whole(name, "".join(early))
            elif key in ("arguments", "parameters") and not done:
                done = True
                c = yield from self._arguments(name, c, early)
            elif key in _IGNORED:
                c = yield from read_value(c, ignore, MAX_DEPTH)
            else:
                raise Over
            c = yield from read_spaces(c)
            if c == "}":
                break
            if c != ",":
                raise Over
            c = yield from read_spaces((yield))
        if name is None:
            raise Over
        if not done:
            self._whole(name, "{}")
        self._receiver.settle()
        return (yield)

    def _arguments(self, name: str | None, c: str, early: list[str]) -> Steps:
        """The value of a call's arguments: an object, a text that is one, or null."""
        if c == "{" and name is not None:
            yield from self._object(name)
            return (yield)
        if c in '{"n':
            text: list[str] = []
            after = yield from read_value(c, text.append, MAX_DEPTH)
            value = parsed("".join(text))
            if isinstance(value, str):
                value, text = parsed(value), [value]
            if value is not None and not isinstance(value, dict):
                raise Over
            early.append("".join(text) if value is not None else "{}" if c == "n" else "")
            if not early[0]:
                raise Over
            if name is not None:
                self._whole(name, early[0])
            return after
        raise Over

    def _object(self, name: str) -> Generator[None, str, None]:
        """Arguments from behind their first brace; the call begins where they look like JSON."""
        start = ["{"]
        c = yield from read_spaces((yield), start.append)
        if c not in '"}':
            raise Over
        self._receiver.begin(name)
        self._receiver.arguments("".join(start))
        yield from read_members(c, self._receiver.arguments, MAX_DEPTH)
        self._receiver.settle()

    def _parameters(self, name: str) -> Steps:
        """Arguments in tags, from behind the first bracket; each is passed on when it is whole."""
        between = "{"
        while (c := (yield)) != "/":
            if c != "p":
                raise Over
            yield from read_exactly("arameter=")
            key = yield from read_until((yield), ">")
            value = yield from read_to("</parameter>")
            if between == "{":
                self._receiver.begin(name)
            item = f"{json.dumps(key)}: {as_json(value, key, self._schemas[name])}"
            self._receiver.arguments(between + item)
            between = ", "
            if (yield from read_spaces((yield))) != "<":
                raise Over
        yield from read_exactly(FUNCTION.closes[0][2:])
        if between == "{":
            self._whole(name, "{}")
        else:
            self._receiver.arguments("}")
            self._receiver.settle()
        yield
        raise Over

    def _whole(self, name: str, arguments: str) -> None:
        self._receiver.begin(name)
        self._receiver.arguments(arguments)
        self._receiver.settle()

    def _known(self, name: str) -> str:
        if name not in self._schemas:
            raise Over
        return name

    def _named(self, c: str, separator: str) -> Steps:
        """A name, a separator and arguments, which may stand between ``` lines."""
        name = yield from read_until(c, separator)
        name = name.partition(CALL_ID)[0].strip()
        if name == "function" and name not in self._schemas:
            # DeepSeek V3 writes the type of the call first, and the name on a line of its own.
            name = (yield from read_until((yield), "\n")).strip()
        self._known(name)
        c = yield from read_spaces((yield))
        if c == "`":
            yield from read_exactly("``json")
            c = yield from read_spaces((yield))
        if c == "<" and separator == FUNCTION.separator:
            return (yield from self._parameters(name))
        if c != "{":
            raise Over
        yield from self._object(name)
        c = yield from read_spaces((yield))
        if c == "`":
            yield from read_exactly("``")
            self._receiver.settle()
            yield
        raise Over
