"""What is written while models work: replies, progress, timings, colours."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from .wrapping import WordWrap

if TYPE_CHECKING:
    from .. import Completion

_STYLES = {"dim": "2", "bold": "1", "red": "31", "cyan": "36"}
_ERASE_LINE = "\r\x1b[K"
_BAR_CELLS = 24
_REDRAW_SECONDS = 0.1

_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Characters with which a model could take over a terminal: `str.translate` drops them."""


def wants_color(choice: str, stream: TextIO) -> bool:
    """Return whether `stream` gets colours: `choice` is auto, on or off."""
    if choice != "auto":
        return choice == "on"
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def styled(text: str, style: str, color: bool) -> str:
    """Return `text` in one of the styles, or as it is where there are no colours."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if color and text else text


def terminal_width() -> int:
    """Return the columns of the terminal."""
    return shutil.get_terminal_size().columns


def plain_text(text: str) -> str:
    """Return `text` without control characters other than line ends and tabs."""
    return text.translate(_CONTROLS)


class ReplyWriter:
    """Prints a completion as it comes, and ends it with exactly one line end.

    Args:
        out: where to; at a terminal control characters are left out.
        reply: leave out the white space that it begins with, and wrap it at a terminal's words.
    """

    def __init__(self, out: TextIO, reply: bool) -> None:
        self._out = out
        self._trim = reply
        self._filter = out.isatty()
        wraps = reply and self._filter and os.environ.get("TERM") != "dumb"
        self._wrap = WordWrap(terminal_width) if wraps else None
        self._last = ""

    def begin(self, thinking_opened: bool) -> None:
        """Say, before the first piece, whether the prompt opened a <think> block."""

    def write(self, text: str) -> None:
        """Print one piece at once."""
        self._print(text)

    def _print(self, text: str, dim: bool = False) -> None:
        if self._filter:
            text = plain_text(text)
        if self._trim:
            text = text.lstrip()
        if text:
            self._trim = False
            self._last = text[-1]
            shown = self._wrap.feed(text) if self._wrap else text
            self._out.write(styled(shown, "dim", dim))
            self._out.flush()

    def finish(self) -> None:
        """End the last line, if anything was printed and its line is open."""
        if self._last not in ("", "\n"):
            self._out.write("\n")
            self._out.flush()
            self._last = "\n"


class Progress:
    """One line on stderr that shows up when something takes long, and goes away after it.

    Args:
        label: what is going on, such as "loading atlas".
        delay: seconds from the first update until the line appears.
        unit: what is counted, such as "tokens"; "" shows a percentage.
    """

    def __init__(self, label: str, delay: float, unit: str = "") -> None:
        self._label = label
        self._unit = unit
        self._delay = delay
        self._enabled = sys.stderr.isatty()
        self._next = 0.0
        self._shown = False

    def update(self, done: float, total: float) -> None:
        """Redraw the line, at most ten times a second; a total of 0 is not known."""
        now = time.monotonic()
        self._next = self._next or now + self._delay
        if not self._enabled or now < self._next:
            return
        self._next = now + _REDRAW_SECONDS
        self._shown = True
        share = min(1.0, done / total) if total else 1.0
        cells = "#" * round(share * _BAR_CELLS)
        amount = f"{done:,.0f} of {total:,.0f} {self._unit}" if self._unit else f"{share:.0%}"
        line = f"{self._label} [{cells:.<{_BAR_CELLS}}] {amount}"
        if not total:
            line = f"{self._label}: {done:,.0f} {self._unit}"
        # Only one line can be erased.
        sys.stderr.write(_ERASE_LINE + line[: terminal_width() - 1])
        sys.stderr.flush()

    def clear(self) -> None:
        """Erase the line."""
        if self._shown:
            sys.stderr.write(_ERASE_LINE)
            sys.stderr.flush()
            self._shown = False


def timing_lines(
    completion: Completion, load_seconds: float | None, can_draft: bool = True
) -> list[str]:
    """Return the lines of `--verbose` and `/stats` about one completion."""
    timings = completion.timings
    read = timings.prompt_tokens - timings.cached_tokens
    lines = [] if load_seconds is None else [f"load        {load_seconds:.2f} s"]
    lines += [
        f"prompt      {timings.prompt_tokens:,} tokens ({timings.cached_tokens:,} cached), "
        f"{timings.prompt_seconds:.2f} s, {_rate(read, timings.prompt_seconds)}",
        f"generation  {timings.generated_tokens:,} tokens, {timings.generation_seconds:.2f} s, "
        f"{_rate(timings.generated_tokens, timings.generation_seconds)}",
        f"first token {timings.first_token_seconds:.2f} s",
    ]
    if completion.alphas:
        means = [sum(column) / len(column) for column in zip(*completion.alphas, strict=True)]
        lines.append(f"mean alpha  {', '.join(f'{mean:.3f}' for mean in means)}")
    if not can_draft:
        lines.append("draft       never: a model of this entry cannot take tokens back")
        return lines
    share = f" ({timings.accepted / timings.drafted:.0%})" if timings.drafted else ""
    lines.append(
        f"draft       {timings.drafted:,} drafted, {timings.accepted:,} accepted{share}, "
        f"{timings.rounds:,} rounds"
    )
    return lines


def _rate(tokens: int, seconds: float) -> str:
    # The rate of a single token says nothing.
    return f"{tokens / seconds:,.1f} tokens/s" if seconds > 0 and tokens > 1 else "- tokens/s"


def completion_json(completion: Completion, load_seconds: float, reply: bool = False) -> str:
    """Return a completion as the line that `--json` prints.

    A reply that begins with a <think> block has that as `thinking`, and its answer as `text`.
    """
    timings = completion.timings
    content: dict[str, Any] = {"text": completion.text}
    if reply and completion.answer != completion.text:
        content = {"text": completion.answer, "thinking": completion.thinking}
    content |= {
        "prompt_tokens": list(completion.prompt_tokens),
        "tokens": list(completion.tokens),
        "logprobs": list(completion.logprobs),
        "alphas": [list(alpha) for alpha in completion.alphas],
        "drafted": timings.drafted,
        "accepted": timings.accepted,
        "finish_reason": completion.finish_reason,
        "timings": {"load_seconds": load_seconds, **asdict(timings)},
    }
    return json_text(content)


def json_text(content: dict[str, Any]) -> str:
    """Return an object as one line of JSON that standard output can print."""
    import json

    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(content, ensure_ascii=not utf8)


def context_full_note(completion: Completion, size: int, remedy: str) -> str:
    """Return what to say of a reply that the end of the context cut off."""
    used = len(completion.prompt_tokens) + len(completion.tokens)
    return f"the context is full ({used:,} of {size:,} tokens), so the text was cut; {remedy}"
