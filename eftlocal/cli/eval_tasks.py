"""`eftlocal eval tasks`: lm-evaluation-harness on a model entry and on its parts."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .eval_options import CACHE, chosen_models, open_store, watched
from .options import Arguments, SectionCommand, model_options, option, with_options
from .output import json_text
from .pages import check_page

if TYPE_CHECKING:
    from ..evaluate.tasks.run import Findings, Setting

_BATCH_SIZE = 4
_RAW = "eftlocal.eval_tasks.raw"
_OF_OUTPUT = ("as_json", "log_samples", "cache", "fresh", "pull", "verbose", "color", "help")
"""Options that change nothing about what is found out."""
_EPILOG = """\b
Tasks:
  NAME               a task, group or tag of lm-evaluation-harness; its data may be downloaded
  FILE.yaml          a task of your own, in the harness's form
  gsm8k=FILE         GSM8K on a file of JSON lines with question and answer
  truthfulqa=FILE    TruthfulQA's mc1 and mc2 on its csv
  atlas              four answers each to the embedded family's questions
  atlas-chat         the same questions, answered freely; give --apply-chat-template, too

\b
Examples:
  eftlocal eval tasks --tasks atlas --parts
  eftlocal eval tasks -m my-entry --tasks gsm8k=test.jsonl --num-fewshot 5 --limit 200
  eftlocal eval tasks --base L.gguf --tuned S-chat.gguf --reference S.gguf \\
      --parts --ceiling L-chat.gguf --tasks arc_challenge,hellaswag --json

Replies are greedy unless a task or --gen-kwargs says otherwise. Every answer is kept by content:
what was stopped goes on where it was.
"""


class _Remembering(SectionCommand):
    """A command that remembers its options as they were written."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse them, and keep what the parser found."""
        raw, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_RAW] = raw
        return super().parse_args(ctx, args)


@click.command(cls=_Remembering, epilog=_EPILOG)
@option("--tasks", "names", metavar="TASK,...", required=True, envvar=None, help="What to ask.")
@option("--parts", is_flag=True, envvar=None, help="Ask each of its models alone, too.")
@option(
    "--ceiling",
    metavar="FILE",
    envvar=None,
    help="A large tuned model that is asked alone; with --parts it gives PGR.",
)
@option("--num-fewshot", type=click.IntRange(0), metavar="N", envvar=None,
        help="Examples before each question.  [default: as the task says]")  # fmt: skip
@option("--limit", type=click.FloatRange(0, min_open=True), metavar="N", envvar=None,
        help="Documents per task; below 1: this share of them.")  # fmt: skip
@option("--include-path", "include", type=click.Path(exists=True, file_okay=False), multiple=True,
        metavar="FOLDER", envvar=None,
        help="Know the tasks in this folder, too; repeatable.")  # fmt: skip
@option("--apply-chat-template", "chat", is_flag=True, envvar=None,
        help="Ask as in a conversation, with the entry's templates.")  # fmt: skip
@option("--fewshot-as-multiturn/--no-fewshot-as-multiturn", "multiturn", default=True, envvar=None,
        help="Make examples turns of the conversation.  [default: yes]")  # fmt: skip
@option("--system-prompt", metavar="TEXT", envvar=None, help="Put this before everything.")
@option("--gen-kwargs", metavar="NAME=VALUE,...", envvar=None,
        help="Change generation settings of tasks, such as max_gen_toks=512.")  # fmt: skip
@option("--batch-size", type=click.IntRange(1), metavar="N", envvar=None,
        help=f"Requests at once; each takes a context.  [default: {_BATCH_SIZE}]")  # fmt: skip
@option("--add-bos", is_flag=True, envvar=None, help="Put BOS before every text.")
@option("--reuse-prompts", "reuse", is_flag=True, envvar=None,
        help="Read a prompt once for all its answers: several times as fast where prompts are "
        "long; scores differ by rounding.")  # fmt: skip
@option("--log-samples", metavar="FILE", envvar=None, help="Write every answer, as JSON lines.")
@option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object instead.")
@with_options(*CACHE)
@model_options
def tasks(
    arguments: Arguments,
    log_samples: str | None,
    as_json: bool,
    cache: str | None,
    fresh: bool,
    **given: Any,
) -> None:
    """Run tasks of lm-evaluation-harness on a fused model and on its parts.

    PGR says how much of the gap between the tuned model alone and the ceiling fusing closes; its
    interval comes from a bootstrap over documents, with the same draws for all systems.
    """
    from ..evaluate.tasks.harness import check_packages

    check_packages()
    if log_samples is not None:
        check_page(Path(log_samples))
    setting = _setting(arguments, given)
    findings = _found(setting, cache, fresh)
    if log_samples is not None:
        from ..evaluate.tasks.run import write_samples

        write_samples(findings, Path(log_samples))
    click.echo(json_text(findings.to_json()) if as_json else findings.to_text())


def _found(setting: Setting, cache: str | None, fresh: bool) -> Findings:
    """The findings; loading the harness itself takes seconds, so that is said."""
    if sys.stderr.isatty():
        click.echo("eftlocal: loading tasks ...", err=True)
    with watched() as progress:
        from ..evaluate.tasks.run import run

        return run(setting, open_store(cache, fresh), progress)


def _setting(arguments: Arguments, given: dict[str, Any]) -> Setting:
    """What the command line says.

    Raises:
        UsageError: for options that do not go together.
    """
    from ..evaluate.tasks.harness import Manner
    from ..evaluate.tasks.run import Setting

    names = tuple(dict.fromkeys(name.strip() for name in given["names"].split(",")))
    if not all(names):
        raise UsageError("--tasks has an empty name; use NAME,NAME")
    if "atlas-chat" in names and not given["chat"]:
        click.echo("eftlocal: atlas-chat is meant for --apply-chat-template", err=True)
    limit = given["limit"]
    options = dict(arguments.generation)
    manner = Manner(
        num_fewshot=given["num_fewshot"],
        limit=int(limit) if limit is not None and limit >= 1 else limit,
        chat=given["chat"],
        multiturn=given["multiturn"] and given["chat"],
        system_prompt=given["system_prompt"],
        gen_kwargs=_gen_kwargs(given["gen_kwargs"]),
        seed=options.get("seed"),
    )
    return Setting(
        chosen_models(arguments, given["batch_size"] or _BATCH_SIZE),
        options,
        names,
        tuple(map(Path, given["include"])),
        manner,
        given["parts"],
        given["ceiling"],
        given["add_bos"],
        given["reuse"],
        arguments.verbose > 0,
        _command(click.get_current_context()),
    )


def _gen_kwargs(text: str | None) -> dict[str, Any]:
    """The settings of --gen-kwargs.

    Raises:
        UsageError: where one is not readable, or not known.
    """
    from ..evaluate.tasks.gen_kwargs import read_settings, wanted

    found = read_settings(text) if text else {}
    wanted(found)
    return found


def _command(context: click.Context) -> str:
    """The command that gives the findings again: all options that say what is asked, and how.

    Options of the environment are among them.
    """
    words = ["eftlocal", "eval", "tasks"]
    for parameter in context.command.get_params(context):
        name = str(parameter.name)
        if isinstance(parameter, click.Option) and name not in _OF_OUTPUT:
            words += _words(parameter, context.meta[_RAW].get(name), context)
    return shlex.join(words)


def _words(parameter: click.Option, raw: Any, context: click.Context) -> list[str]:
    """An option as it was given, none where it was not."""
    name = max(parameter.opts, key=len)
    if raw is None and not (raw := parameter.value_from_envvar(context)):
        return []
    if parameter.is_flag:
        is_on = parameter.type_cast_value(context, raw)
        return [name] if is_on else parameter.secondary_opts[:1]
    values = raw if isinstance(raw, list | tuple) else [raw]
    return [word for value in values for word in (name, str(value))]
