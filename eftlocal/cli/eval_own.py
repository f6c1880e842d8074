"""The studies of `eftlocal eval` that people's own models can be given to."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
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
    from ..evaluate.answering import Conversation
    from ..evaluate.study import Study
    from ..evaluate.systems import Models

_EXAMPLES = (
    EXAMPLES
    + """\
  eftlocal eval {0} -m mine --prompts prompts.jsonl
  eftlocal eval {0} -m mine --every 10

Without a model the embedded family is studied. Prompts are lines of JSON with "prompt",
"question", "turns" or "messages"; without a file they are the embedded family's questions, which
are about countries, elements, animals and famous works.
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


@click.command(cls=SectionCommand, epilog=_EXAMPLES.format("speculation"))
@_own_options
def speculation(arguments: Arguments, prompts: str | None, parallel: int, **given: Any) -> None:
    """Measure drafting: acceptance, speed, and that texts and distributions stay what they are."""

    def made(models: Models, asked: tuple[Conversation, ...], line: str) -> Study:
        from ..evaluate.asking import own
        from ..evaluate.speculation import Speculation

        return replace(Speculation(models, own(asked), command=line), **_limit(arguments))

    _run("speculation", arguments, prompts, parallel, made, given)


@click.command(cls=SectionCommand, epilog=_EXAMPLES.format("divergence"))
@_own_options
def divergence(arguments: Arguments, prompts: str | None, parallel: int, **given: Any) -> None:
    """Show the few tokens where fusing changes something, in their context."""

    def made(models: Models, asked: tuple[Conversation, ...], line: str) -> Study:
        from ..evaluate.asking import own
        from ..evaluate.divergence import Divergence

        return replace(Divergence(models, own(asked), command=line), **_limit(arguments))

    _run("divergence", arguments, prompts, parallel, made, given)


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
def quantization(arguments: Arguments, prompts: str | None, parallel: int, **given: Any) -> None:
    """Find out which of the three models needs the bits.

    Every file is quantized anew, and what that does to the fused distribution is measured. Files
    with many bits (F16, BF16, Q8_0) are needed; nothing but results is kept of the others.
    """
    types, texts, rows = (given.pop(name) for name in ("types", "texts", "rows"))
    if not arguments.names_model and (types or texts or rows):
        raise UsageError("--types, --texts and --rows need a model: give -m, or files")
    if texts is not None and prompts is not None:
        raise UsageError("give --prompts or --texts, not both")

    def made(models: Models, asked: tuple[Conversation, ...], line: str) -> Study:
        from ..evaluate.quantization import Quantization, Subject, read_texts

        changes: dict[str, Any] = {"types": types.split(",")} if types else {}
        changes |= {"n_rows": rows} if rows else {}
        changes |= {"texts": read_texts(Path(texts))} if texts else {"prompts": asked}
        if limit := _limit(arguments):
            changes["n_tokens"] = limit["max_tokens"]
        return Quantization(Subject(models, **changes), command=line)

    _run("quantization", arguments, prompts, parallel, made, given)


Make = Callable[["Models", "tuple[Conversation, ...]", str], "Study"]
"""Models, what they are asked, and the command that says so -> the study."""


def _limit(arguments: Arguments) -> dict[str, Any]:
    return {"max_tokens": n} if (n := arguments.generation.get("max_tokens")) else {}


def _run(
    name: str,
    arguments: Arguments,
    prompts: str | None,
    parallel: int,
    make: Make,
    given: dict[str, Any],
) -> None:
    """Run a study of the models that are named, or that of the embedded family.

    Raises:
        UsageError: for options that mean nothing here.
    """
    given["seed"] = arguments.generation.get("seed", 0)
    source = click.get_current_context().get_parameter_source
    for field in sorted(arguments.generation.keys() - {"max_tokens", "seed"}):
        # The environment may say what other commands are to do.
        if source(field) is ParameterSource.COMMANDLINE:
            raise UsageError(f"eval {name} chooses {option_name(field)} itself; leave it out")
    if not arguments.names_model:
        if prompts is not None:
            raise UsageError("--prompts needs a model: give -m, or files")
        from ..evaluate.run import make_study

        run_studies(lambda: [make_study(name)], **given)
        return
    from ..evaluate.prompt_sets import ATLAS, prompts_of

    asked = tuple(prompt.conversation for prompt in prompts_of(prompts or ATLAS))
    study = make(chosen_models(arguments, parallel), asked, _command(name, arguments, prompts))
    run_studies(lambda: [study], **given)


def _command(name: str, arguments: Arguments, prompts: str | None) -> str:
    """The command that gives the section again, but for options of loading."""
    parts = ["eftlocal", "eval", name, *model_words(arguments)]
    return shlex.join(parts + (["--prompts", prompts] if prompts else []))
