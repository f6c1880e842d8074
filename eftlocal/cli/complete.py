"""`eftlocal complete`: continue a raw text, without a chat template."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from .delivery import OneShot, answer_once, run_with_model
from .interrupts import Interrupts
from .options import Arguments, SectionCommand, check_text, model_options, option, read_piped_text
from .session import PrefillProgress
from .tracing import make_traced, open_trace, recorded, trace_option

if TYPE_CHECKING:
    from .. import FusedModel, Stream

_EPILOG = """\b
Examples:
  eftlocal complete "The capital of Chile is"
  eftlocal complete --alpha 0 --max-tokens 20 "The capital of Chile is"
  eftlocal complete --json - < prompt.txt
  eftlocal complete --trace trace.jsonl "The capital of Chile is"
  eftlocal complete --base L.gguf --tuned S-chat.gguf --reference S.gguf "Once"

Options may also stand in the environment: EFTLOCAL_TEMPERATURE=0.7.
"""


@click.command(cls=SectionCommand, epilog=_EPILOG)
@click.argument("prompt", required=False)
@option("--tokens", metavar="IDS", envvar=None, help='Prompt as token ids: "1,2,3".')
@option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object at the end.")
@trace_option()
@model_options
def complete(
    prompt: str | None, tokens: str | None, as_json: bool, trace: str | None, arguments: Arguments
) -> None:
    """Continue PROMPT as raw text, without a chat template.

    The prompt may also come from standard input (alone, or where PROMPT is -); one line end at its
    end is dropped.
    """
    given = _prompt(prompt, tokens)

    def work(model: FusedModel, interrupts: Interrupts) -> None:
        def start(on_prefill: PrefillProgress | None) -> Stream:
            return model.stream_complete(given, on_prefill=on_prefill, **arguments.generation)

        if writer is not None:
            make_traced(model)
        manner = OneShot(as_json=as_json, reply=False, verbose=arguments.verbose > 0)
        answer_once(model, recorded(start, model, writer), manner, interrupts)

    with open_trace(trace) as writer:
        run_with_model(arguments, work)


def _prompt(prompt: str | None, tokens: str | None) -> str | list[int]:
    """Return the prompt that the command line or standard input gives.

    Raises:
        UsageError: if there is none, or two.
    """
    if tokens is not None:
        if prompt is not None:
            raise UsageError("give PROMPT or --tokens, not both")
        return _token_ids(tokens)
    return text_prompt(prompt, "PROMPT, --tokens")


def text_prompt(prompt: str | None, ways: str) -> str:
    """Return the text that PROMPT gives, or standard input where there is none or it is -.

    Raises:
        UsageError: if there is none; `ways` names what could be given.
    """
    if prompt is not None and prompt != "-":
        return check_text(prompt, "PROMPT")
    if prompt is None and sys.stdin.isatty():
        raise UsageError(f"no prompt: give {ways}, or pipe a text")
    text = read_piped_text(terminal=prompt == "-")
    if not text:
        raise UsageError("no prompt: standard input is empty")
    return text


def _token_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise UsageError(f"--tokens {text!r}: use token ids such as 1,2,3") from None
