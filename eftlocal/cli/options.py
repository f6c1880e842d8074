"""Options that commands share: declared here once, read into one `Arguments`.

No default is repeated: an option that is not given is None and leaves the value of the model
entry, or else of eftlocal/options.py, as it is. Values are checked by the dataclasses there.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..errors import UsageError
from ..options import GenerationOptions, RuntimeOptions
from ..registry import DEFAULT_ENTRY
from .types import EntryName, ParamType, StopText, TokenBias, WordOrCount

if TYPE_CHECKING:
    from .. import FusedModel

ROLES = ("base", "tuned", "reference")

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the shared options of one command line say; None and missing keys were not given.

    Attributes:
        entry: the model entry, None where files are given or nothing is.
        models: the user's models.toml.
        files: role -> path of a GGUF; empty, or all three roles.
        runtime, generation: changes to RuntimeOptions and GenerationOptions.
        verbose: 1 shows timings on stderr, 2 llama.cpp's own log too.
        color: "auto", "on" or "off".
    """

    entry: str | None
    models: Path | None
    files: dict[str, str]
    runtime: dict[str, Any]
    generation: dict[str, Any]
    verbose: int
    color: str

    @property
    def names_model(self) -> bool:
        """Whether the user said which model to use."""
        return self.entry is not None or bool(self.files)

    @property
    def label(self) -> str:
        """What to call the model before it is loaded."""
        return Path(self.files["base"]).name if self.files else self.entry or DEFAULT_ENTRY

    def load(self, progress: Callable[[float], None] | None = None) -> FusedModel:
        """Load the models; options of a generation are left to each call."""
        import eftlocal

        entry = None if self.files else self.entry or DEFAULT_ENTRY
        return eftlocal.load(
            entry,
            models=self.models,
            progress=progress,
            verbose=self.verbose > 1,
            **self.files,
            **self.runtime,
        )


_LAYERS = WordOrCount("auto", "all")
_SWITCH = click.Choice(["auto", "on", "off"])

GENERATION: dict[str, tuple[ParamType, str]] = {
    "alpha": (click.FLOAT, "Strength of the tuned behaviour; 0 is the base alone."),
    "draft": (WordOrCount("off"), "Most tokens drafted per round (2 to 16), or off."),
    "temperature": (click.FLOAT, "0 always takes the likeliest token, 1 samples freely."),
    "top_p": (click.FLOAT, "Sample from the likeliest tokens with this total probability."),
    "top_k": (click.INT, "Sample from this many likeliest tokens; 0 is off."),
    "min_p": (click.FLOAT, "Drop tokens less likely than this times the likeliest."),
    "repetition_penalty": (click.FLOAT, "Above 1: makes tokens of the completion less likely."),
    "presence_penalty": (click.FLOAT, "Subtracted from logits of tokens that occurred."),
    "frequency_penalty": (click.FLOAT, "Subtracted once for every time that a token occurred."),
    "logit_bias": (TokenBias(), "Add BIAS to the logit of a token; repeatable."),
    "seed": (click.INT, "Same seed and settings, same text; see --temperature."),
    "max_tokens": (click.INT, "End after this many tokens; 0 is no limit."),
    "stop": (StopText(), "End before this text; repeatable."),
}
"""Field of GenerationOptions -> (type, help) of its option; `/set parameter` uses them too."""

RUNTIME: dict[str, tuple[ParamType, str]] = {
    "ctx": (click.INT, "Context length in tokens; 0 takes what the models were trained for."),
    "gpu_layers": (_LAYERS, "Layers that go to a GPU."),
    "base_gpu_layers": (_LAYERS, "The same for the base only."),
    "tuned_gpu_layers": (_LAYERS, "The same for the tuned model only."),
    "reference_gpu_layers": (_LAYERS, "The same for the reference only."),
    "threads": (click.INT, "CPU threads; 0 takes the cores that this process may use."),
    "batch": (click.INT, "Prompt tokens evaluated per call."),
    "flash_attention": (_SWITCH, "Flash attention."),
    "cache_type": (click.STRING, "Type of the KV cache, such as f16 or q8_0."),
    "mmap": (_SWITCH, "Map model files instead of reading them."),
    "mlock": (click.BOOL, "Keep weights in RAM."),
}
"""Field of RuntimeOptions -> (type, help) of its option."""


class SectionOption(click.Option):
    """An option that `--help` lists under a heading."""

    def __init__(self, *args: Any, section: str = "Options", **more: Any) -> None:
        super().__init__(*args, **more)
        self.section = section


class SectionCommand(click.Command):
    """A command whose `--help` groups options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list of options per section, in the order of their first option."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def option(*names: str, section: str = "Options", **more: Any) -> Decorator:
    """Declare an option of a SectionCommand, readable from EFTLOCAL_<NAME> as well."""
    long = next(name for name in names if name.startswith("--"))
    variable = "EFTLOCAL_" + long.split("/")[0].lstrip("-").replace("-", "_").upper()
    more.setdefault("envvar", variable)
    return click.option(*names, cls=SectionOption, section=section, **more)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options shared by commands that run a model; `command` gets them as `arguments`."""

    @functools.wraps(command)
    def gathered(**given: Any) -> Any:
        context = click.get_current_context()
        return command(arguments=_gather(context, given), **given)

    wrapped: Callable[..., Any] = gathered
    for declare in reversed(_declarations()):
        wrapped = declare(wrapped)
    return wrapped


def _declarations() -> list[Decorator]:
    """Return the decorators of all shared options, in the order of `--help`."""
    declared = [
        option("--model", "-m", "entry", type=EntryName(), section="Model",
               help=f"Model entry.  [default: {DEFAULT_ENTRY}]"),
        option("--models", "models", type=click.Path(), metavar="FILE", section="Model",
               help="Read model entries from this models.toml too."),
    ]  # fmt: skip
    for role in ROLES:
        text = f"The {role} model as a GGUF, instead of an entry."
        path = click.Path()
        declared.append(
            option(f"--{role}", role, type=path, metavar="FILE", section="Model", help=text)
        )
    declared += [
        _field_option(GenerationOptions(), name, kind, text, "Generation")
        for name, (kind, text) in GENERATION.items()
    ]
    declared += [
        _field_option(RuntimeOptions(), name, kind, text, "Runtime")
        for name, (kind, text) in RUNTIME.items()
    ]
    declared += [
        option("--verbose", count=True,
               help="Show timings on stderr; given twice, llama.cpp's log too."),
        option("--color", type=_SWITCH, default="auto",
               help="Colours; auto follows the terminal and NO_COLOR."),
    ]  # fmt: skip
    return declared


def _field_option(
    defaults: object, name: str, kind: ParamType, text: str, section: str
) -> Decorator:
    """Declare the option of one field; its help shows the default that the dataclass states."""
    default = getattr(defaults, name)
    several = name in ("stop", "logit_bias")
    if not several and default is not None:
        text += f"  [default: {str(default).lower()}]"
    flag = "--" + name.replace("_", "-")
    if kind is click.BOOL:
        return option(f"{flag}/--no-{flag[2:]}", name, section=section, help=text, default=None)
    own = isinstance(kind, WordOrCount | TokenBias | StopText)
    metavar = kind.name if own else None
    return option(
        flag, name, section=section, help=text, type=kind, multiple=several, metavar=metavar
    )


def _gather(context: click.Context, given: dict[str, Any]) -> Arguments:
    """Move the shared parameters out of `given` and check them together."""
    files = {role: given.pop(role) for role in ROLES}
    files = {role: path for role, path in files.items() if path is not None}
    entry = given.pop("entry")
    if entry and files:
        by_hand = [name for name in ("entry", *files) if _on_command_line(context, name)]
        if ("entry" in by_hand and len(by_hand) > 1) or not by_hand:
            raise UsageError("give --model, or --base, --tuned and --reference, not both")
        entry, files = (entry, {}) if "entry" in by_hand else (None, files)
    if files and len(files) < len(ROLES):
        missing = " and ".join(f"--{role}" for role in ROLES if role not in files)
        raise UsageError(f"{missing} missing: a model is a base, a tuned and a reference file")
    arguments = Arguments(
        entry=entry,
        models=_path(given.pop("models")),
        files=files,
        runtime=_pop_given(given, RUNTIME),
        generation=_pop_given(given, GENERATION),
        verbose=given.pop("verbose"),
        color=given.pop("color"),
    )
    if "logit_bias" in arguments.generation:
        arguments.generation["logit_bias"] = dict(arguments.generation["logit_bias"])
    # Wrong values are reported before anything is loaded.
    RuntimeOptions().updated(arguments.runtime)
    GenerationOptions().updated(arguments.generation)
    return arguments


def _pop_given(given: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    values = {name: given.pop(name) for name in table}
    return {name: value for name, value in values.items() if value is not None and value != ()}


def _on_command_line(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def check_text(text: str, what: str) -> str:
    """Return `text`; raise UsageError where it cannot be UTF-8, as bytes of a shell may not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not valid UTF-8 text") from None
    return text


def read_piped_text(terminal: bool = False) -> str:
    """Return what is piped into standard input without one final line end; "" at a terminal.

    Args:
        terminal: read what is typed at a terminal, too.
    """
    if sys.stdin.isatty() and not terminal:
        return ""
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError("standard input is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")
