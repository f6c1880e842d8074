"""`eftlocal eval judge`: open answers, judged by other models."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EftlocalError
from ..textfiles import writing
from .eval_judge_options import Wishes, judge_options
from .eval_options import check_html, chosen_models, model_words, open_store, watched
from .options import Arguments, SectionCommand, model_options
from .output import json_text, plain_text
from .pages import write_page

if TYPE_CHECKING:
    from ..evaluate.judge.asks import Ask
    from ..evaluate.judge.dialogues import Exchange
    from ..evaluate.judge.endpoint import Server
    from ..evaluate.judge.scores import Contest, Judge
    from ..evaluate.prompt_sets import Prompt
    from ..evaluate.report import Section
    from ..evaluate.store import Record, Store

_EPILOG = """\b
Examples:
  eftlocal eval judge --parts --out asks.jsonl
  eftlocal eval judge --parts --verdicts verdicts.jsonl
  eftlocal eval judge -m mine --prompts mt_bench_questions.jsonl --parts \\
      --ceiling Large-instruct.gguf --pairs \\
      --judge https://api.openai.com/v1 --judge-model gpt-4.1
  eftlocal eval judge --judge http://127.0.0.1:8000/v1 --judge-model big \\
      --second-judge http://127.0.0.1:8001/v1 --second-judge-model other

Without --judge nothing is sent anywhere: the replies, with what to tell a judge, go to --out, and
--verdicts reads verdicts made elsewhere, one JSON object per line: {"key": ..., "verdict": ...}, or
{"key": ..., "answer": the judge's whole answer}.

A file of prompts has one JSON object per line, with "turns" (as MT-Bench's files), "prompt",
"question" or "messages"; "category" and "reference" if wanted.

Replies end after 1,024 tokens and are made without drafts, where neither the entry nor the options
say otherwise.

Replies and verdicts are kept: a run that was stopped goes on where it was. Asked again are only
questions without a verdict, because the judge refused them or its answer could not be read.
"""


@click.command(cls=SectionCommand, epilog=_EPILOG)
@judge_options
@model_options
def judge(arguments: Arguments, **given: Any) -> None:
    """Judge open answers: how helpful, how factual, how harmless; by any OpenAI-compatible API.

    The fused model answers, and its parts alone if wanted; judges give a reason and a verdict on
    every reply, and on pairs of replies in both orders.
    """
    from ..evaluate.judge.asks import all_asks
    from ..evaluate.judge.scores import Contest
    from ..evaluate.prompt_sets import prompts_of

    wishes = Wishes(**given)
    wishes.check()
    roles = wishes.chosen_roles
    servers = tuple(wishes.servers())
    check_html(wishes.html)
    prompts = prompts_of(wishes.prompts)[:: wishes.every]
    store = open_store(wishes.cache, wishes.fresh)
    replies = _replies(wishes, arguments, prompts, store)
    contest = Contest(replies, roles, wishes.pairs, seed=arguments.generation.get("seed", 0))
    asks = all_asks(replies, roles, wishes.pairs)
    own = list(_from_files(wishes, asks))
    if wishes.out is not None or not wishes.has_judge:
        _write_asks(wishes.out, asks)
    if wishes.has_judge:
        judges = [*_asked(servers, asks, store), *own]
        found = _section(wishes, arguments, contest, judges, servers)
        _show(wishes, found)


def _replies(
    wishes: Wishes, arguments: Arguments, prompts: Sequence[Prompt], store: Store
) -> dict[str, list[Exchange]]:
    """What all systems said."""
    from ..evaluate.judge.dialogues import DEFAULTS, Dialogues
    from ..evaluate.parts import Lineup
    from ..evaluate.work import perform

    models = chosen_models(arguments, wishes.parallel)
    alone = ("base", "tuned") if wishes.parts else ()
    with tempfile.TemporaryDirectory(prefix="eftlocal-judge-") as folder:
        lineup = Lineup(
            models,
            Path(folder),
            arguments.generation,
            alone,
            wishes.ceiling,
            defaults=DEFAULTS,
        )
        lineup.check()
        parts = [lineup.fused(), *lineup.others()]
        works = [Dialogues(part.system, prompts, store) for part in parts]
        with watched() as progress:
            perform(works, store, progress)
        return {work.title: work.exchanges() for work in works}


def _write_asks(out: str | None, asks: Sequence[Ask]) -> None:
    """To a file, or to standard output."""
    from ..evaluate.judge.files import ask_lines

    if out is None:
        for line in ask_lines(asks):
            click.echo(line)
        return
    path = Path(out)
    with writing(path):
        path.write_text("".join(f"{line}\n" for line in ask_lines(asks)), encoding="utf-8")
    click.echo(f"eftlocal: wrote {path}: {len(asks)} questions to a judge", err=True)


def _from_files(wishes: Wishes, asks: Sequence[Ask]) -> Iterator[Judge]:
    from ..evaluate.judge.files import read_verdicts
    from ..evaluate.judge.scores import Judge

    for name in wishes.verdicts:
        verdicts, foreign = read_verdicts(Path(name), asks)
        if foreign:
            note = f"{name} has {foreign} verdicts on what is not asked here; they are left out"
            click.echo(f"eftlocal: {note}", err=True)
        if not any(verdicts.values()):
            raise EftlocalError(f"{name} has no verdict that can be read on what is asked here")
        yield Judge(Path(name).name, verdicts)


def _asked(servers: Sequence[Server], asks: Sequence[Ask], store: Store) -> list[Judge]:
    """What the endpoints say, one after the other."""
    if not servers:
        return []
    from ..evaluate.judge.judging import Judging
    from ..evaluate.judge.scores import Judge
    from ..evaluate.work import perform

    works = [Judging(server, asks, store) for server in servers]
    # Nothing computes here that could be torn.
    with watched(at_once=True) as progress:
        perform(works, store, progress)
    titles = [server.model for server in servers]
    if len(set(titles)) < len(titles):
        titles = [f"{server.model} at {server.url}" for server in servers]
    judges = []
    for title, work in zip(titles, works, strict=True):
        unjudged = work.unjudged()
        refused = [key for key, record in unjudged.items() if record["refused"]]
        judges.append(Judge(title, work.verdicts(), refused))
        if asks and len(unjudged) == len(asks):
            raise EftlocalError(_nothing_from(work.server, list(unjudged.values())))
    return judges


def _nothing_from(server: Server, unjudged: Sequence[Record]) -> str:
    """Why a judge that gave no verdict at all is of no use."""
    last = unjudged[-1]
    said = " ".join((last["refused"] or " ".join(last["answers"])).split())[:200]
    shown = "".join(c for c in said if c.isprintable()) or "nothing"
    did = "it refuses them" if last["refused"] else "what it answers cannot be read"
    return (
        f"the judge {server.model} at {server.url} gave no verdict on any of {len(unjudged)} "
        f"questions; {did}: {shown}"
    )


def _show(wishes: Wishes, found: Section) -> None:
    """Print the section, and write the page that was asked for."""
    if wishes.html is not None:
        from ..evaluate.page import page
        from ..evaluate.report import Report

        write_page(Path(wishes.html), page(Report(found.settings, {}, (found,))))
    click.echo(json_text(found.to_json()) if wishes.as_json else plain_text(found.to_text()))


def _section(
    wishes: Wishes,
    arguments: Arguments,
    contest: Contest,
    judges: Sequence[Judge],
    servers: Sequence[Server],
) -> Section:
    from ..evaluate.judge.section import section
    from ..evaluate.parts import named

    n_prompts = len(set(contest.clusters.tolist()))
    settings: dict[str, str] = {
        "prompts": f"{n_prompts} of {wishes.prompts}",
        **named(arguments.entry, arguments.files, wishes.ceiling),
        **{f"judge {n}": f"{s.model} at {s.url}" for n, s in enumerate(servers, 1)},
        "judging": "temperature 0 and a fixed seed, where the judge takes them",
        "intervals": f"95 %, {contest.resamples} bootstrap draws, seed {contest.seed}",
    }
    settings |= {name: str(value) for name, value in arguments.generation.items()}
    return section(contest, judges, settings, _command(wishes, arguments))


def _command(wishes: Wishes, arguments: Arguments) -> str:
    """The command that gives this section again, but for options of generations and loading."""
    parts = ["eftlocal", "eval", "judge", *model_words(arguments)]
    parts += ["--prompts", wishes.prompts, "--roles", wishes.roles]
    parts += ["--every", str(wishes.every)] if wishes.every > 1 else []
    parts += [flag for flag in ("--parts", "--pairs") if getattr(wishes, flag[2:])]
    for name in ("ceiling", "judge", "judge_model", "second_judge", "second_judge_model"):
        if (value := getattr(wishes, name)) is not None:
            parts += [f"--{name.replace('_', '-')}", value]
    for name in wishes.verdicts:
        parts += ["--verdicts", name]
    return shlex.join(parts)
