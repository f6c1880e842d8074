"""Downloads as the terminal shows them: the progress line, and the offer to fetch what lacks."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ..errors import NotDownloaded
from ..registry import DEFAULT_ENTRY, Source, load_registry
from .output import terminal_width

if TYPE_CHECKING:
    from ..hub import Plan, Progress
    from .options import Arguments

_ERASE_LINE = "\r\x1b[K"
_CELLS = 24
_REDRAW_SECONDS = 0.1
_RATE_SECONDS = 5.0


class ByteBar:
    """One line on stderr for something that goes through many bytes; gone after `clear`.

    Shown at terminals only, and not where HF_HUB_DISABLE_PROGRESS_BARS is set.

    Args:
        label: what is going on.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        off = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").upper()
        self._enabled = sys.stderr.isatty() and off not in ("1", "ON", "YES", "TRUE")
        self._next = 0.0
        self._shown = False
        self._seen: deque[tuple[float, int]] = deque()

    def draw(self, done: int, total: int, moved: int, note: str = "") -> None:
        """Redraw the line, at most ten times a second.

        The rate is that of the bytes `moved`, such as those from the network; a `note` of what is
        waited for takes its place.
        """
        now = time.monotonic()
        self._seen.append((now, moved))
        while now - self._seen[0][0] > _RATE_SECONDS:
            self._seen.popleft()
        if not self._enabled or now < self._next:
            return
        self._next = now + _REDRAW_SECONDS
        self._shown = True
        share = min(1.0, done / total) if total else 1.0
        bar = "#" * round(share * _CELLS)
        line = f"{self._label} [{bar:.<{_CELLS}}] {share:.0%} of {amount(total)}"
        line += f", {note}" if note else self._speed(total - done)
        sys.stderr.write(_ERASE_LINE + line[: terminal_width() - 1])
        sys.stderr.flush()

    def _speed(self, left: int) -> str:
        (first, before), (last, now) = self._seen[0], self._seen[-1]
        if last - first < 0.5 or now <= before:
            return ""
        rate = (now - before) / (last - first)
        seconds = round(left / rate)
        hours, minutes = divmod(seconds // 60, 60)
        time_left = f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else ""
        return f", {amount(round(rate))}/s, {time_left or f'{minutes}:{seconds % 60:02}'} left"

    def clear(self) -> None:
        """Erase the line."""
        if self._shown:
            sys.stderr.write(_ERASE_LINE)
            sys.stderr.flush()
            self._shown = False


def amount(size: int) -> str:
    """A number of bytes for people."""
    from ..hub import gigabytes

    return gigabytes(size)


@dataclass(frozen=True, slots=True)
class Fetching:
    """How files are fetched: attempts in a row that bring nothing, and whether to check copies."""

    retries: int = 5
    repair: bool = False


def fetch(name: str, sources: Sequence[Source], plan: Plan, manner: Fetching) -> int:
    """Download what a plan says under one progress line; returns the bytes that came.

    Args:
        name: what messages call it, and what `eftlocal pull` takes.
        sources: all models that have to fit together, those on this machine too.
        plan: what to download.
        manner: how.

    Raises:
        EftlocalError: where models do not fit together, or a file cannot be had.
        click.exceptions.Exit: after Ctrl-C; what was fetched stays, and a line on stderr says so.
    """
    from .. import hub
    from ..compatibility import check_vocabularies
    from .main import EXIT_INTERRUPTED

    plan.check_space()
    bar = ByteBar(name)
    fetched = 0

    def update(progress: Progress) -> None:
        nonlocal fetched
        fetched = progress.fetched
        bar.draw(progress.done, progress.total, fetched, progress.note)

    try:
        if plan.missing() and len(sources) > 1:
            bar.draw(0, plan.size, 0, "comparing vocabularies")
            check_vocabularies(sources)
        plan.fetch(update, hub.Patience(retries=manner.retries), manner.repair)
    except KeyboardInterrupt:
        bar.clear()
        text = f"stopped; what was fetched stays, and `eftlocal pull {name}` goes on from there"
        click.echo(f"eftlocal: {text}", err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    finally:
        bar.clear()
    return fetched


def offer(arguments: Arguments) -> None:
    """Download the files that a model lacks: at a terminal after asking, else only with --pull.

    Nothing is asked of the hub where everything is there.

    Raises:
        NotDownloaded: where files lack and nobody wants them now; says how to get them.
        EftlocalError: where they cannot be had.
    """
    from .. import hub

    name, sources = _named_sources(arguments)
    lacking = [source for source in sources if source.path is None]
    if all(hub.is_downloaded(source) for source in lacking):
        return
    command = f"eftlocal pull {name}" if name else f"eftlocal pull {_hub_name(lacking)}"
    label = name or arguments.label
    if not (arguments.pull or (sys.stdin.isatty() and sys.stderr.isatty())):
        raise NotDownloaded(f"{label} is not downloaded yet; get it with: {command} (or --pull)")
    plan = hub.prepare(lacking)
    plan.check_space()
    if not arguments.pull:
        size = amount(plan.missing())
        question = f"{label} is not downloaded yet. Fetch {size} from the Hugging Face hub now?"
        if not click.confirm(question, default=True, err=True):
            raise NotDownloaded(f"{label} is not downloaded; whenever you want it: {command}")
    fetch(label, sources, plan, Fetching())


def _named_sources(arguments: Arguments) -> tuple[str, list[Source]]:
    """The entry's name and its sources; for files "" and theirs."""
    if arguments.files:
        listed: list[str] = []
        for paths in arguments.files.values():
            listed += [paths] if isinstance(paths, str) else paths
        return "", [Source.parse(path) for path in listed]
    entry = load_registry(arguments.models).find(arguments.entry or DEFAULT_ENTRY)
    return entry.name, [source for _, source in entry.sources()]


def _hub_name(sources: Sequence[Source]) -> str:
    """The first source that lacks, as `eftlocal pull` takes it."""
    from .. import hub

    return f"hf:{next(source for source in sources if not hub.is_downloaded(source))}"
