"""The `eftlocal` command: finds subcommands lazily and turns errors into one line each.

Exit codes: 0 done, 1 it failed, 2 wrong usage, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from ..errors import EftlocalError, UsageError
from .lazy import LazyGroup

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

COMMANDS = {
    "chat": ("eftlocal.cli.chat", "Talk to the fused model, or ask it one question."),
    "complete": ("eftlocal.cli.complete", "Continue a raw text, without a chat template."),
    "generate": ("eftlocal.cli.generate", "Generate a text for every line of a file."),
    "serve": ("eftlocal.cli.serve", "Serve models over HTTP, with OpenAI's and Ollama's API."),
    "ps": ("eftlocal.cli.ps", "List the models that a running server has loaded."),
    "stop": ("eftlocal.cli.stop", "Have a running server unload models."),
    "explain": ("eftlocal.cli.explain", "Show what every model wanted at each token of a reply."),
    "models": ("eftlocal.cli.models", "List, show, add and remove model entries."),
    "doctor": ("eftlocal.cli.doctor", "Check this installation, its memory and model entries."),
    "pull": ("eftlocal.cli.pull", "Download the files of a model entry."),
    "verify": ("eftlocal.cli.verify", "Compare model files with the hub and their hashes."),
    "eval": ("eftlocal.cli.eval", "Reproduce the papers' claims; evaluate models on real tasks."),
    "bench": ("eftlocal.cli.bench", "Measure speed and memory on this machine."),
}
"""Command -> (module that defines it under the same name, line for `eftlocal --help`)."""


class CommandGroup(LazyGroup):
    """The group of all commands; it reports every error in one line."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run one command line, then exit with the code that the module's docstring lists."""
        sys.exit(self._run(args, extra))

    def _run(self, args: Sequence[str] | None, extra: dict[str, Any]) -> int:
        extra |= {"standalone_mode": False, "windows_expand_args": False}
        try:
            code = super().main(args, "eftlocal", **extra)
        except (click.Abort, KeyboardInterrupt):
            return EXIT_INTERRUPTED
        except click.UsageError as error:
            return _fail(_with_hint(error), EXIT_USAGE)
        except click.ClickException as error:
            return _fail(error.format_message(), EXIT_FAILURE)
        except UsageError as error:
            return _fail(str(error), EXIT_USAGE)
        except (EftlocalError, OSError) as error:
            return _fail(str(error), EXIT_FAILURE)
        except Exception as error:
            if os.environ.get("EFTLOCAL_DEBUG"):
                raise
            text = f"internal error: {type(error).__name__}: {error} (EFTLOCAL_DEBUG=1 shows where)"
            return _fail(text, EXIT_FAILURE)
        return code if isinstance(code, int) else 0


def _with_hint(error: click.UsageError) -> str:
    """Return click's message with the place where the options are explained."""
    path = error.ctx.command_path if error.ctx else "eftlocal"
    return f"{error.format_message().rstrip('.')} (see {path} --help)"


def _fail(message: str, code: int) -> int:
    click.echo(f"eftlocal: {' '.join(message.split())}", err=True)
    return code


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from .. import __version__

        click.echo(f"eftlocal {__version__}")
        context.exit()


_EPILOG = """\b
Shell completion:
  bash   eval "$(_EFTLOCAL_COMPLETE=bash_source eftlocal)"
  zsh    eval "$(_EFTLOCAL_COMPLETE=zsh_source eftlocal)"
  fish   _EFTLOCAL_COMPLETE=fish_source eftlocal | source
"""


@click.group(
    cls=CommandGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Emulated fine-tuning: three GGUF models fused token by token.

    A large base model keeps its knowledge and borrows the behaviour that fine-tuning gave to a
    small one. `eftlocal chat` starts a conversation with the embedded family.
    """


def main() -> NoReturn:
    """Entry point of the console script and of `python -m eftlocal`."""
    _repair_streams()
    cli.main()


def _repair_streams() -> None:
    """Replace standard streams that are closed, and make unknown characters no error."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
