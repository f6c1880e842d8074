"""`eftlocal verify`: compare model files with what the hub and the cache say of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import HubError
from ..registry import load_registry
from .downloads import ByteBar, amount
from .options import SectionCommand, option
from .output import json_text
from .pull import find_sources
from .types import EntryName

if TYPE_CHECKING:
    from ..hub import Finding

_EPILOG = """\b
Examples:
  eftlocal verify qwen2.5-7b
  eftlocal verify --offline
  eftlocal verify --json
  eftlocal verify hf:Qwen/Qwen3-0.6B-GGUF:Q8_0

Exit code 0: nothing is wrong, even if something is not downloaded yet. 1: a file is wrong, or does
not exist under its name.
"""


@click.command(cls=SectionCommand, epilog=_EPILOG)
@click.argument("name", required=False, type=EntryName())
@option("--models", type=click.Path(), metavar="FILE", help="Read entries from this file too.")
@option(
    "--offline",
    is_flag=True,
    envvar=None,
    help="Check only the files that are here, and ask nothing of the hub.",
)
@option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object.")
def verify(name: str | None, models: str | None, offline: bool, as_json: bool) -> int:
    """Ask the hub whether the files of the entry NAME, or of all, exist, and hash the copies here.

    Names, sizes and sha256 are compared.
    """
    from .. import hub

    if name is None:
        entries = load_registry(Path(models) if models else None).entries.values()
        sources = [source for entry in entries for _, source in entry.sources()]
    else:
        sources = [source for _, source in find_sources(name, models)]
    bar = ByteBar("verifying")
    try:
        findings = hub.verify(sources, offline, lambda done, total: bar.draw(done, total, done))
    except HubError as error:
        raise HubError(f"{error}; --offline checks only what is here") from error
    finally:
        bar.clear()
    bad = sum(not finding.is_good for finding in findings)
    if as_json:
        click.echo(json_text({"ok": not bad, "files": [_content(item) for item in findings]}))
    else:
        _print(findings)
        if bad:
            of = f"{bad} of {len(findings)} files"
            click.echo(
                f"eftlocal: {of} {'is' if bad == 1 else 'are'} not right, see above", err=True
            )
    return 1 if bad else 0


def _content(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.name,
        "status": finding.status,
        "size": finding.size,
        "detail": finding.detail,
        "path": None if finding.path is None else str(finding.path),
    }


def _print(findings: list[Finding]) -> None:
    """One line per file, what is wrong behind it."""
    for finding in findings:
        size = "" if finding.size is None else amount(finding.size)
        line = f"{finding.status:<14} {size:>8}  {finding.name}"
        click.echo(f"{line}: {finding.detail}" if finding.detail else line)
