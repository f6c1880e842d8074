"""`eftlocal eval judge`: open answers, judged by other models."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EftlocalError
from .eval_judge_options import Wishes, judge_options
from .eval_options import cache_options, chosen_models, open_store, watched
from .options import Arguments, SectionCommand, listed, model_options
from .output import json_text, plain_text
from .pages import check_page, write_page

if TYPE_CHECKING:
    from ..evaluate.judge.asks import Ask
    from ..evaluate.judge.dialogues import Exchange
    from ..evaluate.judge.endpoint import Server
    from ..evaluate.judge.scores import Contest, Judge
    from ..evaluate.prompt_sets import Prompt
    from ..evaluate.report import Section
    from ..evaluate.store import Store
    from ..evaluate.work import Progress

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

Replies and verdicts are kept: a run that was stopped goes on where it was, and asks nothing twice.
"""


def _cached(command: Callable[..., Any]) -> Callable[..., Any]:
    for declare in reversed(cache_options()):
        command = declare(command)
    return command


@click.command(cls=SectionCommand, epilog=_EPILOG)
@judge_options
@_cached
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
    if wishes.html is not None:
        from ..evaluate.page import check_packages

        check_page(Path(wishes.html))
        check_packages()
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
    from ..evaluate.judge.contestants import Lineup
    from ..evaluate.judge.dialogues import Dialogues
    from ..evaluate.work import perform

    models = chosen_models(arguments, wishes.parallel)
    lineup = Lineup(models, arguments.generation, wishes.parts, wishes.ceiling)
    with tempfile.TemporaryDirectory(prefix="eftlocal-judge-") as folder:
        works = [Dialogues(system, prompts, store) for system in lineup.systems(Path(folder))]
        with watched() as progress:
            perform(works, store, progress)
        return {work.title: work.exchanges() for work in works}


def _write_asks(out: str | None, asks: Sequence[Ask]) -> None:
    """To a file, which is there as a whole or not at all; or to standard output."""
    from ..evaluate.judge.files import ask_lines

    if out is None:
        for line in ask_lines(asks):
            click.echo(line)
        return
    path = Path(out)
    partial = path.with_name(f"{path.name}.part")
    try:
        partial.write_text("".join(f"{line}\n" for line in ask_lines(asks)), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise EftlocalError(f"cannot write {path}: {error.strerror or error}") from None
    click.echo(f"eftlocal: wrote {path}: {len(asks)} questions to a judge", err=True)


def _from_files(wishes: Wishes, asks: Sequence[Ask]) -> Iterator[Judge]:
    from ..evaluate.judge.files import read_verdicts
    from ..evaluate.judge.scores import Judge

    for name in wishes.verdicts:
        verdicts, foreign = read_verdicts(Path(name), asks)
        if foreign:
            note = f"{name} has {foreign} verdicts on what is not asked here; they are left out"
            click.echo(f"eftlocal: {note}", err=True)
        yield Judge(Path(name).name, verdicts)


def _asked(servers: Sequence[Server], asks: Sequence[Ask], store: Store) -> list[Judge]:
    """What the endpoints say, one after the other."""
    if not servers:
        return []
    from ..evaluate.judge.judging import Judging
    from ..evaluate.judge.scores import Judge
    from ..evaluate.work import perform

    works = [Judging(server, asks) for server in servers]
    with _awaited() as progress:
        perform(works, store, progress)
    titles = [server.model for server in servers]
    if len(set(titles)) < len(titles):
        titles = [f"{server.model} at {server.url}" for server in servers]
    return [Judge(title, work.verdicts(store)) for title, work in zip(titles, works, strict=True)]


@contextmanager
def _awaited() -> Iterator[Progress]:
    """A progress line like that of `watched`, but Ctrl-C stops at once: nothing computes here."""
    from tqdm import tqdm

    with tqdm(unit="item", disable=None, leave=False, dynamic_ncols=True) as bar:

        def progress(done: int, total: int, title: str) -> None:
            if bar.total is None:
                bar.initial = bar.n = done
            bar.total = total
            bar.set_description(title, refresh=False)
            bar.update(done - bar.n)

        try:
            yield progress
        except KeyboardInterrupt:
            bar.clear()
            click.echo("eftlocal: stopped; the same command goes on from here", err=True)
            raise


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

    n_prompts = len(set(contest.clusters.tolist()))
    settings: dict[str, str] = {
        "prompts": f"{n_prompts} of {wishes.prompts}",
        "models": _models(arguments),
        **({"ceiling": wishes.ceiling} if wishes.ceiling else {}),
        **{f"judge {n}": f"{s.model} at {s.url}" for n, s in enumerate(servers, 1)},
        "judging": "temperature 0 and a fixed seed, where the judge takes them",
        "intervals": f"95 %, {contest.resamples} bootstrap draws, seed {contest.seed}",
    }
    settings |= {name: str(value) for name, value in arguments.generation.items()}
    return section(contest, judges, settings, _command(wishes, arguments))


def _models(arguments: Arguments) -> str:
    if not arguments.files:
        return arguments.label
    files: Mapping[str, Any] = arguments.files
    return ", ".join(f"{role} {' '.join(listed(file))}" for role, file in files.items())


def _command(wishes: Wishes, arguments: Arguments) -> str:
    """The command that gives this section again, but for options of generations and loading."""
    parts = ["eftlocal", "eval", "judge"]
    if arguments.files:
        for role, file in arguments.files.items():
            parts += [part for one in listed(file) for part in (f"--{role}", one)]
    elif arguments.entry:
        parts += ["-m", arguments.entry]
    parts += ["--prompts", wishes.prompts, "--roles", wishes.roles]
    parts += ["--every", str(wishes.every)] if wishes.every > 1 else []
    parts += [flag for flag in ("--parts", "--pairs") if getattr(wishes, flag[2:])]
    for name in ("ceiling", "judge", "judge_model", "second_judge", "second_judge_model"):
        if (value := getattr(wishes, name)) is not None:
            parts += [f"--{name.replace('_', '-')}", value]
    for name in wishes.verdicts:
        parts += ["--verdicts", name]
    return shlex.join(parts)
