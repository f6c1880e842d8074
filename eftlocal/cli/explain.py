"""`eftlocal explain`: a reply, and what every model wanted at each of its tokens."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..errors import UsageError
from .complete import text_prompt
from .delivery import check_fused, deliver, run_with_model
from .interrupts import Interrupts
from .options import Arguments, SectionCommand, check_text, model_options, option
from .output import json_text, plain_text, styled, terminal_width, timing_lines, wants_color
from .pages import check_page, write_page
from .session import PrefillProgress
from .tracing import make_traced, open_trace, recorded, trace_option

if TYPE_CHECKING:
    from .. import FusedModel, Stream
    from ..explain import Recorder, Reply, TraceWriter
    from ..explain.analysis import Changes

_EPILOG = """\b
Examples:
  eftlocal explain "What is the capital of Chile?"
  eftlocal explain --alpha dynamic --by alpha "What is the capital of Chile?"
  eftlocal explain --html reply.html "What is the capital of Chile?"
  eftlocal explain --raw --max-tokens 20 "The capital of Chile is"
  eftlocal chat --trace trace.jsonl
  eftlocal explain --from trace.jsonl
  eftlocal explain --from trace.jsonl --alpha 0.5

Total variation is half of the sum of |fused - tuned| over the vocabulary, from 0 (the two agree) to
1. "From" in the table says who decided: agreement, base, delta, fusion or sampling.
"""

_WITH_SAVED = {"by", "rows", "html", "as_json", "source", "reply", "alpha", "color", "verbose"}
_PROMPT_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What the options of `explain` alone say."""

    prompt: str | None
    raw: bool
    system_prompt: str | None
    by: str
    rows: int
    html: str | None
    as_json: bool
    trace: str | None
    source: str | None
    reply: int | None


@click.command(cls=SectionCommand, epilog=_EPILOG)
@click.argument("prompt", required=False)
@option("--raw", is_flag=True, envvar=None, help="Continue PROMPT as it is, without a template.")
@option("--system-prompt", "-s", metavar="TEXT", help="Text that the reply should obey.")
@option(
    "--by",
    type=click.Choice(["total-variation", "alpha"]),
    default="total-variation",
    help="What colours mean.  [default: total-variation]",
)
@option("--rows", type=click.IntRange(0), default=8, help="Tokens in the table.  [default: 8]")
@option("--html", metavar="FILE", envvar=None, help="Write a page that shows all details, too.")
@option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object instead.")
@trace_option()
@option(
    "--from",
    "source",
    metavar="FILE",
    envvar=None,
    help="Draw a reply of a trace file; no model is loaded. --alpha X then says what another, "
    "fixed alpha would have changed.",
)
@option(
    "--reply",
    type=click.IntRange(1),
    envvar=None,
    help="With --from: which reply of the file, from 1; the last without it.",
)
@model_options
def explain(arguments: Arguments, **given: Any) -> None:
    """Answer PROMPT, and show what every model wanted at each token.

    The reply is coloured by how far the fused distribution is from the tuned model's, and the
    tokens that fusing changed most are listed with every model's own choice. The prompt may also
    come from standard input.
    """
    wishes = _Wishes(**given)
    if wishes.html is not None:
        check_page(Path(wishes.html))
    if wishes.source is not None:
        _explain_saved(wishes, arguments)
        return
    if wishes.reply is not None:
        raise UsageError("--reply chooses from a trace file; give --from FILE, too")
    if wishes.raw and _is_typed("system_prompt"):
        raise UsageError("give --raw or --system-prompt, not both: a raw text has no template")
    prompt = text_prompt(wishes.prompt, "PROMPT, --from")
    with open_trace(wishes.trace) as writer:
        _explain_new(wishes, arguments, prompt, writer)


def _explain_new(
    wishes: _Wishes, arguments: Arguments, prompt: str, writer: TraceWriter | None
) -> None:
    """Generate a reply and show it.

    Raises:
        UsageError: where one part is to speak alone.
        KeyboardInterrupt: after Ctrl-C; what there was by then is shown.
    """
    from ..explain import record

    check_fused(arguments, "explain")

    def work(model: FusedModel, interrupts: Interrupts) -> None:
        make_traced(model)
        kept: list[Recorder] = []

        def start(on_prefill: PrefillProgress | None) -> Stream:
            stream = _start(model, wishes, prompt, arguments, on_prefill)
            kept.append(record(model, stream))
            return stream

        completion = deliver(recorded(start, model, writer), None, interrupts)
        if completion.tokens:
            _show(kept[0].reply(), wishes, arguments, None)
        if arguments.verbose:
            click.echo(
                "\n".join(timing_lines(completion, model.load_seconds, model.can_draft)), err=True
            )
        if completion.finish_reason == "cancelled":
            raise KeyboardInterrupt

    run_with_model(arguments, work)


def _start(
    model: FusedModel,
    wishes: _Wishes,
    prompt: str,
    arguments: Arguments,
    on_prefill: PrefillProgress | None,
) -> Stream:
    if wishes.raw:
        return model.stream_complete(prompt, on_prefill=on_prefill, **arguments.generation)
    messages = [{"role": "user", "content": prompt}]
    if wishes.system_prompt is not None:
        system = check_text(wishes.system_prompt, "--system-prompt")
        messages.insert(0, {"role": "system", "content": system})
    return model.stream_chat(messages, on_prefill=on_prefill, **arguments.generation)


def _explain_saved(wishes: _Wishes, arguments: Arguments) -> None:
    """Show a reply of a trace file."""
    alpha = _saved_alpha(wishes, arguments)
    from ..explain import read_trace
    from ..explain.analysis import changes_at

    reply = _chosen(read_trace(wishes.source or ""), wishes)
    if reply.is_cut:
        click.echo("eftlocal: the last line of this reply is cut off and left out", err=True)
    changes = None if alpha is None else changes_at(reply, alpha)
    _show(reply, wishes, arguments, changes)


def _saved_alpha(wishes: _Wishes, arguments: Arguments) -> float | None:
    """Return the alpha to compare a saved reply with, None where none is given.

    Raises:
        UsageError: for options that say how a reply is generated, and an alpha that is no number.
    """
    for parameter in click.get_current_context().command.params:
        name = parameter.name or ""
        if name not in _WITH_SAVED and _is_typed(name):
            called = parameter.opts[0] if isinstance(parameter, click.Option) else "PROMPT"
            raise UsageError(f"--from draws a saved reply, so {called} has no meaning with it")
    if not _is_typed("alpha"):
        return None
    alpha = arguments.generation["alpha"]
    if isinstance(alpha, str):
        raise UsageError(f"--alpha {alpha} needs the models; with --from use a number")
    return float(alpha)


def _is_typed(name: str) -> bool:
    """Whether a parameter stands on the command line, not only in the environment."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def _chosen(replies: tuple[Reply, ...], wishes: _Wishes) -> Reply:
    n = len(replies)
    if wishes.reply is not None and wishes.reply > n:
        count = "1 reply" if n == 1 else f"{n} replies"
        raise UsageError(f"{wishes.source} has {count}; there is no --reply {wishes.reply}")
    return replies[(wishes.reply or n) - 1]


def _show(reply: Reply, wishes: _Wishes, arguments: Arguments, changes: Changes | None) -> None:
    """Print the drawing or the JSON, and write the page."""
    by_alpha = wishes.by == "alpha"
    if wishes.html is not None:
        from ..explain import page

        text = page(reply, by_alpha=by_alpha, rows=max(wishes.rows, 1), changes=changes)
        write_page(Path(wishes.html), text)
    if wishes.as_json:
        click.echo(json_text(_content(reply, changes)))
        return
    from .drawing import Look, draw

    color = wants_color(arguments.color, sys.stdout)
    look = Look(by=wishes.by, rows=wishes.rows, color=color, width=terminal_width())
    drawn = draw(reply, look, changes)
    prompt = " ".join(plain_text(reply.header.prompt).split())
    if len(prompt) > _PROMPT_CHARACTERS:
        prompt = "... " + prompt[-_PROMPT_CHARACTERS:]
    click.echo(styled(f"{reply.header.model}: {prompt}", "dim", color), color=True)
    click.echo("\n" + drawn, color=True)


def _content(reply: Reply, changes: Changes | None) -> dict[str, Any]:
    """What --json prints: the trace's lines as one object, with the summary."""
    from ..explain.analysis import summarise

    content: dict[str, Any] = {
        **reply.header.to_json(),
        "text": reply.text,
        "summary": asdict(summarise(reply)),
        "tokens": [token.to_json() for token in reply.tokens],
        "pieces": {str(token): text for token, text in sorted(reply.pieces.items())},
    }
    if changes is not None:
        places = [
            {
                "index": change.token.index,
                "likeliest": change.token.trace.fused.top,
                "new": change.new,
                "is_certain": change.is_certain,
            }
            for change in changes.places
        ]
        others = changes.open_places
        content["changes"] = {"alpha": changes.alpha, "places": places, "open_places": others}
    return content
