"""`eftlocal bench`: what this machine makes of a model entry, files, or a shape."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..bench import SECTIONS
from ..bench.shapes import SHAPES, find_shape, write_trio
from ..errors import UsageError
from .options import Arguments, SectionCommand, model_options, option
from .output import json_text
from .pages import check_page, write_page

if TYPE_CHECKING:
    from ..bench.report import Report
    from ..bench.run import Target

_NAMES = "\n".join(f"  {name:<10} {text}" for name, text in SECTIONS.items())
_SHAPES = "\n".join(f"  {name}" for name in SHAPES)
_EPILOG = f"""\b
Sections:
{_NAMES}

\b
Shapes, written with random weights into a temporary folder (pip install gguf):
{_SHAPES}
  large=WIDTHxLAYERS,small=WIDTHxLAYERS,vocab=N

\b
Examples:
  eftlocal bench
  eftlocal bench --quick --only floors,decoding
  eftlocal bench --shape llama3.1-8b+1b --html bench.html
  eftlocal bench --shape large=1536x24,small=512x8,vocab=32000 --json
  eftlocal bench peers --shape small
  eftlocal bench --bars

Kinds of one section are measured in turns, and medians are printed. The floor of plain decoding is
what the same one-token decodes take without any Python between them. Nothing else should run
meanwhile.

`eftlocal bench peers` compares with what one would run otherwise, greedily, on the CPU, and in
processes of their own: the proxy-tuning loop with transformers, three objects of llama-cpp-python
combined by hand, and the base alone (pip install 'eftlocal[bench]').

`eftlocal bench --bars` measures how fast eftlocal is to be, and how much memory it may take, on
atlas and on shapes of its own; it takes a while.
"""


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What the options of `bench` alone say."""

    what: str | None
    shape: str | None
    only: str | None
    bars: bool
    quick: bool
    as_json: bool
    html: str | None

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections to run.

        Raises:
            UsageError: for one that does not exist.
        """
        if self.only is None:
            return tuple(SECTIONS)
        names = tuple(name.strip() for name in self.only.split(","))
        for name in names:
            if name not in SECTIONS:
                raise UsageError(f"there is no section {name!r}; use {', '.join(SECTIONS)}")
        return names


@click.command(cls=SectionCommand, epilog=_EPILOG)
@click.argument("what", type=click.Choice(["peers"]), required=False)
@option(
    "--shape",
    metavar="SHAPE",
    envvar=None,
    help="Measure a trio of this shape with random weights instead of a model.",
)
@option("--only", metavar="SECTION,...", envvar=None, help="Measure only these sections.")
@option("--bars", is_flag=True, envvar=None, help="Measure what eftlocal promises, line by line.")
@option("--quick", is_flag=True, envvar=None, help="Measure less: rougher numbers, sooner.")
@option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object instead.")
@option("--html", metavar="FILE", envvar=None, help="Write a page with tables and plots, too.")
@model_options
def bench(arguments: Arguments, **given: Any) -> None:
    """Measure speed and memory on this machine, against what llama.cpp takes by itself."""
    wishes = _Wishes(**given)
    sections = wishes.sections
    if wishes.html is not None:
        check_page(Path(wishes.html))
    if wishes.shape is not None and arguments.names_model:
        raise UsageError("give --shape, or a model, not both")
    if wishes.bars:
        _check_bars(wishes, arguments)
    if wishes.what == "peers":
        from ..bench.peers.run import check_packages

        check_packages()
        if wishes.only is not None:
            raise UsageError("peers has no sections: leave out --only")
    if wishes.bars:
        report = _bars(wishes, arguments)
    else:
        with _target(wishes, arguments) as target:
            report = _measured(wishes, sections, target)
    if wishes.html is not None:
        from ..bench.page import page

        write_page(Path(wishes.html), page(report))
    click.echo(json_text(report.to_json()) if wishes.as_json else _text(report))


def _check_bars(wishes: _Wishes, arguments: Arguments) -> None:
    """Refuse what --bars would have to ignore."""
    others = (wishes.what, wishes.shape, wishes.only, arguments.entry, arguments.models)
    if any(other is not None for other in others) or arguments.files or arguments.generation:
        raise UsageError(
            "--bars has models, sections and settings of its own: "
            "give it none of them, only --quick, --json, --html and how models are loaded"
        )


def _bars(wishes: _Wishes, arguments: Arguments) -> Report:
    from ..bench.bars import bars
    from ..bench.timing import FULL, QUICK

    return bars(arguments.runtime, QUICK if wishes.quick else FULL, _announce)


def _measured(wishes: _Wishes, sections: Sequence[str], target: Target) -> Report:
    from ..bench.timing import FULL, QUICK

    effort = QUICK if wishes.quick else FULL
    if wishes.what == "peers":
        from ..bench.peers.run import compare, report

        return report(compare(target, effort, wishes.shape, _announce))
    from ..bench.run import run

    return run(target, sections, effort, _announce)


@contextmanager
def _target(wishes: _Wishes, arguments: Arguments) -> Iterator[Target]:
    """What is to be measured; files of a shape exist for the length of the block."""
    if wishes.shape is None:
        arguments.check()
        models: dict[str, Any] = dict(arguments.files)
        if not models:
            models = {"entry": arguments.entry}
            if arguments.models is not None:
                models["models"] = str(arguments.models)
        yield _made(arguments.label, models, arguments, random=False)
        return
    shape = find_shape(wishes.shape)
    with tempfile.TemporaryDirectory(prefix="eftlocal-bench-") as folder:
        _announce("writing random weights")
        files = {role: str(path) for role, path in write_trio(Path(folder), shape).items()}
        yield _made(wishes.shape, files, arguments, random=True)


def _made(name: str, models: dict[str, Any], arguments: Arguments, random: bool) -> Target:
    from ..bench.run import Target

    return Target(name, {**models, **arguments.runtime}, arguments.generation, random)


def _announce(what: str) -> None:
    """Say at a terminal what is going on."""
    if sys.stderr.isatty():
        click.echo(f"eftlocal: {what} ...", err=True)


def _text(report: Report) -> str:
    """The report as it is read in a terminal."""
    width = max(map(len, report.facts))
    parts = ["\n".join(f"{name:<{width}}  {value}" for name, value in report.facts.items())]
    parts += [table.to_text() for tables in report.tables.values() for table in tables]
    return "\n\n".join(parts)
