"""HTML pages that commands write."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import UsageError
from ..textfiles import writing


def check_page(path: Path) -> None:
    """Find out before models are loaded whether there is a place for a page.

    Raises:
        UsageError: where there is none.
    """
    if path.is_dir():
        raise UsageError(f"--html {path} is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"--html {path}: there is no folder {path.parent}")


def write_page(path: Path, text: str) -> None:
    """Write a page and say so on stderr.

    Raises:
        EftlocalError: where the file cannot be written.
    """
    with writing(path):
        path.write_text(text, encoding="utf-8", errors="replace")
    click.echo(f"eftlocal: wrote {path}", err=True)
