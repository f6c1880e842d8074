"""The studies of `eftlocal eval` that people's own models can be given to."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..errors import UsageError
from ..options import option_name
from .eval_options import PARALLEL, chosen_models, model_words
from .eval_studies import EXAMPLES, STUDY_OPTIONS, run_studies
from .options import Arguments, SectionCommand, model_options, option, with_options

if TYPE_CHECKING:
    from ..evaluate.asking import Asked
    from ..evaluate.study import Study
    from ..evaluate.systems import Models

_EXAMPLES = (
    EXAMPLES
    + """\
  eftlocal eval {0} -m mine --prompts prompts.jsonl
  eftlocal eval {0} -m mine --every 10

Without a model the embedded family is studied. Prompts are lines of JSON with "prompt",
"question", "turns" or "messages", and may have "answers" and "category"; without a file they are
the embedded family's questions, which are about countries, elements, animals and famous works.
"""
)


_own_options = with_options(
    model_options,
    *STUDY_OPTIONS,
    option(
        "--prompts",
        metavar="FILE",
        envvar=None,
        help="Ask these, as JSON lines.  [default: the embedded family's questions]",
    ),
    PARALLEL,
)
"""The options of a study that takes models and prompts."""


@dataclass(frozen=True, slots=True)
class _Given:
    """What a study of people's own models is made of.

    Attributes:
        models: they.
        asked: from --prompts; None is the embedded family's questions.
        max_tokens: of a reply; None leaves it to the study.
        facts: the study's `command` and `files`.
    """

    models: Models
    asked: tuple[Asked, ...] | None
    max_tokens: int | None
    facts: Mapping[str, Any]

    @property
    def limit(self) -> dict[str, Any]:
        """The field of a study that --max-tokens changes."""
        return {} if self.max_tokens is None else {"max_tokens": self.max_tokens}


Make = Callable[[_Given], "Study"]


@click.command(cls=SectionCommand, epilog=_EXAMPLES.format("speculation"))
@_own_options
def speculation(arguments: Arguments, parallel: int, **given: Any) -> None:
    """Measure drafting: acceptance, speed, and that texts and distributions stay what they are."""

    def made(own: _Given) -> Study:
        from ..evaluate.speculation import Speculation

        return Speculation(own.models, own.asked, **own.limit, **own.facts)

    _run("speculation", arguments, parallel, made, given)


@click.command(cls=SectionCommand, epilog=_EXAMPLES.format("divergence"))
@_own_options
def divergence(arguments: Arguments, parallel: int, **given: Any) -> None:
    """Show the few tokens where fusing changes something, in their context."""

    def made(own: _Given) -> Study:
        from ..evaluate.divergence import Divergence

        return Divergence(own.models, own.asked, **own.limit, **own.facts)

    _run("divergence", arguments, parallel, made, given)


@click.command(cls=SectionCommand, epilog=_EXAMPLES.format("quantization"))
@option(
    "--types",
    metavar="TYPE,...",
    envvar=None,
    help="Quantize to these, finest first.  [default: Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q3_K_M]",
)
@option(
    "--texts",
    metavar="FILE",
    envvar=None,
    help="Read these texts instead of asking prompts: one per line, or JSON lines.",
)
@option(
    "--rows",
    type=click.IntRange(1),
    envvar=None,
    metavar="N",
    help="Tokens that are compared at most; each takes room on the disk.  [default: 1000]",
)
@_own_options
def quantization(arguments: Arguments, parallel: int, **given: Any) -> None:
    """Find out which of the three models needs the bits.

    Every file is quantized anew, and what that does to the fused distribution is measured. Files
    with many bits (F16, BF16, Q8_0) are needed; nothing but results is kept of the others.
    """
    types, texts, rows = (given[name] for name in ("types", "texts", "rows"))
    if texts is not None and given["prompts"] is not None:
        raise UsageError("give --prompts or --texts, not both")

    def made(own: _Given) -> Study:
        from ..evaluate.asking import family_asked
        from ..evaluate.quantization import Quantization, Subject, read_texts

        changes: dict[str, Any] = {}
        if types is not None:
            changes["types"] = [name.strip() for name in types.split(",")]
        if rows is not None:
            changes |= {"n_rows": rows, "n_tokens": min(rows, Subject.n_tokens)}
        if own.max_tokens is not None:
            changes["n_tokens"] = own.max_tokens
        if texts is not None:
            changes["texts"] = read_texts(Path(texts))
        else:
            asked = family_asked() if own.asked is None else own.asked
            changes["prompts"] = tuple(one.conversation for one in asked)
            changes["clusters"] = tuple(one.cluster for one in asked)
        return Quantization(Subject(own.models, **changes), **own.facts)

    _run("quantization", arguments, parallel, made, given)


def _run(name: str, arguments: Arguments, parallel: int, make: Make, given: dict[str, Any]) -> None:
    """Run a study of the models that are named, or that of the embedded family.

    Raises:
        UsageError: for options that mean nothing here.
    """
    own = {field: given.pop(field) for field in _OWN if field in given}
    own["max_tokens"] = _limit(name, arguments)
    given["seed"] = arguments.generation.get("seed", 0)
    for field in sorted(arguments.generation.keys() - {"max_tokens", "seed"}):
        if _by_hand(field):
            raise UsageError(f"eval {name} chooses {option_name(field)} itself; leave it out")
    if not arguments.names_model:
        for field in _OWN:
            if own.get(field) is not None and _by_hand(field):
                raise UsageError(f"{_option(field)} needs a model: give -m, or files")
        from ..evaluate.run import make_study

        run_studies(lambda: [make_study(name)], **given)
        return
    from ..evaluate import asking
    from ..evaluate.prompt_sets import ATLAS, read_prompts

    if own["prompts"] == ATLAS:
        own["prompts"] = None
    prompts = own["prompts"]
    asked = None if prompts is None else asking.own(read_prompts(Path(prompts)))
    # Studies choose the options of generations; those of the environment are for other commands.
    models = chosen_models(replace(arguments, generation={}), parallel)
    words = {**own, "every": given["every"], "seed": given["seed"]}
    facts = {"command": _command(name, arguments, words), "files": _files(arguments, models, own)}
    study = make(_Given(models, asked, own["max_tokens"], facts))
    run_studies(lambda: [study], **given)


_OWN = ("prompts", "texts", "types", "rows", "max_tokens")
"""Options that only people's own models have."""


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _by_hand(field: str) -> bool:
    """Whether an option is given here; the environment may say what other commands are to do."""
    source = click.get_current_context().get_parameter_source(field)
    return source is ParameterSource.COMMANDLINE


def _limit(name: str, arguments: Arguments) -> int | None:
    """Tokens of a reply.

    Raises:
        UsageError: for no limit.
    """
    found: int | None = arguments.generation.get("max_tokens")
    if found == 0 and _by_hand("max_tokens"):
        raise UsageError(f"eval {name} needs a limit: give --max-tokens 1 or more")
    return found or None


def _command(name: str, arguments: Arguments, options: Mapping[str, Any]) -> str:
    """The command that gives the section again, but for options of loading."""
    parts = ["eftlocal", "eval", name, *model_words(arguments)]
    if arguments.models is not None:
        parts += ["--models", str(arguments.models)]
    for field, value in options.items():
        if value is not None and (field, value) not in _DEFAULTS:
            parts += [_option(field), str(value)]
    return shlex.join(parts)


_DEFAULTS = (("every", 1), ("seed", 0))


def _files(arguments: Arguments, models: Models, own: Mapping[str, Any]) -> dict[str, str]:
    """What tells all files that were named from others of their names, and how they are loaded."""
    from ..evaluate.asking import named
    from ..loading import locate

    _, paths = locate(models.entry, models=models.models, **models.files)
    texts = {field: Path(own[field]) for field in ("prompts", "texts") if own.get(field)}
    changes = ", ".join(f"{option_name(k)} {v}" for k, v in arguments.runtime.items())
    found = {"models": named(paths), "asked from": named(texts), "loaded with": changes}
    return {what: text for what, text in found.items() if text}
