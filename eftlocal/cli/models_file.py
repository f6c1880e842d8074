"""Which models.toml the commands of `eftlocal models` are about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..registry import find_user_file
from .options import option


def models_file(command: Callable[..., Any]) -> Callable[..., Any]:
    """Declare --models, which may stand before or after the name of the command."""
    text = "Your file of model entries, instead of the usual one."
    declare = option("--models", "models", type=click.Path(), metavar="FILE", help=text)
    decorated: Callable[..., Any] = declare(command)
    return decorated


def given_file(context: click.Context, models: str | None) -> Path | None:
    """The file that the command, the group before it or EFTLOCAL_MODELS names."""
    outer = context.parent.params.get("models") if context.parent else None
    # What follows the command is nearer; a variable gives both the same.
    own = context.get_parameter_source("models")
    nearer = own is click.core.ParameterSource.COMMANDLINE
    named = models if nearer else outer or models
    return Path(named).expanduser() if named else None


def chosen_file(context: click.Context, models: str | None) -> Path:
    """The same, or else the usual file; it need not exist."""
    return given_file(context, models) or find_user_file()
