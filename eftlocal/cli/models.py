"""`eftlocal models`: lists the model entries, and changes the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import RegistryError
from ..registry import load_registry, shipped_entries
from .models_add import add
from .models_facts import Facts, gather, size_text
from .models_file import chosen_file, models_file
from .models_show import show
from .options import option
from .output import json_text
from .types import EntryName

if TYPE_CHECKING:
    from ..gguf import Header

_EPILOG = """\b
Examples:
  eftlocal models
  eftlocal models show qwen2.5-7b
  eftlocal models add mine --base L.gguf --tuned S-chat.gguf --reference S.gguf
  eftlocal models remove mine
  $EDITOR "$(eftlocal models path)"

SIZE is that of the files, > where some are not known. FITS says whether the models fit into the
memory that is free now, without a GPU; `eftlocal models show NAME` counts GPUs, too.
"""


@click.group(invoke_without_command=True, epilog=_EPILOG)
@option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object instead.")
@models_file
@click.pass_context
def models(context: click.Context, as_json: bool, models: str | None) -> None:
    """List the model entries: those of your own file, then those that are shipped."""
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json goes after the name of the command", context)
        return
    from ..memory import ram

    registry = load_registry(Path(models) if models else None)
    memory = ram()
    devices = [memory] if memory else []
    read: dict[Path, Header] = {}
    listed = [gather(entry, read) for entry in registry.entries.values()]
    fits = [facts.fits(devices) for facts in listed]
    if as_json:
        rows = [
            _as_json(facts, fit, facts.entry.name in registry.own)
            for facts, fit in zip(listed, fits, strict=True)
        ]
        click.echo(json_text({"models": rows}))
        return
    table = [("NAME", "SIZE", "FITS", "DOWNLOADED", "SUITS")]
    table += [_row(facts, fit) for facts, fit in zip(listed, fits, strict=True)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _row(facts: Facts, fits: bool | None) -> tuple[str, str, str, str, str]:
    size = ("" if facts.size_is_complete else "> ") + size_text(facts.size)
    if facts.n_present == len(facts.present):
        there = "yes"
    else:
        there = f"{facts.n_present} of {len(facts.present)}" if facts.n_present else "no"
    fit = {True: "yes", False: "no", None: "?"}[fits]
    entry = facts.entry
    return entry.name, size if facts.size else "?", fit, there, entry.hardware or "?"


def _as_json(facts: Facts, fits: bool | None, own: bool) -> dict[str, Any]:
    entry = facts.entry
    return {
        "name": entry.name,
        "aliases": list(entry.aliases),
        "description": entry.description,
        "own": own,
        "size": facts.size,
        "size_is_complete": facts.size_is_complete,
        "memory": facts.memory,
        "fits": fits,
        "files": len(facts.present),
        "downloaded": facts.n_present,
        "hardware": entry.hardware,
        "licence": entry.licence,
    }


@click.command(short_help="Remove an entry from your own file.")
@click.argument("name", type=EntryName())
@models_file
@click.pass_context
def remove(context: click.Context, name: str, models: str | None) -> None:
    """Remove an entry from your own file; comments around it stay, and so do model files."""
    from ..registry.editing import has_entry, remove_entry

    file = chosen_file(context, models)
    if not has_entry(file, name) and name in shipped_entries():
        raise RegistryError(
            f"{name} comes with eftlocal and cannot be removed; an entry of that name in {file} "
            "would replace it"
        )
    remove_entry(file, name)
    click.echo(f"removed {name} from {file}")


@click.command(short_help="Print where your own entries stand.")
@models_file
@click.pass_context
def path(context: click.Context, models: str | None) -> None:
    """Print where your own entries stand, or would stand."""
    click.echo(str(chosen_file(context, models)))


for _command in (show, add, remove, path):
    models.add_command(_command)
