"""How tests run the command line: in this process, as a process, or at a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from click.testing import CliRunner, Result

from eftlocal.cli.main import cli

from .conftest import Trio

ROOT = Path(__file__).resolve().parents[1]
ENDLESS = ("--logit-bias", "2=-1000", "--logit-bias", "262=-1000")
"""Options with which the random models never end a reply by themselves."""


def files(trio: Trio) -> list[str]:
    """The options that name a trio's files."""
    roles = trio._asdict().items()
    return [part for role, path in roles for part in (f"--{role}", str(path))]


def run(*args: str, text: str | bytes = b"", env: Mapping[str, str] | None = None) -> Result:
    """Run one command line in this process, `text` being piped into it."""
    return CliRunner().invoke(cli, args, input=text, env=dict(env or {}))


def command(*args: str) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", "eftlocal", *args]


def environment(state: Path, **more: str) -> dict[str, str]:
    """The environment of a process of its own: no user's settings, one thread."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EFTLOCAL_")}
    kept |= {"XDG_STATE_HOME": str(state), "EFTLOCAL_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return kept | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"} | more


def process(state: Path, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command line in a process of its own and wait for it."""
    return subprocess.run(
        command(*args),
        env=environment(state, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
