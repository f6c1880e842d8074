"""`eftlocal chat`: a conversation in the terminal, or one answer to a prompt."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ..errors import UsageError
from ..options import GenerationOptions
from .conversation import Conversation
from .delivery import OneShot, answer_once, load_model, run_with_model
from .interrupts import Interrupts
from .options import Arguments, SectionCommand, check_text, model_options, option, read_piped_text
from .session import Session
from .state import SavedChat, autosave_file, last_chat, read_chat, read_text, remove_old_chats
from .thinking import think_option
from .tracing import TracedSession, make_traced, open_trace, trace_option

if TYPE_CHECKING:
    from .. import Completion, FusedModel
    from ..explain import TraceWriter
    from .session import StartStream

_EPILOG = """\b
Examples:
  eftlocal chat
  eftlocal chat "What is the capital of Chile?"
  cat notes.txt | eftlocal chat "Summarise this."
  eftlocal chat -s "You are curt." --temperature 0.8 --seed 7
  eftlocal chat --continue
  eftlocal chat --trace trace.jsonl
  eftlocal chat --base L.gguf --tuned S-chat.gguf --reference S.gguf

Options may also stand in the environment: EFTLOCAL_TEMPERATURE=0.7. The seed of a reply is
seed + turn (from 0) + 1,000,003 times the number of /regen for it.
"""


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What the options of `chat` alone say; `system` is None where none is given."""

    system: str | None
    trace: str | None
    think: str | None
    resume: bool
    keep_history: bool
    as_json: bool


@click.command(cls=SectionCommand, epilog=_EPILOG)
@click.argument("prompt", required=False)
@option("--system-prompt", "-s", metavar="TEXT", help="Text that every reply should obey.")
@option("--system-prompt-file", metavar="FILE", help="Read the system prompt from a file.")
@option(
    "--continue",
    "-c",
    "resume",
    is_flag=True,
    envvar=None,
    help="Go on with the last conversation.",
)
@option("--no-history", is_flag=True, help="Keep neither what is typed nor the conversation.")
@option(
    "--json",
    "as_json",
    is_flag=True,
    envvar=None,
    help="With a prompt: print one JSON object at the end.",
)
@think_option()
@trace_option()
@model_options
def chat(
    prompt: str | None,
    system_prompt: str | None,
    system_prompt_file: str | None,
    think: str | None,
    trace: str | None,
    arguments: Arguments,
    **flags: bool,
) -> None:
    """Talk to the fused model; with PROMPT answer once and exit.

    Text that is piped into standard input goes before PROMPT, or is the prompt; - reads it from
    a terminal too.
    """
    system = _system_prompt(system_prompt, system_prompt_file)
    resume, keep_history, as_json = flags["resume"], not flags["no_history"], flags["as_json"]
    wishes = _Wishes(system, trace, think, resume, keep_history, as_json)
    interactive = prompt is None and sys.stdin.isatty()
    question = "" if interactive else _question(prompt)
    if interactive and (as_json or not sys.stdout.isatty()):
        raise UsageError("a conversation needs a terminal; give a PROMPT for one answer")
    arguments, saved, path = _resumed(arguments, wishes)
    trouble = ""
    # Scripts do not fill the list of conversations; one that was asked for is kept in any case.
    if path is None and wishes.keep_history and (interactive or sys.stdout.isatty()):
        path, trouble = _new_autosave()

    def work(model: FusedModel, interrupts: Interrupts) -> None:
        def reload(wanted: Arguments) -> FusedModel:
            return _prepared(load_model(wanted, interrupts), writer)

        kind = Session if writer is None else TracedSession
        model = _prepared(model, writer)
        session = kind(arguments, reload, model, saved.conversation, dict(saved.options))
        session.autosave, session.trouble = path, trouble
        session.think = wishes.think
        if isinstance(session, TracedSession):
            session.writer = writer
        try:
            if interactive:
                _converse(session, interrupts, wishes, saved.unanswered)
            else:
                _answer(session, question, wishes, interrupts)
        finally:
            # /model may have put another one in the place of the first.
            session.model.close()

    with open_trace(wishes.trace) as writer:
        run_with_model(arguments, work)


def _prepared(model: FusedModel, writer: TraceWriter | None) -> FusedModel:
    """Have a model's replies traced, where there is a trace to write."""
    if writer is not None:
        make_traced(model)
    return model


def _system_prompt(text: str | None, file: str | None) -> str | None:
    """Return the system prompt of the command line; a flag wins over the environment."""
    if text is not None and file is not None:
        context = click.get_current_context()
        names = ("system_prompt", "system_prompt_file")
        flags = [
            context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in names
        ]
        if flags[0] == flags[1]:
            raise UsageError("give --system-prompt or --system-prompt-file, not both")
        text, file = (text, None) if flags[0] else (None, file)
    if file is not None:
        return read_text(Path(file)).strip()
    return None if text is None else check_text(text, "--system-prompt")


def _question(prompt: str | None) -> str:
    """Return the piped text and the prompt as one message.

    Raises:
        UsageError: if both are empty.
    """
    piped = read_piped_text(terminal=prompt == "-")
    prompt = None if prompt == "-" else prompt
    text = "\n\n".join(part for part in (piped, prompt or "") if part.strip())
    if not text:
        raise UsageError("nothing to ask: give a PROMPT, or pipe a text")
    return check_text(text, "PROMPT")


def _resumed(arguments: Arguments, wishes: _Wishes) -> tuple[Arguments, SavedChat, Path | None]:
    """Return arguments, conversation and its file, as --continue and the flags say."""
    path, saved = None, SavedChat(Conversation())
    if wishes.resume:
        last = last_chat()
        if last is None:
            raise UsageError("there is no conversation to continue yet")
        saved = read_chat(last)
        path = last if wishes.keep_history else None
        if not arguments.names_model:
            arguments = replace(arguments, entry=saved.entry, files=saved.files)
    if wishes.system is not None:
        saved.conversation.system = wishes.system
    options = dict(saved.options)
    if arguments.generation.keys() & {"weight", "lambda_"}:
        # One of them replaces the other.
        options = {k: v for k, v in options.items() if k not in ("weight", "lambda_")}
    options |= arguments.generation
    GenerationOptions().updated(options)
    return arguments, replace(saved, options=options), path


def _new_autosave() -> tuple[Path | None, str]:
    """Return a file for the conversation, or why there is none; a chat goes on without it."""
    try:
        return autosave_file(), ""
    except OSError as error:
        return None, f"the conversation is not kept for --continue: {error}"


def _answer(session: Session, question: str, wishes: _Wishes, interrupts: Interrupts) -> None:
    """Print one answer."""
    arguments = session.arguments
    manner = OneShot(wishes.as_json, True, arguments.verbose > 0, wishes.think, arguments.color)

    def deliver(start: StartStream) -> Completion:
        return answer_once(session.model, start, manner, interrupts)

    session.ask(question, deliver)


def _converse(session: Session, interrupts: Interrupts, wishes: _Wishes, draft: str) -> None:
    """Read and answer until the user leaves."""
    from .commands import describe_model, handle
    from .controller import Chat
    from .terminal import Terminal, terminal_echo

    terminal = Terminal(session, interrupts, wishes.keep_history)
    chat = Chat(session, terminal, session.arguments.verbose > 0, draft)
    terminal.note(describe_model(chat))
    chat.show_trouble()
    if wishes.resume:
        chat.recap()
    with terminal_echo(False):
        while not chat.leaving:
            draft, chat.draft = chat.draft, ""
            try:
                text = terminal.read(draft)
            except EOFError:
                break
            handle(chat, text)
            if interrupts.count > 1:
                # Ctrl-C again, because the engine took long to stop: the user wants to leave.
                raise KeyboardInterrupt
    remove_old_chats()
