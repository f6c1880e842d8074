"""Bytes of tokens -> text: characters that span tokens, and stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns token bytes into text as they come.

    Incomplete characters are held back until their last byte, and text that may become a stop
    string until it is clear. The first stop string to be complete ends the text (the longest of
    those that end there), however the bytes were cut; it and what follows never become text.

    Args:
        stop: strings that end the text.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def feed(self, piece: bytes, *, final: bool = False) -> str:
        """The text that is certain after these bytes; `final` releases what was held back."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(piece, final)
        found = [(p + len(stop), p) for stop in self._stop if (p := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._held[: min(found)[1]]
        keep = 0 if final else self._undecided()
        text = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return text

    def _undecided(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:size]):
                    longest = size
                    break
        return longest
