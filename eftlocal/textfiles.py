"""Text files that a user names: whole, line by line, and with a JSON value in each line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from .errors import EftlocalError, UsageError


def read_text(path: Path) -> str:
    """The text of a file without a byte order mark; ends of lines stay what they are.

    Raises:
        UsageError: where it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from None


def filled_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank with their numbers, from 1, and without their ends."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def json_value(text: str) -> Any:
    """The value that a text is, such that it can be written as JSON and UTF-8 again.

    Raises:
        ValueError: where it is none, NaN and infinities included; says why in a few words.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a lone surrogate), not UTF-8 text") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"holds {text[:20]}, a number too large to be kept")
    return number


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Where something is written to a file; a system's error is told with the file's name.

    Raises:
        EftlocalError: where it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise EftlocalError(f"cannot write {path}: {error.strerror or error}") from None
