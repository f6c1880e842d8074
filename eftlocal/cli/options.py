"""Options that commands share: declared here once, read into one `Arguments`.

No default is repeated: an option that is not given is None and leaves the value of the model
entry, or else of eftlocal/options.py, as it is. Values are checked by the dataclasses there.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..errors import UsageError
from ..experts import expert_names, references_for, resolve_weights
from ..options import CONSTRAINTS, GenerationOptions, RuntimeOptions, option_name
from ..registry import DEFAULT_ENTRY, Source, load_registry
from .tables import GENERATION, ROLE_HELP, RUNTIME, SEVERAL, SWITCH
from .types import EntryName, ParamType

if TYPE_CHECKING:
    from .. import FusedModel

Files = Mapping[str, str | list[str]]
"""Role -> GGUF, a path or hf:user/repository...; several experts make lists of the small roles."""

_CLICK_TYPES = (
    type(click.FLOAT),
    type(click.INT),
    type(click.STRING),
    type(click.BOOL),
    click.Choice,
)
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the shared options of one command line say; None and missing keys were not given.

    Attributes:
        entry: the model entry, None where files are given or nothing is.
        models: the user's models.toml.
        files: the models as files; empty, or all three roles.
        runtime, generation: changes to RuntimeOptions and GenerationOptions.
        verbose: 1 shows timings on stderr, 2 llama.cpp's own log too.
        color: "auto", "on" or "off".
        pull: whether to download missing files without asking.
        entries: all model entries, for commands that take several; `entry` is the first.
    """

    entry: str | None
    models: Path | None
    files: Files
    runtime: dict[str, Any]
    generation: dict[str, Any]
    verbose: int
    color: str
    pull: bool = False
    entries: tuple[str, ...] = ()

    @property
    def names_model(self) -> bool:
        """Whether the user said which model to use."""
        return self.entry is not None or bool(self.files)

    @property
    def label(self) -> str:
        """What to call the model before it is loaded."""
        if self.files:
            return Source.parse(str(self.files["base"])).label
        return self.entry or DEFAULT_ENTRY

    def check(self) -> GenerationOptions:
        """Check, before anything is loaded, that the weights fit the experts.

        Returns:
            The generation options as the entry and the command line say.

        Raises:
            UsageError: naming the experts.
            RegistryError: where there is no such entry.
        """
        options = GenerationOptions()
        if self.files:
            experts = expert_names(listed(self.files["tuned"]))
        else:
            entry = load_registry(self.models).find(self.entry or DEFAULT_ENTRY)
            experts = tuple(expert.name for expert in entry.experts)
            options = options.updated(entry.options)
        options = options.updated(self.generation)
        resolve_weights(experts, options)
        return options

    def load(self, progress: Callable[[float], None] | None = None) -> FusedModel:
        """Load the models; options of a generation are left to each call.

        Raises:
            EftlocalError: as `check` and `eftlocal.load` do.
        """
        import eftlocal

        self.check()
        entry = None if self.files else self.entry or DEFAULT_ENTRY
        files: dict[str, Any] = dict(self.files)
        return eftlocal.load(
            entry,
            models=self.models,
            progress=progress,
            verbose=self.verbose > 1,
            **files,
            **self.runtime,
        )


def listed(files: str | list[str]) -> list[str]:
    """The files of a role as a list."""
    return [files] if isinstance(files, str) else files


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


def with_options(*declarations: Decorator) -> Decorator:
    """Declare options of a command, in the order of `--help`."""

    def declared(command: Callable[..., Any]) -> Callable[..., Any]:
        for declare in reversed(declarations):
            command = declare(command)
        return command

    return declared


def model_options(command: Callable[..., Any], several: bool = False) -> Callable[..., Any]:
    """Add the options shared by commands that run a model; `command` gets them as `arguments`.

    Args:
        command: what runs then.
        several: whether --model may be repeated.
    """

    @functools.wraps(command)
    def gathered(**given: Any) -> Any:
        context = click.get_current_context()
        return command(arguments=_gather(context, given), **given)

    return with_options(*_declarations(several))(gathered)


def _declarations(several: bool) -> list[Decorator]:
    """Return the decorators of all shared options, in the order of `--help`."""
    more = "; repeatable" if several else ""
    declared = [
        option("--model", "-m", "entry", type=EntryName(), section="Model", multiple=several,
               help=f"Model entry{more}.  [default: {DEFAULT_ENTRY}]"),
        option("--models", "models", type=click.Path(), metavar="FILE", section="Model",
               help="Read model entries from this models.toml too."),
        option("--pull", is_flag=True, section="Model",
               help="Download files that are missing without asking; see eftlocal pull."),
    ]  # fmt: skip
    for role, text in ROLE_HELP.items():
        path, several = click.Path(), role != "base"
        declared.append(
            option(f"--{role}", role, type=path, metavar="FILE", section="Model", help=text,
                   multiple=several)
        )  # fmt: skip
    declared.append(
        option("--hf-repo", "-hf", "hub", metavar="USER/REPO[:QUANT]", section="Model",
               multiple=True, envvar=None,
               help="A GGUF of the Hugging Face hub. Each -hf fills the next role that has no file "
               "yet: base, tuned, reference; so three of them name a whole model.")
    )  # fmt: skip
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
        option("--color", type=SWITCH, default="auto",
               help="Colours; auto follows the terminal and NO_COLOR."),
    ]  # fmt: skip
    return declared


def _field_option(
    defaults: object, name: str, kind: ParamType, text: str, section: str
) -> Decorator:
    """Declare the option of one field; its help shows the default that the dataclass states."""
    default = getattr(defaults, name)
    several = name in SEVERAL
    if not several and default is not None:
        text += f"  [default: {str(default).lower()}]"
    flag = "--" + option_name(name).replace("_", "-")
    if kind is click.BOOL:
        return option(f"{flag}/--no-{flag[2:]}", name, section=section, help=text, default=None)
    own = not isinstance(kind, _CLICK_TYPES)
    metavar = kind.name if own else None
    return option(
        flag, name, section=section, help=text, type=kind, multiple=several, metavar=metavar
    )


def _gather(context: click.Context, given: dict[str, Any]) -> Arguments:
    """Move the shared parameters out of `given` and check them together."""
    named = given["entry"] or ()
    entries = named if isinstance(named, tuple) else (named,)
    given["entry"] = entries[0] if entries else None
    entry, files = _chosen(context, given)
    arguments = Arguments(
        entry=entry,
        models=_path(given.pop("models")),
        files=files,
        runtime=_pop_given(given, RUNTIME),
        generation=_pop_given(given, GENERATION),
        verbose=given.pop("verbose"),
        color=given.pop("color"),
        pull=given.pop("pull"),
        entries=entries if entry else (),
    )
    for name in ("weight", "logit_bias"):
        if name in arguments.generation:
            arguments.generation[name] = dict(arguments.generation[name])
    # Wrong values are reported before anything is loaded.
    RuntimeOptions().updated(arguments.runtime)
    options = GenerationOptions().updated(arguments.generation)
    if arguments.generation.keys() & set(CONSTRAINTS):
        from ..constraints import check

        check(options)
    return arguments


def _chosen(context: click.Context, given: dict[str, Any]) -> tuple[str | None, Files]:
    """Return the entry or the files that were named; flags win over the environment."""
    entry = given.pop("entry")
    named = {role: given.pop(role) for role in ROLE_HELP}
    named = {role: paths for role, paths in named.items() if paths}
    if hub := given.pop("hub"):
        named = {role: paths for role, paths in named.items() if _on_command_line(context, role)}
        named = with_hub(named, hub)
    if entry and named:
        names = ("entry", "hub", *named)
        by_hand = [name for name in names if _on_command_line(context, name)]
        if ("entry" in by_hand and len(by_hand) > 1) or not by_hand:
            raise UsageError("give --model, or --base, --tuned and --reference, not both")
        entry, named = (entry, {}) if "entry" in by_hand else (None, named)
    if not named:
        return entry, {}
    missing = " and ".join(f"--{role}" for role in ROLE_HELP if role not in named)
    if missing:
        raise UsageError(f"{missing} missing: a model is a base, a tuned and a reference file")
    references_for(named["tuned"], named["reference"])
    for file in (named["base"], *named["tuned"], *named["reference"]):
        Source.parse(file)
    files: dict[str, str | list[str]] = {"base": named["base"]}
    for role in ("tuned", "reference"):
        paths = named[role]
        files[role] = paths[0] if len(paths) == 1 else list(paths)
    return entry, files


def with_hub(named: dict[str, Any], hub: Sequence[str]) -> dict[str, Any]:
    """Give the repositories of -hf to the roles that have no file, in the order of ROLE_HELP."""
    free = [role for role in ROLE_HELP if role not in named]
    if len(hub) > len(free):
        left = " and ".join(free) or "no role"
        raise UsageError(
            f"-hf is given {len(hub)} times, but only {left} has no file; for several experts "
            "write --tuned hf:USER/REPO"
        )
    for role, repository in zip(free, hub, strict=False):
        file = repository if repository.startswith("hf:") else f"hf:{repository}"
        named[role] = file if role == "base" else (file,)
    return named


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
