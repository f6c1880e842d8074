"""Single keys at the beginning of a GGUF file, without a check of the rest."""

from __future__ import annotations

import struct
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from .types import ARRAY, NUMBERS, STRING, Value

_LONGEST_TEXT = 1 << 16
VOCABULARY = 1_000
"""A list of so many strings is a vocabulary, which takes long to read."""


def read_metadata(
    path: Path, keys: Collection[str], most_strings: int = VOCABULARY
) -> dict[str, Value]:
    """Those of the keys that stand in the file's metadata, before a longer list of strings.

    Never fails: a file that cannot be read or understood has no keys; loading it says why.
    """
    found: dict[str, Value] = {}
    try:
        with path.open("rb") as file:
            magic, version, _, n_keys = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version not in (2, 3):
                return found
            for _ in range(n_keys):
                name = _text(file)
                kind = int(_number(file, 4))
                value = _value(file, kind, most_strings)
                if name in keys:
                    found[name] = Value(kind, value)
    except (OSError, ValueError, OverflowError, struct.error):
        pass
    return found


def _number(file: BinaryIO, kind: int) -> float:
    if kind not in NUMBERS:
        raise ValueError(f"no GGUF type: {kind}")
    form = NUMBERS[kind]
    (value,) = form.unpack(file.read(form.size))
    return value  # type: ignore[no-any-return]


def _text(file: BinaryIO) -> str:
    """One string; "" for one that is longer than anything that is looked for."""
    size = int(_number(file, 10))
    if size > _LONGEST_TEXT:
        file.seek(size, 1)
        return ""
    data = file.read(size)
    if len(data) < size:
        raise ValueError("the file ends here")
    return data.decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int, most_strings: int) -> object:
    """One value; arrays are skipped and None."""
    if kind == STRING:
        return _text(file)
    if kind != ARRAY:
        return _number(file, kind)
    inner, count = int(_number(file, 4)), int(_number(file, 10))
    if inner in NUMBERS:
        file.seek(count * NUMBERS[inner].size, 1)
    elif inner == STRING and count <= most_strings:
        for _ in range(count):
            _text(file)
    else:
        raise ValueError("a vocabulary begins here")
    return None
