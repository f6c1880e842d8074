"""What the commands of `eftlocal eval` have in common: where results are kept, and progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .delivery import check_fused
from .downloads import offer
from .interrupts import Interrupts
from .options import listed, option
from .pages import check_page

if TYPE_CHECKING:
    from ..evaluate.store import Store
    from ..evaluate.systems import Models
    from ..evaluate.work import Progress
    from .options import Arguments


CACHE = (
    option(
        "--cache",
        metavar="FOLDER",
        envvar="EFTLOCAL_EVAL_CACHE",
        help="Keep results here.  [default: ~/.cache/eftlocal/eval]",
    ),
    option(
        "--fresh",
        is_flag=True,
        envvar=None,
        help="Compute everything anew, also what is kept there already.",
    ),
)
PARALLEL = option(
    "--parallel",
    type=click.IntRange(1),
    default=1,
    envvar=None,
    metavar="N",
    help="Replies at once; each needs a cache of its own.  [default: 1]",
)


def open_store(cache: str | None, fresh: bool) -> Store:
    """The store that the options name."""
    from ..evaluate.store import Store, default_folder

    return Store(Path(cache).expanduser() if cache else default_folder(), fresh)


def chosen_models(arguments: Arguments, parallel: int = 1) -> Models:
    """The models that the shared options name; missing files are offered for download.

    Args:
        arguments: the shared options.
        parallel: replies at once. Each has a cache of its own, so that rounding depends little on
            what runs beside it.

    Raises:
        UsageError: where one part is to speak alone: studies choose who does.
    """
    from ..evaluate.systems import Models

    check_fused(arguments, "eval")
    offer(arguments)
    runtime = {"parallel": parallel, "kv_unified": "off", **arguments.runtime}
    entry = None if arguments.files else arguments.entry
    return Models(entry, arguments.files, arguments.models, runtime)


def model_words(arguments: Arguments) -> list[str]:
    """The options that name the models, as words of a command line; none where none was given."""
    files = [(role, file) for role, given in arguments.files.items() for file in listed(given)]
    if files:
        return [word for role, file in files for word in (f"--{role}", file)]
    return ["-m", arguments.entry] if arguments.entry else []


def check_html(html: str | None) -> None:
    """Find out before models are loaded whether a page can be made.

    Raises:
        UsageError: where there is no place for it, or a package is missing.
    """
    if html is not None:
        from ..evaluate.page import check_packages

        check_page(Path(html))
        check_packages()


@contextmanager
def watched(at_once: bool = False, fresh: bool = False) -> Iterator[Progress]:
    """Show items under one progress line with the time left.

    Args:
        at_once: whether Ctrl-C stops in the middle of an item, not between two.
        fresh: whether --fresh was given.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    from tqdm import tqdm

    interrupts = Interrupts()
    with ExitStack() as stack:
        if not at_once:
            stack.enter_context(interrupts)
            stack.enter_context(interrupts.during())
        bar = tqdm(unit="item", disable=None, leave=False, dynamic_ncols=True)
        stack.enter_context(bar)

        def progress(done: int, total: int, title: str) -> None:
            interrupts.check()
            if bar.total is None:
                # What was there before says nothing about how fast it goes.
                bar.initial = bar.n = done
            bar.total = total
            bar.set_description(title, refresh=False)
            bar.update(done - bar.n)

        try:
            yield progress
        except KeyboardInterrupt:
            bar.clear()
            again = "the same command without --fresh" if fresh else "the same command"
            click.echo(f"eftlocal: stopped; {again} goes on from here", err=True)
            raise
