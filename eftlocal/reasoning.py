"""The <think> block with which a reasoning model begins its reply, found while the text comes.

Qwen3, DeepSeek-R1 and others write what they think between <think> and </think>, then the answer;
some chat templates print the opening marker themselves, at the end of the prompt.
"""

from __future__ import annotations

from typing import Literal

OPEN = "<think>"
CLOSE = "</think>"


class ThinkStream:
    """Tells thinking and answer apart in a text that comes in pieces of any size.

    A block is recognised at the start of the text only, after white space at most; a marker that
    stands later is ordinary text. The markers are dropped, and so are the white space around the
    thinking and the line ends before the answer. A text without a block stays as it is. What may
    still turn out to be a part of a marker is held back until it is known.

    Args:
        opened: the prompt has opened the block, so the text begins inside it. The text may repeat
            the marker.
    """

    def __init__(self, opened: bool = False) -> None:
        self._opened = opened
        self._state: Literal["start", "thinking", "closed", "answer"] = "start"
        self._held = ""
        self._has_thought = False

    @property
    def is_thinking(self) -> bool:
        """Whether what was fed so far ends inside a block."""
        return self._state == "thinking" or (self._state == "start" and self._opened)

    def feed(self, text: str) -> tuple[str, str]:
        """Take the next piece.

        Returns:
            What is certain to follow in the thinking, and then in the answer; mostly one is "".
        """
        self._held += text
        thinking = ""
        if self._state == "start":
            self._start()
        if self._state == "thinking":
            thinking = self._think()
        if self._state == "closed":
            self._held = self._held.lstrip("\r\n")
            self._state = "answer" if self._held else "closed"
        if self._state != "answer":
            return thinking, ""
        answer, self._held = self._held, ""
        return thinking, answer

    def finish(self) -> tuple[str, str]:
        """End the text: what was held back was no marker. Returns as `feed` does."""
        held, self._held = self._held, ""
        return ("", held) if not self.is_thinking else (self._stripped(held), "")

    def _start(self) -> None:
        """Decide what the text begins with, once there is enough of it."""
        text = self._held.lstrip()
        if text.startswith(OPEN):
            self._held = text[len(OPEN) :]
            self._state = "thinking"
        elif not OPEN.startswith(text):
            self._state = "thinking" if self._opened else "answer"

    def _think(self) -> str:
        """Take what is certain to be thinking out of what is held."""
        before, marker, after = self._held.partition(CLOSE)
        if marker:
            self._held = after
            self._state = "closed"
            return self._stripped(before)
        body = before.removesuffix(_partial(before)).rstrip()
        self._held = before[len(body) :]
        # Without a body nothing but white space was seen, which may still be the block's first.
        return self._stripped(body)

    def _stripped(self, text: str) -> str:
        """A part of the thinking without white space at the block's borders."""
        text = text.rstrip() if self._has_thought else text.strip()
        self._has_thought = self._has_thought or bool(text)
        return text


def _partial(text: str) -> str:
    """The longest end of a text that may be the beginning of CLOSE."""
    lengths = range(min(len(CLOSE) - 1, len(text)), 0, -1)
    return next((CLOSE[:n] for n in lengths if text.endswith(CLOSE[:n])), "")


def split(text: str, opened: bool = False) -> tuple[str, str]:
    """Split a reply into thinking ("" is none) and answer; see `ThinkStream`.

    A block that is not closed reaches to the end, and the answer is "" then. The answer is the
    text itself only where there is no block.

    Args:
        text: a whole reply.
        opened: the prompt has opened the block.
    """
    stream = ThinkStream(opened)
    first, last = stream.feed(text), stream.finish()
    return first[0] + last[0], first[1] + last[1]


def opens_block(prompt: str) -> bool:
    """Whether a rendered prompt ends with an opened block, so that the reply begins inside it."""
    return prompt.rstrip().endswith(OPEN)
