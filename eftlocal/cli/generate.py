"""`eftlocal generate`: a file of prompts -> a file of texts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EftlocalError, UsageError
from .delivery import run_with_model
from .downloads import offer
from .generate_input import Item, Manner, items_of, prepare, read_lines, seed_of
from .generate_models import settings_of, steadied, with_sequences
from .generate_output import Output, open_output
from .generate_results import Writer, error_of
from .interrupts import Interrupts
from .options import Arguments, SectionCommand, check_text, model_options, option
from .tables import SWITCH

if TYPE_CHECKING:
    from tqdm import tqdm

    from .. import FusedModel
    from ..batch import Job, Outcome

AHEAD = 4
"""For each sequence, how many texts may be finished before an earlier one is."""
_REDRAW_SECONDS = 1.0

_EPILOG = """\b
Lines of the input, each with options of its own where they differ:
  {"prompt": "The capital of Chile is", "max_tokens": 20}
  {"id": "q7", "messages": [{"role": "user", "content": "Hi!"}], "alpha": "dynamic"}
  {"custom_id": "q8", "url": "/v1/chat/completions", "body": {"messages": [...]}}

\b
Examples:
  eftlocal generate --input prompts.jsonl --output out.jsonl
  eftlocal generate -i questions.txt -o out.jsonl -n 4 --seed 1 --max-tokens 200
  eftlocal generate -i chats.jsonl -o train.jsonl --format messages --parallel 8
  eftlocal generate -i - -o - < prompts.jsonl | jq -r .text

The same command goes on where it was stopped, and gives the same file again: here --draft and
--kv-unified are off where neither the options nor the model entry say otherwise. With --draft auto
or --kv-unified on, texts depend a little on the clock and on what runs beside them.
"""


@click.command(cls=SectionCommand, epilog=_EPILOG)
@option(
    "--input",
    "-i",
    "source",
    metavar="FILE",
    required=True,
    envvar=None,
    help="JSON lines, or plain text (.txt) with a prompt per line; - is standard input.",
)
@option(
    "--output",
    "-o",
    metavar="FILE",
    required=True,
    envvar=None,
    help="JSON lines, in the order of the input; - is standard output.",
)
@option(
    "--format",
    "form",
    type=click.Choice(["results", "messages"]),
    default="results",
    show_default=True,
    help="results: texts and counts. messages: whole conversations, for "
    "fine-tuning; errors go to OUTPUT.errors.jsonl.",
)
@option(
    "--lines",
    type=click.Choice(["json", "chat", "raw"]),
    help="What a line is: JSON; a question in plain text; a raw text to be continued.  "
    "[default: chat for .txt, else json]",
)
@option(
    "-n",
    "--samples",
    "samples",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Texts per prompt, each with a seed of its own.",
)
@option("--system-prompt", "-s", metavar="TEXT", help="For conversations that have none.")
@option("--logprobs", is_flag=True, help="Write tokens, log-probabilities and alphas, too.")
@option("--overwrite", is_flag=True, envvar=None, help="Begin anew where OUTPUT is there already.")
@option(
    "--parallel",
    type=click.IntRange(1, 256),
    help="Texts that are written at once.  [default: 8, or less where memory is short]",
)
@option(
    "--kv-unified",
    type=SWITCH,
    help="Whether they share one KV cache; auto shares it where there are several.  [default: off]",
)
@model_options
def generate(source: str, output: str, overwrite: bool, arguments: Arguments, **given: Any) -> None:
    """Generate a text for every line of a file.

    A line that is wrong becomes an error in the output, and the others go on; the exit code is 1
    then. A run that was stopped, or killed, goes on after the last line that is whole. The same
    models, options and input give the same file.
    """
    arguments.check()
    manner = _manner(source, given)
    content = _read(source, output)
    if manner.plain is None and content.lstrip().startswith(b"["):
        told = "holds a list; write one object per line, as jq -c '.[]' does"
        raise UsageError(f"{_name(source)} {told}")
    items = list(items_of(read_lines(content, manner), manner))
    if not items:
        raise UsageError(f"{_name(source)} is empty: there is nothing to generate")
    offer(arguments)
    arguments = steadied(arguments, given["kv_unified"])
    settings = settings_of(arguments)
    if manner.samples > 1 and settings["temperature"] == 0:
        click.echo("eftlocal: at temperature 0 all texts of a prompt are the same", err=True)
    settings |= _told(given, manner)
    own_errors = manner.as_messages
    with open_output(
        output, content, settings, overwrite=overwrite, own_errors=own_errors
    ) as opened:
        if opened.done > len(items):
            raise EftlocalError(f"{output} has more lines than {_name(source)} asks for")
        run = Run(items, opened, manner, arguments.generation)
        if opened.done < len(items):
            run_with_model(with_sequences(arguments, given["parallel"]), run.perform)
        run.tell(output)
    if opened.failed:
        sys.exit(1)


def _manner(source: str, given: dict[str, Any]) -> Manner:
    """How lines are read and written.

    Raises:
        UsageError: for options that do not go together.
    """
    lines = given["lines"] or ("chat" if source.lower().endswith(".txt") else "json")
    as_messages = given["form"] == "messages"
    if as_messages and given["logprobs"]:
        raise UsageError("--logprobs goes with --format results")
    system = given["system_prompt"]
    if system is not None:
        check_text(system, "--system-prompt")
    plain = None if lines == "json" else lines
    return Manner(as_messages, given["logprobs"], given["samples"], plain, system)


def _told(given: Mapping[str, Any], manner: Manner) -> dict[str, Any]:
    """The settings of lines by the names of their options."""
    return {
        "format": given["form"],
        "lines": manner.plain or "json",
        "samples": manner.samples,
        "system_prompt": manner.system,
        "logprobs": manner.logprobs,
    }


def _name(source: str) -> str:
    return "standard input" if source == "-" else source


def _read(source: str, output: str) -> bytes:
    """The whole input.

    Raises:
        UsageError: where there is none, or the output would overwrite it.
    """
    if source == "-":
        if sys.stdin.isatty():
            raise UsageError("--input - reads standard input: pipe a file into it")
        content = sys.stdin.buffer.read()
    else:
        path = Path(source)
        if path.is_dir():
            raise UsageError(f"--input {source} is a folder; name a file")
        if output != "-" and path.exists() and Path(output).exists() and path.samefile(output):
            raise UsageError("--input and --output are the same file")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {source}: {error.strerror or error}") from None
    return content


class Run:
    """All items that are left, through one model; results are written in the order of items.

    Args:
        items: all of them.
        output: knows how many are written already.
        manner: how results are written.
        options: changes to the model's own generation options, for all lines.
    """

    def __init__(
        self, items: Sequence[Item], output: Output, manner: Manner, options: Mapping[str, Any]
    ) -> None:
        self._items, self._output, self._manner, self._options = items, output, manner, options
        self._before = self._started = output.done
        self._n_tokens = 0
        self._seconds = 0.0

    def perform(self, model: FusedModel, interrupts: Interrupts) -> None:
        """Run what is left; `run_with_model` calls this.

        Raises:
            KeyboardInterrupt: after Ctrl-C; what was written stays.
            EftlocalError: where the output cannot be written, or a model failed.
        """
        from tqdm import tqdm

        # As the model's own, so that a line's weights replace the command's lambda, and so on.
        model.options = model.options.updated(self._options)
        began = time.monotonic()
        bar = tqdm(
            total=len(self._items), initial=self._before, unit="line", disable=None,
            leave=False, dynamic_ncols=True,
        )  # fmt: skip
        try:
            with bar, interrupts.during():
                self._run(model, interrupts, bar)
        finally:
            self._seconds = time.monotonic() - began
            if interrupts.count:
                bar.close()
                note = f"stopped with {self._output.done:,} of {len(self._items):,} lines written"
                hint = "; the same command goes on from there" if self._output.can_go_on else ""
                click.echo(f"eftlocal: {note}{hint}", err=True)

    def _run(self, model: FusedModel, interrupts: Interrupts, bar: tqdm[Any]) -> None:
        from ..batch import run_batch

        writer = Writer(self._manner, model.name, model.options.seed)
        ahead = AHEAD * model.runtime.parallel
        refresh = _Seldom(bar.refresh)

        def may_start() -> bool:
            interrupts.check()
            refresh()
            return self._started < self._output.done + ahead

        # Closed before the model is, whatever happens here.
        with closing(run_batch(model, self._jobs(model), may_start)) as outcomes:
            self._write(outcomes, writer, bar)

    def _write(self, ended: Iterable[tuple[int, Outcome]], writer: Writer, bar: tqdm[Any]) -> None:
        """Write results as soon as all before them are written."""
        waiting: dict[int, dict[int, Outcome]] = {}
        owners = list(self._texts())
        for job, outcome in ended:
            place, sample = owners[job]
            waiting.setdefault(place, {})[sample] = outcome
            if not isinstance(outcome, EftlocalError):
                self._n_tokens += len(outcome.tokens)
            while (found := waiting.get(done := self._output.done)) is not None:
                item = self._items[done]
                if len(found) < len(item.samples):
                    break
                del waiting[done]
                outcomes = [found[i] for i in item.samples]
                self._output.write(writer.text(item, outcomes), error_of(outcomes) is not None)
                bar.update()

    def _texts(self) -> Iterator[tuple[int, int]]:
        """(item, sample) of every text that is not written yet, in order."""
        for place in range(self._before, len(self._items)):
            yield from ((place, sample) for sample in self._items[place].samples)

    def _jobs(self, model: FusedModel) -> Iterator[Job]:
        for place, sample in self._texts():
            self._started = place
            line = self._items[place].line
            yield partial(prepare, model, line, seed_of(line, sample, model.options.seed))

    def tell(self, name: str) -> None:
        """Say on stderr what was done."""
        done = self._output.done
        failed = f", {self._output.failed:,} of them errors" if self._output.failed else ""
        where = "written" if name == "-" else f"in {name}"
        parts = [f"{done:,} line{'' if done == 1 else 's'} {where}{failed}"]
        if self._before:
            parts.append(f"{self._before:,} were there already")
        if self._n_tokens:
            rate = self._n_tokens / max(self._seconds, 1e-9)
            parts.append(
                f"{self._n_tokens:,} tokens in {self._seconds:,.1f} s, {rate:,.1f} tokens/s"
            )
        click.echo(f"eftlocal: {'; '.join(parts)}", err=True)


class _Seldom:
    """Calls a function at most once a second."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self._next = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _REDRAW_SECONDS
            self._action()
