"""Runs a stream in the terminal: text as it comes, progress of a long prompt, Ctrl-C."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from .downloads import offer
from .interrupts import Interrupts
from .output import (
    Progress,
    ReplyWriter,
    completion_json,
    context_full_note,
    timing_lines,
    wants_color,
)
from .thinking import ThinkingWriter, think_style, unfinished_note

if TYPE_CHECKING:
    from collections.abc import Callable

    from .. import Completion, FusedModel
    from .options import Arguments
    from .session import StartStream

_LOADING_DELAY = 0.3
_PREFILL_DELAY = 0.5
_GENERATING_DELAY = 0.5


def check_fused(arguments: Arguments, command: str) -> None:
    """Check that no model is to speak alone, for a command that is about the fused model.

    Raises:
        UsageError, RegistryError: as `Arguments.check` does, and for such a part.
    """
    part = arguments.check().part
    if part != "fused":
        raise UsageError(
            f"part = {part} is not allowed here: {command} is about the fused model; use fused"
        )


def load_model(arguments: Arguments, interrupts: Interrupts) -> FusedModel:
    """Load a model under one progress bar.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once what was loaded is freed.
    """
    bar = Progress(f"loading {arguments.label}", _LOADING_DELAY)

    def progress(share: float) -> None:
        interrupts.check()
        bar.update(share, 1.0)

    with interrupts.during():
        try:
            model = arguments.load(progress)
        finally:
            bar.clear()
        if interrupts.count:
            model.close()
        interrupts.check()
    return model


def deliver(start: StartStream, writer: ReplyWriter | None, interrupts: Interrupts) -> Completion:
    """Run one completion to its end and print its text with `writer`, or else count its tokens.

    Ctrl-C cancels the stream, and the completion says so.
    """
    bar = Progress("reading the prompt", _PREFILL_DELAY, "tokens")
    bar.update(0, 0)
    counter = Progress("generating", _GENERATING_DELAY, "tokens")

    def progress(done: int, total: int) -> None:
        # Once the prompt is read, the wait is for the first token.
        if done < total:
            bar.update(done, total)
        else:
            bar.clear()

    with interrupts.during():
        stream = start(progress)
        if writer is not None:
            writer.begin(stream.thinking_opened)
        interrupts.cancel_with(stream.cancel)
        try:
            for count, event in enumerate(stream, 1):
                bar.clear()
                if writer is not None:
                    writer.write(event.text)
                else:
                    counter.update(count, 0)
        finally:
            bar.clear()
            counter.clear()
            # After an error while printing nobody else would end the generation.
            stream.cancel()
            if writer is not None:
                writer.finish()
    return stream.completion


@dataclass(frozen=True, slots=True)
class OneShot:
    """How one text is printed: as JSON, as a chat's reply or as it is, with timings.

    Attributes:
        think: what the user asked for with --think; only for a reply.
        color: what --color says.
    """

    as_json: bool
    reply: bool
    verbose: bool
    think: str | None = None
    color: str = "auto"


def answer_once(
    model: FusedModel, start: StartStream, manner: OneShot, interrupts: Interrupts
) -> Completion:
    """Generate one completion and print it; remarks go to stderr.

    Raises:
        KeyboardInterrupt: after Ctrl-C; what there was by then is printed.
    """
    writer = None if manner.as_json else _writer(model, manner)
    completion = deliver(start, writer, interrupts)
    if manner.as_json:
        click.echo(completion_json(completion, model.load_seconds, manner.reply))
    elif manner.reply and (note := unfinished_note(completion)):
        click.echo(f"eftlocal: {note}", err=True)
    if completion.context_full:
        remedy = "a shorter prompt or a larger --ctx makes room"
        click.echo(f"eftlocal: {context_full_note(completion, model.n_ctx, remedy)}", err=True)
    if manner.verbose:
        click.echo(
            "\n".join(timing_lines(completion, model.load_seconds, model.can_draft)), err=True
        )
    if completion.finish_reason == "cancelled":
        raise KeyboardInterrupt
    return completion


def _writer(model: FusedModel, manner: OneShot) -> ReplyWriter:
    """Return what prints a text on standard output."""
    if not manner.reply:
        return ReplyWriter(sys.stdout, reply=False)
    style = think_style(manner.think, model, sys.stdout)
    return ThinkingWriter(sys.stdout, style, wants_color(manner.color, sys.stdout))


def run_with_model(arguments: Arguments, work: Callable[[FusedModel, Interrupts], None]) -> None:
    """Load a model, do `work` with it, and close it, with Ctrl-C deferred throughout.

    Files that are missing are offered for download first.
    """
    offer(arguments)
    with Interrupts() as interrupts:
        model = load_model(arguments, interrupts)
        with model:
            work(model, interrupts)
