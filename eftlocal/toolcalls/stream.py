"""Tells text and tool calls apart in a reply that comes in pieces of any size."""

from __future__ import annotations

import random
import secrets
import string
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .reading import CallReader
from .steps import Over, Steps
from .tools import Tools
from .values import parsed

_LOOK_AGAIN = 64
"""Characters behind a marker without a call in which another marker is looked for."""
_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A piece of a call.

    Attributes:
        index: of the call in its reply, from 0.
        arguments: what its arguments' JSON text goes on with.
        id, name: in the first piece of a call only.
    """

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call; `arguments` is JSON text as the model wrote it, `parsed` its value."""

    id: str
    name: str
    arguments: str

    @property
    def parsed(self) -> Any:
        """The arguments as Python values; None where the model wrote no JSON."""
        return parsed(self.arguments)

    @property
    def message(self) -> dict[str, Any]:
        """The call as it stands in an assistant's message."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


class ToolStream:
    """Takes a reply's text, gives text and pieces of calls.

    Markers never become text in part. White space before a call and between calls is dropped.
    What begins like a call but is none, or calls a function that there is not, is text. A call
    begins as soon as its name and the beginning of its arguments are there; where the arguments
    then are no JSON they are passed on as they are, up to the closing marker.

    Args:
        tools: which functions there are, and how calls are written.
        new_id: makes the calls' ids; random ones by default.
    """

    def __init__(self, tools: Tools, new_id: Callable[[], str] | None = None) -> None:
        self._new_id = new_id or (lambda: _random_id(tools.format.short_ids))
        self._limit = None if tools.parallel and not tools.is_named else 1
        self._opens, self._closes = tools.format.opens, tools.format.closes
        self._markers = (*self._opens, *self._closes)
        self._lists = not any(marker.startswith("[") for marker in self._markers)
        self._calls = CallReader(tools.schemas, self)
        self._reader: Steps | None = None
        self._raw: list[str] = []  # what is text if the reader finds no call
        self._is_whole = False  # raw begins with a marker
        self._waiting: deque[str] = deque()
        self._in_arguments = self._is_broken = False
        self._held = ""  # what may become a marker
        self._space = ""
        self._is_start, self._has_text = True, False
        self.count = 0
        self._kind: int | None = None  # of the pieces: the index of a call, None is text
        self._pieces: list[str] = []
        self._out: list[str | CallDelta] = []

    def feed(self, text: str) -> list[str | CallDelta]:
        """Take the next piece; returns what is certain now."""
        self._waiting.extend(text)
        while self._waiting:
            self._take(self._waiting.popleft())
        self._flush()
        out, self._out = self._out, []
        return out

    def finish(self) -> list[str | CallDelta]:
        """End the text: what was held back was no marker and no call."""
        held, self._held = self._held, ""
        if self._is_broken:
            self.arguments(held)
        elif not self._in_arguments:
            self._write("".join(self._raw) + held)
            if self._space and not self.count:
                self._add(self._space, None)
        self._reader, self._raw, self._space = None, [], ""
        return self.feed("")

    def begin(self, name: str) -> None:
        """See `Receiver`."""
        self._in_arguments, self._raw, self._is_whole = True, [], False
        self.count += 1
        self._flush()
        if not self._is_muted:
            self._out.append(CallDelta(self.count - 1, "", self._new_id(), name))

    def arguments(self, text: str) -> None:
        """See `Receiver`."""
        if not self._is_muted:
            self._add(text, self.count - 1)

    def settle(self) -> None:
        """See `Receiver`."""
        self._in_arguments, self._raw, self._is_whole = False, [], False

    @property
    def _is_muted(self) -> bool:
        return self._limit is not None and self.count > self._limit

    def _take(self, c: str) -> None:
        if self._reader is None:
            self._outside(c)
            return
        if not self._in_arguments:
            self._raw.append(c)
        try:
            self._reader.send(c)
        except Over:
            raw, self._raw, self._reader = self._raw, [], None
            kept = len(raw) - 1
            if self._in_arguments:
                self._is_broken, kept = True, 0
            elif self._is_whole and len(raw) <= _LOOK_AGAIN:
                kept = 1  # the marker was text, and a call may begin right behind it
            self._write("".join(raw[:kept]))
            self._waiting.extendleft(reversed(raw[kept:] or [c]))

    def _outside(self, c: str) -> None:
        """A character of the text, of a marker, or of arguments that are no JSON."""
        if not self._held and not self._is_broken:
            if c.isspace():
                self._space += c
                return
            if self._is_start and (c == "{" or (c == "[" and self._lists)):
                self._enter(self._calls.json(), "")
                self._waiting.appendleft(c)
                return
        self._is_start = False
        self._held += c
        while self._held:
            held = self._held
            if held in self._closes and (self.count or self._is_broken):
                self._held = self._space = ""
                self._is_broken = self._in_arguments = False
                return
            if held in self._opens and not self._is_broken:
                self._held = ""
                self._enter(self._calls.section(self._opens[held]), held)
                return
            if any(marker.startswith(held) and marker != held for marker in self._markers):
                return
            self._held = held[1:]
            (self.arguments if self._is_broken else self._write)(held[0])

    def _enter(self, reader: Steps, marker: str) -> None:
        self._is_start = False
        self._raw, self._space = [self._space + marker], ""
        self._is_whole = bool(marker)
        self._reader = reader
        next(reader)

    def _write(self, text: str) -> None:
        """Text, of which white space at the end is held back."""
        text = self._space + text
        body = text.rstrip()
        self._space = text[len(body) :]
        if body:
            self._add(body.lstrip() if self.count and not self._has_text else body, None)
            self._has_text = True

    def _add(self, text: str, call: int | None) -> None:
        """A piece of the text, or of a call's arguments; pieces of one kind become one."""
        if call != self._kind:
            self._flush()
            self._kind = call
        self._pieces.append(text)

    def _flush(self) -> None:
        text = "".join(self._pieces)
        self._pieces.clear()
        if text:
            self._out.append(text if self._kind is None else CallDelta(self._kind, text))


def _random_id(short: bool) -> str:
    letters = "".join(secrets.choice(_LETTERS) for _ in range(9 if short else 24))
    return letters if short else f"call_{letters}"


def gathered(pieces: Iterable[str | CallDelta]) -> tuple[str, tuple[ToolCall, ...]]:
    """The text and the calls that pieces make up."""
    text: list[str] = []
    calls: list[list[str]] = []
    for piece in pieces:
        if isinstance(piece, str):
            text.append(piece)
        else:
            if piece.name is not None:
                calls.append([piece.id or "", piece.name])
            calls[-1].append(piece.arguments)
    return "".join(text), tuple(ToolCall(i, name, "".join(rest)) for i, name, *rest in calls)


def split_calls(text: str, tools: Tools, seed: str = "") -> tuple[str, tuple[ToolCall, ...]]:
    """Split a whole reply into text and calls; with a seed the ids are a function of it."""
    draw = random.Random(seed) if seed else random.SystemRandom()
    size, prefix = (9, "") if tools.format.short_ids else (24, "call_")
    stream = ToolStream(tools, lambda: prefix + "".join(draw.choices(_LETTERS, k=size)))
    return gathered([*stream.feed(text), *stream.finish()])
