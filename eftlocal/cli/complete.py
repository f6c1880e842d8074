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

if TYPE_CHECKING:
    from .. import FusedModel, Stream

_EPILOG = """\b
Examples:
  eftlocal complete "The capital of Chile is"
  eftlocal complete --alpha 0 --max-tokens 20 "The capital of Chile is"
  eftlocal complete --json - < prompt.txt
  eftlocal complete --base L.gguf --tuned S-chat.gguf --reference S.gguf "Once"

Options may also stand in the environment: EFTLOCAL_TEMPERATURE=0.7.
"""


@click.command(cls=SectionCommand, epilog=_EPILOG)
@click.argument("prompt", required=False)
@option("--tokens", metavar="IDS", envvar=None, help='Prompt as token ids: "1,2,3".')
@option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object at the end.")
@model_options
def complete(prompt: str | None, tokens: str | None, as_json: bool, arguments: Arguments) -> None:
    """Continue PROMPT as raw text, without a chat template.

    The prompt may also come from standard input (alone, or where PROMPT is -); one line end at its
    end is dropped.
    """
    given = _prompt(prompt, tokens)

    def work(model: FusedModel, interrupts: Interrupts) -> None:
        def start(on_prefill: PrefillProgress | None) -> Stream:
            return model.stream_complete(given, on_prefill=on_prefill, **arguments.generation)

        manner = OneShot(as_json=as_json, reply=False, verbose=arguments.verbose > 0)
        answer_once(model, start, manner, interrupts)

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
    if prompt is not None and prompt != "-":
        return check_text(prompt, "PROMPT")
    if prompt is None and sys.stdin.isatty():
        raise UsageError("no prompt: give PROMPT, --tokens, or pipe a text")
    text = read_piped_text(terminal=prompt == "-")
    if not text:
        raise UsageError("no prompt: standard input is empty")
    return text


def _token_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise UsageError(f"--tokens {text!r}: use token ids such as 1,2,3") from None
