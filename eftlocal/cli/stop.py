"""`eftlocal stop`: has a running server unload models."""

from __future__ import annotations

import time

import click

from .options import SectionCommand
from .ps import loaded
from .remote import Server, server_options
from .types import EntryName

_EPILOG = """\b
Examples:
  eftlocal stop
  eftlocal stop qwen2.5-14b

The server goes on; the next request for a model loads it again.
"""
_UNLOADING_SECONDS = 60.0
_IDLE_SECONDS = 1.0
_STEP = 0.05


@click.command(cls=SectionCommand, epilog=_EPILOG, short_help="Unload models of a server.")
@click.argument("name", type=EntryName(), required=False)
@server_options
def stop(name: str | None, server: Server) -> None:
    """Unload a model of a running server; without NAME all that are loaded.

    Requests under way are finished first.
    """
    names = [name] if name else [row["name"] for row in loaded(server)]
    if not names:
        click.echo("no model is loaded")
    for one in names:
        body = {"model": one, "keep_alive": 0}
        answer = server.ask("POST", "/api/generate", body, _UNLOADING_SECONDS)
        entry = str(answer.get("model", one))
        done = _is_unloaded(server, entry)
        click.echo(f"{entry} is unloaded{'' if done else ' when its requests are done'}")


def _is_unloaded(server: Server, name: str) -> bool:
    """Whether a model is gone, at once or after a moment."""
    deadline = time.monotonic() + _IDLE_SECONDS
    while any(row["name"] == name for row in loaded(server)):
        if time.monotonic() > deadline:
            return False
        time.sleep(_STEP)
    return True
