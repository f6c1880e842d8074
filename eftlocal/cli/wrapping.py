"""Wraps a text at words while it is still being written."""

from __future__ import annotations

from collections.abc import Callable

from wcwidth import wcwidth


def cells(char: str) -> int:
    """Return how many columns of a terminal a character takes."""
    return max(0, wcwidth(char))


class WordWrap:
    """Turns pieces of text into what a terminal must be sent so that no word is cut at its edge.

    A word shows as it grows; when it reaches the edge it is erased and begins the next line.

    Args:
        width: returns the terminal's columns, which may change.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._column = 0
        self._word = ""
        self._word_cells = 0

    def feed(self, text: str) -> str:
        """Return what shows the next piece."""
        # The last column stays empty, because terminals differ in what comes after it.
        edge = max(self._width() - 1, 1)
        return "".join(self._next(char, edge) for char in text)

    def _next(self, char: str, edge: int) -> str:
        if char == "\n":
            self._start_line()
            return char
        if char in " \t":
            return self._blank(char, edge)
        size = cells(char)
        before = ""
        if self._column + size > edge:
            before = self._break(edge - size)
        self._word += char
        self._word_cells += size
        self._column += size
        return before + char

    def _blank(self, char: str, edge: int) -> str:
        """Return a blank, or the line end that takes its place at the edge."""
        size = 1 if char == " " else 8 - self._column % 8
        if self._column + size > edge:
            self._start_line()
            return "\n"
        self._word, self._word_cells = "", 0
        self._column += size
        return char

    def _break(self, room: int) -> str:
        """Return what moves the word to a new line; one that has no room there is cut."""
        word, size = self._word, self._word_cells
        fits = 0 < size < self._column and size <= room
        self._start_line()
        if not fits:
            return "\n"
        self._word, self._word_cells, self._column = word, size, size
        return f"\x1b[{size}D\x1b[K\n{word}"

    def _start_line(self) -> None:
        self._column, self._word, self._word_cells = 0, "", 0
