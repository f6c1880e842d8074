"""Results by content: one file of JSON lines per piece of work, which only ever grows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import EftlocalError

Record = Mapping[str, Any]
"""A result as JSON's types; floats come back as they were."""

_HASH_CHARACTERS = 32


def digest(content: object) -> str:
    """A name for content of JSON's types: equal content has equal names."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]


def file_digest(path: Path) -> str:
    """A name for what a file holds; a file that has changed is read again.

    Raises:
        EftlocalError: where it cannot be read.
    """
    try:
        status = path.stat()
        return _file_digest(str(path), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise EftlocalError(f"cannot read {path}: {error.strerror or error}") from None


@lru_cache(maxsize=256)
def _file_digest(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_HASH_CHARACTERS]


def default_folder() -> Path:
    """Where results are kept: `eftlocal/eval` in $XDG_CACHE_HOME (~/.cache).

    Raises:
        EftlocalError: if nobody knows where the user's home is.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(cache):
        return Path(cache) / "eftlocal" / "eval"
    try:
        return Path.home() / ".cache" / "eftlocal" / "eval"
    except RuntimeError as error:
        raise EftlocalError(f"no folder for results: {error}; set XDG_CACHE_HOME") from None


class Shelf:
    """The results of one piece of work: item -> record.

    Made by `Store.shelf`. Every record is on the disk when `put` returns, and a line that was cut
    off, as by a kill, is as if it had never been written.

    Args:
        path: of the file.
        start: what stands before this byte does not count.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self._path = path
        self._records: dict[str, Record] = {}
        self._file: int | None = None
        if path.is_file():
            for line in path.read_bytes()[start:].split(b"\n"):
                self._read(line)

    def _read(self, line: bytes) -> None:
        try:
            key, record = json.loads(line)
        except (ValueError, TypeError):
            return
        # What was computed anew counts.
        if isinstance(key, str) and isinstance(record, dict):
            self._records[key] = record

    def get(self, item: str) -> Record | None:
        """The record of an item, None where there is none yet."""
        return self._records.get(item)

    def put(self, item: str, record: Record) -> None:
        """Keep the record of an item that has none.

        Raises:
            EftlocalError: where it cannot be written.
        """
        if item in self._records:
            return
        # Begun with a line end, because the line before may have been cut off. What is kept is
        # what would be read: tuples become lists.
        line = json.dumps([item, record], ensure_ascii=False, separators=(",", ":"))
        try:
            if self._file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
                self._file = os.open(self._path, flags, 0o644)
            data = f"\n{line}\n".encode()
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise EftlocalError(f"cannot write {self._path}: {error.strerror or error}") from None
        self._records[item] = json.loads(line)[1]

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Store:
    """A folder of shelves.

    Args:
        folder: made when something is kept.
        fresh: pass over what was there when a shelf was opened first, so that it is computed anew;
            later stores find the new records.
    """

    def __init__(self, folder: Path, fresh: bool = False) -> None:
        self.folder = folder
        self._is_fresh = fresh
        self._starts: dict[Path, int] = {}

    @contextmanager
    def shelf(self, content: Record) -> Iterator[Shelf]:
        """The results that depend on this content, open for the length of the block.

        Raises:
            EftlocalError: where the folder cannot be used.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{digest(content)}.jsonl"
            if path not in self._starts:
                is_passed = self._is_fresh and path.is_file()
                self._starts[path] = path.stat().st_size if is_passed else 0
            shelf = Shelf(path, self._starts[path])
        except OSError as error:
            raise EftlocalError(f"cannot use {self.folder}: {error.strerror or error}") from None
        try:
            yield shelf
        finally:
            shelf.close()
