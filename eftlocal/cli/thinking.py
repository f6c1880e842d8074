"""`--think`: what is printed of the <think> block that a reasoning model's reply begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

import click

from ..reasoning import CLOSE, OPEN, ThinkStream
from ..registry import THINK
from .options import Decorator, option
from .output import Progress, ReplyWriter

if TYPE_CHECKING:
    from .. import Completion, FusedModel

_DELAY = 0.5


def think_option() -> Decorator:
    """Declare `--think`."""
    text = (
        "A <think> block at the start of a reply: show it with its markers, dim it, or hide it "
        "(Ollama's --hidethinking); this does not tell the model to think or not. Without a "
        "terminal it is left out unless show is given; --json has it as thinking. Later prompts "
        "never have it.  [default: as the entry says, or dim]"
    )
    return option("--think", type=click.Choice(THINK), help=text)


def think_style(wish: str | None, model: FusedModel, out: TextIO) -> str:
    """Return "show", "dim" or "hide".

    Args:
        wish: what the user asked for, if anything.
        model: knows what its entry says, which is about terminals only.
        out: where the reply goes.
    """
    if out.isatty():
        return wish or model.think
    return "show" if wish == "show" else "hide"


class ThinkingWriter(ReplyWriter):
    """Prints a reply whose <think> block is shown, dimmed or hidden.

    Where it is hidden, a line on stderr counts its tokens. Where colours are off, a block that
    should be dimmed is shown between its markers.

    Args:
        out: where to.
        style: of `think_style`.
        color: whether `out` gets colours.
    """

    def __init__(self, out: TextIO, style: str, color: bool) -> None:
        super().__init__(out, reply=True)
        self._hides = style == "hide"
        self._dims = style == "dim" and color
        self._stream = ThinkStream()
        self._counter = Progress("thinking", _DELAY, "tokens")
        self._tokens = 0
        self._shows_block = False

    def begin(self, thinking_opened: bool) -> None:
        """See `ReplyWriter.begin`."""
        self._stream = ThinkStream(thinking_opened)

    def write(self, text: str) -> None:
        """Print what one piece makes certain."""
        self._show(*self._stream.feed(text))
        if self._hides and self._stream.is_thinking:
            self._tokens += 1
            self._counter.update(self._tokens, 0)

    def finish(self) -> None:
        """Print what was held back, and end the last line."""
        self._show(*self._stream.finish())
        self._counter.clear()
        super().finish()

    def _show(self, thinking: str, answer: str) -> None:
        if thinking and not self._hides:
            if not self._shows_block and not self._dims:
                self._print(f"{OPEN}\n")
            self._shows_block = True
            self._print(thinking, self._dims)
        if answer:
            self._counter.clear()
            if self._shows_block:
                self._shows_block = False
                self._print("\n\n" if self._dims else f"\n{CLOSE}\n\n")
            self._print(answer)


def unfinished_note(completion: Completion) -> str:
    """Return what to say of a reply that thought and did not answer; "" for any other."""
    if completion.finish_reason == "cancelled" or not completion.thinking or completion.answer:
        return ""
    cut = completion.finish_reason == "length" and not completion.context_full
    return f"the reply is a {OPEN} block alone{'; max_tokens cut it' if cut else ''}"
