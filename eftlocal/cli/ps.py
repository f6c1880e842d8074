"""`eftlocal ps`: the models that a running server has loaded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from ..errors import EftlocalError
from .models_facts import size_text
from .options import SectionCommand, option
from .output import json_text, plain_text
from .remote import Server, server_options

_EPILOG = """\b
Examples:
  eftlocal ps
  eftlocal ps --url http://192.168.0.5:8080
  eftlocal ps --url unix:/run/user/1000/eftlocal.sock --json
"""
_FAR_AHEAD = 100 * 365.0
"""Days; a server that keeps a model for ever says a time far ahead."""
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


@click.command(cls=SectionCommand, epilog=_EPILOG, short_help="List the models that are loaded.")
@option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object instead.")
@server_options
def ps(as_json: bool, server: Server) -> None:
    """List the models that a running server has loaded, what they take, and until when."""
    rows = loaded(server)
    if as_json:
        click.echo(json_text({"models": rows}))
        return
    now = datetime.now(UTC)
    table: list[tuple[str, ...]] = [("NAME", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")]
    table += [_cells(row, now) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def loaded(server: Server) -> list[dict[str, Any]]:
    """The loaded models: name, size and gpu_size in bytes, processor, context, until.

    `until` is RFC 3339; None is for ever.

    Raises:
        EftlocalError: where the server cannot be asked, or answers with something else.
    """
    models = server.ask("GET", "/api/ps").get("models")
    try:
        return [_row(model) for model in models or ()]
    except (KeyError, TypeError, ValueError):
        raise EftlocalError(f"what answers at {server.url} is no such server") from None


def _row(model: dict[str, Any]) -> dict[str, Any]:
    size, gpu = int(model["size"]), int(model["size_vram"])
    until = datetime.fromisoformat(model["expires_at"])
    is_kept = (until - datetime.now(UTC)).days > _FAR_AHEAD
    return {
        "name": plain_text(str(model["name"])),
        "size": size,
        "gpu_size": gpu,
        "processor": processor_text(size, gpu),
        "context": int(model["context_length"]),
        "until": None if is_kept else until.isoformat(),
    }


def processor_text(size: int, gpu: int) -> str:
    """Where a model lies, as Ollama says it: 100% CPU, 100% GPU, 28%/72% CPU/GPU."""
    share = round(100 * gpu / size) if size else 0
    if gpu <= 0:
        return "100% CPU"
    return "100% GPU" if gpu >= size else f"{100 - share}%/{share}% CPU/GPU"


def _cells(row: dict[str, Any], now: datetime) -> tuple[str, ...]:
    until = row["until"]
    left = "forever" if until is None else time_left(datetime.fromisoformat(until), now)
    return row["name"], size_text(row["size"]), row["processor"], str(row["context"]), left


def time_left(until: datetime, now: datetime) -> str:
    """How long that is: 4 minutes from now."""
    seconds = round((until - now).total_seconds())
    if seconds < 1:
        return "now"
    name, length = next((name, length) for name, length in _UNITS if seconds >= length)
    count = round(seconds / length)
    return f"{count} {name}{'s' if count > 1 else ''} from now"
