"""Where things stand in a TOML text: tomllib, which reads the values, does not tell lines.

Only for texts that tomllib has accepted: what it checks is not checked again.
Grammar: https://toml.io/en/v1.0.0
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""The keys that lead to a value, and its numbers in lists."""

_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r'[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'')
_STRING = re.compile(
    r'"""(?:\\[\s\S]|[^\\])*?"{3,5}(?!")'
    r"|'''[\s\S]*?'{3,5}(?!')"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
)
_SCALAR = re.compile(r"[^,\]}\n#]+")


@dataclass(frozen=True, slots=True)
class Statement:
    """A header such as [models.x], or a key with its value, and its lines from 1.

    Attributes:
        path: what it opens or sets.
        first, last: its lines, both included.
        is_header: whether it is a header.
    """

    path: KeyPath
    first: int
    last: int
    is_header: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """The statements of a text in their order, and the first line of every value in it."""

    statements: tuple[Statement, ...]
    lines: dict[KeyPath, int]

    def line(self, path: KeyPath) -> int | None:
        """The line of a value, or of the nearest table around it where there is none."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None


def read_layout(text: str) -> Layout:
    """Find the lines of everything in a TOML text.

    Raises:
        ValueError: for a text that is not TOML.
    """
    return _Scanner(text).run()


class _Scanner:
    """One pass over a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line, self._counted = 1, 0
        self._lines: dict[KeyPath, int] = {}
        self._lengths: dict[KeyPath, int] = {}

    def run(self) -> Layout:
        """Read every statement."""
        statements = []
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            first = self._line_here()
            is_header = self._sees("[")
            if is_header:
                path = table = self._header()
            else:
                path = self._pair(table)
            statements.append(Statement(path, first, self._line_here(), is_header))
            self._skip(_BLANK)
        return Layout(tuple(statements), self._lines)

    def _header(self) -> KeyPath:
        """[a.b] or [[a.b]]: the path that it opens."""
        line = self._line_here()
        brackets = 2 if self._sees("[[") else 1
        self._at += brackets
        keys = self._keys()
        self._at += brackets
        path: KeyPath = ()
        for i, key in enumerate(keys):
            path = (*path, key)
            self._lines.setdefault(path, line)
            if brackets == 2 and i == len(keys) - 1:
                self._lengths[path] = self._lengths.get(path, 0) + 1
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
                self._lines.setdefault(path, line)
        return path

    def _pair(self, table: KeyPath) -> KeyPath:
        """`a.b = value` in a table: the path that it sets."""
        line = self._line_here()
        path = table
        for key in self._keys():
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._take("=")
        self._skip(_SPACE)
        self._value(path)
        return path

    def _value(self, path: KeyPath) -> None:
        if self._sees("["):
            self._take("[")
            number = 0
            while not self._ends_with("]"):
                item = (*path, number)
                self._lines[item] = self._line_here()
                self._value(item)
                number += 1
        elif self._sees("{"):
            self._take("{")
            while not self._ends_with("}"):
                self._pair(path)
        elif self._sees('"') or self._sees("'"):
            self._match(_STRING)
        else:
            self._match(_SCALAR)

    def _ends_with(self, bracket: str) -> bool:
        """Go to the next item of a list or table, or past its end."""
        self._skip(_BLANK)
        if self._sees(","):
            self._take(",")
            self._skip(_BLANK)
        if self._sees(bracket):
            self._take(bracket)
            return True
        return False

    def _keys(self) -> list[str]:
        """A dotted key."""
        keys = []
        while True:
            self._skip(_SPACE)
            key = self._match(_KEY)
            keys.append(str(tomllib.loads(f"key = {key}")["key"]) if key[0] in "\"'" else key)
            self._skip(_SPACE)
            if not self._sees("."):
                return keys
            self._take(".")

    def _sees(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _take(self, text: str) -> None:
        if not self._sees(text):
            raise ValueError(f"no {text} in line {self._line_here()}")
        self._at += len(text)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if found := pattern.match(self._text, self._at):
            self._at = found.end()

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"not understood in line {self._line_here()}")
        self._at = found.end()
        return found[0]

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line
