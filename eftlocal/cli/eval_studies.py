"""`eftlocal eval all`, and the studies that are about the embedded family only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .eval_options import CACHE, check_html, open_store, watched
from .options import SectionCommand, option, with_options
from .output import json_text
from .pages import write_page

if TYPE_CHECKING:
    from ..evaluate.report import Report
    from ..evaluate.study import Study

STUDY_OPTIONS = (
    option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object instead."),
    option("--html", metavar="FILE", envvar=None, help="Write a page with tables and plots, too."),
    option(
        "--every",
        type=click.IntRange(1),
        default=1,
        envvar=None,
        metavar="N",
        help="Ask every N-th question only: rougher numbers, sooner.",
    ),
    *CACHE,
)
"""The options that `run_studies` takes, but for --seed."""

_SEED = option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    envvar=None,
    metavar="N",
    help="Seed of sampled texts and of bootstrap draws.  [default: 0]",
)


def run_studies(
    studies: Callable[[], list[Study]],
    *,
    as_json: bool,
    html: str | None,
    every: int,
    seed: int,
    cache: str | None,
    fresh: bool,
) -> None:
    """Run studies and print, or write, their report."""
    check_html(html)
    from ..evaluate.run import run
    from ..evaluate.study import Setting

    setting = Setting(open_store(cache, fresh), every, seed)
    with watched(fresh=fresh) as progress:
        report = run(studies(), setting, progress)
    if html is not None:
        from ..evaluate.page import page

        write_page(Path(html), page(report))
    click.echo(json_text(report.to_json()) if as_json else _text(report))


def _text(report: Report) -> str:
    """The report as it is read in a terminal."""
    facts = {**report.facts, **report.times}
    width = max(map(len, facts))
    lines = "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items())
    return "\n\n\n".join([lines, *(section.to_text() for section in report.sections)])


def _chosen(only: str | None) -> list[Study]:
    from ..evaluate.run import STUDIES, make_study

    names = list(STUDIES) if only is None else [name.strip() for name in only.split(",")]
    return [make_study(name) for name in names]


EXAMPLES = """\b
Examples:
  eftlocal eval {0}
  eftlocal eval {0} --html {0}.html
  eftlocal eval {0} --every 10
"""


@click.command(cls=SectionCommand, epilog=EXAMPLES.format("all"))
@option("--only", metavar="STUDY,...", envvar=None, help="Run only these studies.")
@with_options(_SEED, *STUDY_OPTIONS)
def all(only: str | None, **given: Any) -> None:
    """Run all studies of the embedded family, and report on every claim.

    A run that was stopped goes on where it was, and ends with the same report.
    """
    if only is not None:
        _chosen(only)
    run_studies(functools.partial(_chosen, only), **given)


def _study(name: str, text: str) -> click.Command:
    """The command of a study of the embedded family."""

    @click.command(name, cls=SectionCommand, epilog=EXAMPLES.format(name), help=text)
    @with_options(_SEED, *STUDY_OPTIONS)
    def command(**given: Any) -> None:
        run_studies(functools.partial(_chosen, name), **given)

    return command


scale = _study("scale", "Compare what the scale of pre-training and that of tuning give.")
frontier = _study("frontier", "Compare the frontiers of refusing and answering.")
alpha = _study("alpha", "Compare ways to choose alpha.")
