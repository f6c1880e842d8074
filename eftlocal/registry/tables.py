"""Reads values out of a TOML table strictly: what is not understood is an error with its line."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import RegistryError
from .lines import KeyPath, read_layout

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Document:
    """A TOML file and the text that was read from it."""

    file: Path
    text: str

    def fail(self, path: KeyPath, problem: str, at: KeyPath = ()) -> NoReturn:
        """Report a problem with the value at a path.

        Args:
            path: what the message names.
            problem: what is wrong and what is allowed.
            at: what the line is that of, by default the path; or of the nearest value around it.

        Raises:
            RegistryError: naming file, line and path.
        """
        try:
            line = read_layout(self.text).line(at or path)
        except ValueError:  # the text was changed by hand since, or is no plain TOML
            line = None
        place = f"line {line}: " if line else ""
        raise RegistryError(f"{self.file}: {place}{dotted(path)}: {problem}")


def dotted(path: KeyPath) -> str:
    """A path as one would write it: models."qwen2.5".experts[0]."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            name = key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)
            text += f".{name}" if text else name
    return text


@dataclass(frozen=True, slots=True)
class Table:
    """A TOML table, the document that it stands in and the path that leads to it."""

    content: dict[str, Any]
    document: Document
    path: KeyPath = ()

    def fail(self, key: str, problem: str) -> NoReturn:
        """Report a problem with the value of a key."""
        self.document.fail((*self.path, key), problem)

    def fail_whole(self, problem: str, key: str = "") -> NoReturn:
        """Report a problem with the table, in the line of one of its keys where that is there."""
        self.document.fail(self.path, problem, (*self.path, key))

    def table(self, key: str, form: str = "a table") -> Table:
        """The table under a key, which has to be there."""
        value = self.content.get(key)
        if value is None:
            self.fail(key, f"missing; it is {form}")
        if not isinstance(value, dict):
            self.fail(key, f"{value!r} is not allowed; it is {form}")
        return Table(value, self.document, (*self.path, key))

    def text(self, key: str, allowed: str, pattern: str = r"(?s).+") -> str | None:
        """The string under a key, or None where the key is not there."""
        value = self.content.get(key)
        if value is not None and not (isinstance(value, str) and re.fullmatch(pattern, value)):
            self.fail(key, f"{value!r} is not allowed; use {allowed}")
        return value

    def texts(self, key: str, allowed: str, pattern: str) -> tuple[str, ...]:
        """The list of strings under a key; empty where the key is not there."""
        value = self.content.get(key, [])
        ok = isinstance(value, list) and all(
            isinstance(item, str) and re.fullmatch(pattern, item) for item in value
        )
        if not ok:
            self.fail(key, f"{value!r} is not allowed; use {allowed}")
        return tuple(value)

    def number(self, key: str, allowed: str, low: float, high: float) -> float | None:
        """The number under a key, or None where the key is not there."""
        value = self.content.get(key)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and low <= value <= high):
            self.fail(key, f"{value!r} is not allowed; use {allowed}")
        return value  # type: ignore[no-any-return]

    def count(self, key: str, allowed: str) -> int | None:
        """The whole number from 1 under a key, or None where the key is not there."""
        value = self.content.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.fail(key, f"{value!r} is not allowed; use {allowed}")
        return value

    def finish(self, *known: str) -> None:
        """Reject keys that nobody asks for."""
        for key in self.content:
            if key not in known:
                alike = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {alike[0]}? " if alike else ""
                self.fail(key, f"unknown key; {hint}allowed: {', '.join(known)}")
