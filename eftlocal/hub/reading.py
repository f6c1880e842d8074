"""Reads a part of a file on the hub without downloading the rest."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from ..errors import NotDownloaded
from ..registry import Source
from . import cache
from .client import read_range
from .downloading import find_file, remote
from .failures import CutShort, pause_before_retry, raise_explained
from .listing import RemoteFile

_BLOCK = 1 << 20
_TRIES = 3


def open_remote(source: Source) -> BinaryIO:
    """Open a model file for reading, by HTTP ranges where it is on the hub and not downloaded.

    Of a model in shards it is the first one. Reads come in blocks of a mebibyte.

    Raises:
        HubError: where it cannot be had; reading may raise it too.
        OSError: for a path that cannot be opened.
    """
    if source.path is not None:
        return open(source.path, "rb")
    if cache.is_downloaded(source):
        source = find_file(source)
        try:
            return open(cache.resolve(source.hf or "", source.file or "", source.revision), "rb")
        except NotDownloaded:  # removed at this moment
            pass
    return io.BufferedReader(_RemoteReader(remote(source).files[0]), _BLOCK)


class _RemoteReader(io.RawIOBase):
    """A file on the hub as a raw stream."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative position {start + offset}")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        end = min(self._at + len(buffer), self._file.size)
        if end <= self._at:
            return 0
        data = self._read_partial(self._at, end) or self._read(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _read_partial(self, start: int, end: int) -> bytes:
        """The bytes from what was fetched already; b"" where they are not there."""
        try:
            with open(cache.place_of(self._file).partial, "rb") as file:
                if os.fstat(file.fileno()).st_size < end:
                    return b""
                file.seek(start)
                return file.read(end - start)
        except OSError:
            return b""

    def _read(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, whatever number of attempts it takes, up to three."""
        data = bytearray()
        with raise_explained(self._file.repository, self._file.name):
            for attempt in range(1, _TRIES + 1):
                try:
                    with read_range(self._file.url, start + len(data), end) as pieces:
                        for piece in pieces:
                            data += piece[: end - start - len(data)]
                            if len(data) == end - start:
                                return bytes(data)
                    raise CutShort("it was closed too early")
                except Exception as error:
                    if attempt == _TRIES or pause_before_retry(error) is None:
                        raise
        raise AssertionError("either returned or raised")
