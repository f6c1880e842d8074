"""Reads the values of a GGUF header one after another, never beyond what a header can be."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from .types import NUMBERS

MOST_STRINGS = 1 << 20
"""Of all lists in one header; the largest vocabularies have 262,144 tokens and 514,000 merges."""
LONGEST_TEXT = 1 << 20
"""Bytes of a text that are kept; chat templates are the longest."""
MOST_NUMBERS = 4096
"""Numbers of a list that are kept without being asked for; lists with one per layer are shorter."""

_FIRST_READ, _LONGEST_READ = 1 << 18, 1 << 22
_BLOCK = 1 << 18
_REGULAR, _MOST_SINGLY = 64, 1 << 14
_LENGTH = struct.Struct("<Q")


class Damaged(Exception):
    """What is wrong with the file."""


class Reader:
    """Walks forwards through a file; holds what it has read and not yet walked over.

    Args:
        file: positioned at its beginning.
        size: bytes of the file.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size
        self._data = b""
        self._start = 0
        self._at = 0
        self._next_read = _FIRST_READ
        self._strings_left = MOST_STRINGS

    @property
    def position(self) -> int:
        """Bytes from the beginning of the file to the next value."""
        return self._start + self._at

    @property
    def left(self) -> int:
        """Bytes from the next value to the end of the file."""
        return self.size - self.position

    def _need(self, n_bytes: int, what: str) -> None:
        """Hold so many bytes of the file, for something that messages call `what`."""
        missing = n_bytes - (len(self._data) - self._at)
        if missing <= 0:
            return
        if n_bytes > self.left:
            raise Damaged(f"the file ends in {what}")
        # Longer and longer reads: most headers are short, and a request to a hub takes long.
        read = self._file.read(max(missing, self._next_read))
        self._next_read = min(2 * self._next_read, _LONGEST_READ)
        if len(read) < missing:
            raise Damaged(f"the file ends in {what}")
        self._start += self._at
        self._data = self._data[self._at :] + read
        self._at = 0

    def number(self, kind: int, what: str) -> Any:
        """One number of a GGUF type."""
        form = NUMBERS[kind]
        self._need(form.size, what)
        (value,) = form.unpack_from(self._data, self._at)
        self._at += form.size
        return value

    def text(self, what: str, longest: int) -> bytes:
        """One string; b"" for a longer one than `longest`, which is only walked over."""
        n_bytes = self.number(10, what)
        if n_bytes > longest:
            self._skip(n_bytes, what)
            return b""
        self._need(n_bytes, what)
        self._at += n_bytes
        return self._data[self._at - n_bytes : self._at]

    def numbers(self, kind: int, count: int, what: str, keep: bool) -> tuple[Any, ...] | None:
        """A list of numbers, or None where it is long and not to be kept."""
        form = NUMBERS[kind]
        if count > self.left // form.size:
            raise Damaged(f"the file ends in {what}")
        if count > MOST_NUMBERS and not keep:
            self._skip(count * form.size, what)
            return None
        if count > MOST_STRINGS:
            raise Damaged(f"{what} has {count} values, more than any model")
        self._need(count * form.size, what)
        values = struct.unpack_from(f"<{count}{form.format[-1]}", self._data, self._at)
        self._at += count * form.size
        return values

    def strings(self, count: int, what: str, keep: bool) -> list[bytes] | None:
        """A list of strings, or None where it is only walked over."""
        if count > self.left // _LENGTH.size:
            raise Damaged(f"the file ends in {what}")
        self._strings_left -= count
        if self._strings_left < 0:
            raise Damaged(f"{what} has {count} strings, more than any vocabulary")
        found: list[bytes] = []
        add = found.extend if keep else None
        singly = 1
        while count:
            n_seen = self._regular_strings(count, add)
            # What breaks the chain (a text of 256 bytes or more, an empty one) is walked singly,
            # more and more of them where such texts are many.
            singly = 1 if n_seen >= _REGULAR else min(2 * singly, _MOST_SINGLY)
            n_seen += self._single_strings(min(count - n_seen, singly), what, add)
            count -= n_seen
        return found if keep else None

    def _single_strings(
        self, count: int, what: str, add: Callable[[list[bytes]], None] | None
    ) -> int:
        """Walk over `count` strings, one by one; return `count`."""
        done = 0
        while done < count:
            data, at, end = self._data, self._at, len(self._data)
            while done < count and at + 8 <= end:
                following = at + 8 + _LENGTH.unpack_from(data, at)[0]
                if following > end:
                    break
                if add:
                    add([data[at + 8 : following]])
                at = following
                done += 1
            self._at = at
            if done < count:
                text = self.text(what, LONGEST_TEXT)
                done += 1
                if add:
                    add([text])
        return done

    def _regular_strings(self, count: int, add: Callable[[list[bytes]], None] | None) -> int:
        """Walk over at most `count` strings that are held and easily recognised; return how many.

        A length below 256 is a byte before seven zeros. Where such places stand exactly one
        string apart from each other, beginning with the next value, they are the lengths.
        """
        data = self._data[self._at : self._at + _BLOCK]
        if len(data) < 64:
            return 0
        is_zero = np.frombuffer(data, np.uint8) == 0
        two = is_zero[:-1] & is_zero[1:]
        four = two[:-2] & two[2:]
        seven = four[:-3] & four[3:]
        starts = np.flatnonzero(seven[1:])[: count + 1]
        if not starts.size or starts[0] != 0:
            return 0
        ends = starts + 8 + np.frombuffer(data, np.uint8)[starts]
        broken = np.flatnonzero(ends[:-1] != starts[1:])
        n_seen = int(broken[0]) if broken.size else starts.size - 1
        n_seen = min(n_seen, count)
        if n_seen and add:
            pairs = zip(starts[:n_seen].tolist(), ends[:n_seen].tolist(), strict=True)
            add([data[start + 8 : end] for start, end in pairs])
        self._at += int(starts[n_seen]) if n_seen else 0
        return n_seen

    def _skip(self, n_bytes: int, what: str) -> None:
        """Go on behind so many bytes, which need not be read."""
        if n_bytes > self.left:
            raise Damaged(f"the file ends in {what}")
        if n_bytes <= len(self._data) - self._at:
            self._at += n_bytes
            return
        self._start = self.position + n_bytes
        self._data, self._at = b"", 0
        self._file.seek(self._start)
