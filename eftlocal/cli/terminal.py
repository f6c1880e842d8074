"""The interactive prompt: prompt_toolkit's line editor, its keys, and what a chat prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import fill
from typing import TYPE_CHECKING

import click
from prompt_toolkit import PromptSession, prompt
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from ..errors import UsageError
from .completer import SlashCompleter
from .delivery import deliver
from .interrupts import Interrupts
from .output import styled, terminal_width, wants_color
from .state import history_file
from .thinking import ThinkingWriter, think_style

if TYPE_CHECKING:
    from .. import Completion
    from .session import Deliver, Session, StartStream

PROMPT = ">>> "
_QUOTES = '"""'
_LEAVE_HINT = "Ctrl-D or /exit leaves; Ctrl-C stops a reply."
_STYLE = Style.from_dict({"prompt": "bold", "placeholder": "ansibrightblack"})


class Terminal:
    """The face of an interactive chat.

    Args:
        session: completed commands and parameters come from it.
        interrupts: active while the chat runs.
        keep_history: whether what is typed goes to the history file.
    """

    def __init__(self, session: Session, interrupts: Interrupts, keep_history: bool) -> None:
        choice = session.arguments.color
        self._color = wants_color(choice, sys.stdout)
        self._error_color = wants_color(choice, sys.stderr)
        self._session = session
        self._interrupts = interrupts
        self._replied = False
        typing_command = Condition(lambda: self._prompts.default_buffer.text.startswith("/"))
        self._prompts: PromptSession[str] = PromptSession(
            message=FormattedText([("class:prompt", PROMPT)]),
            prompt_continuation=lambda width, line, wrapped: "" if wrapped else "... ",
            multiline=True,
            history=self._history(keep_history),
            completer=SlashCompleter(session),
            # Only then, because the menu reserves lines below the prompt.
            complete_while_typing=typing_command,
            key_bindings=_keys(),
            style=_STYLE if self._color else None,
            color_depth=None if self._color else ColorDepth.DEPTH_1_BIT,
            enable_open_in_editor=True,
            enable_suspend=True,
        )

    def _history(self, keep: bool) -> History:
        """Return the history of earlier chats too, or of this one alone."""
        if not keep:
            return InMemoryHistory()
        try:
            path = history_file()
            path.touch(mode=0o600)
            with path.open("rb+"):
                return FileHistory(path)
        except OSError as error:
            self.warn(f"what you type is not kept: {error.filename}: {error.strerror}")
            return InMemoryHistory()

    def read(self, draft: str = "") -> str:
        """Return what the user enters, starting from `draft`.

        Raises:
            EOFError: when the user leaves with Ctrl-D.
        """
        if self._replied:
            click.echo()
            self._replied = False
        return self._prompts.prompt(default=draft, placeholder=self._hint)

    def _hint(self) -> FormattedText:
        """Return what an empty prompt shows; nothing once the line is left behind."""
        visible = self._color and not self._prompts.app.is_done
        text = "Send a message (/? for help)" if visible else ""
        return FormattedText([("class:placeholder", text)])

    @property
    def deliver(self) -> Deliver:
        """Shows a reply while it is generated."""
        return self._deliver

    def _deliver(self, start: StartStream) -> Completion:
        self._replied = True
        style = think_style(self._session.think, self._session.model, sys.stdout)
        return deliver(start, ThinkingWriter(sys.stdout, style, self._color), self._interrupts)

    def say(self, text: str) -> None:
        """Print what was asked for."""
        click.echo(text)

    def note(self, text: str) -> None:
        """Print a remark."""
        click.echo(styled(_wrapped(text), "dim", self._color), color=True)

    def warn(self, text: str) -> None:
        """Print what went wrong to stderr."""
        click.echo(styled(_wrapped(text), "red", self._error_color), err=True, color=True)

    def report(self, text: str) -> None:
        """Print timings to stderr."""
        click.echo(styled(text, "dim", self._error_color), err=True, color=True)

    def confirm(self, question: str) -> bool:
        """Ask; everything but y and yes is no."""
        try:
            return prompt(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        except (EOFError, KeyboardInterrupt):
            return False

    def edit(self, text: str) -> str | None:
        """Return the text as changed in $VISUAL or $EDITOR; None if neither is set."""
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
        if not editor:
            return None
        try:
            with terminal_echo(True):
                edited = click.edit(text, editor=editor, extension=".txt", require_save=False)
        except click.ClickException as error:
            raise UsageError(error.format_message()) from None
        return (edited or "").rstrip("\n")


def _wrapped(text: str) -> str:
    """Return a remark in lines that fit the terminal, without cutting paths."""
    return fill(text, terminal_width() - 1, break_long_words=False, break_on_hyphens=False)


def is_open(text: str) -> bool:
    '''Return whether a """ still waits for its end, so that Enter begins a new line.'''
    return text.lstrip().startswith((_QUOTES, "/")) and text.count(_QUOTES) % 2 == 1


def _keys() -> KeyBindings:
    """Return the keys that differ from prompt_toolkit's defaults."""
    keys = KeyBindings()
    at_prompt = has_focus(DEFAULT_BUFFER)

    @keys.add("enter", filter=at_prompt)
    def _enter(event: KeyPressEvent) -> None:
        if is_open(event.current_buffer.text):
            event.current_buffer.insert_text("\n")
        else:
            event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=at_prompt)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-g", filter=at_prompt)
    def _editor(event: KeyPressEvent) -> None:
        event.current_buffer.open_in_editor()

    @keys.add("c-c", filter=at_prompt)
    @keys.add("<sigint>")
    def _interrupt(event: KeyPressEvent) -> None:
        buffer = event.app.current_buffer
        if buffer.text:
            # Unlike reset() this leaves the line to undo (Ctrl-_).
            buffer.save_to_undo_stack()
            buffer.text = ""
        else:
            run_in_terminal(lambda: click.echo(_LEAVE_HINT))

    return keys


@contextmanager
def terminal_echo(on: bool) -> Iterator[None]:
    """Let the terminal show keys as they are pressed, or keep them for the next prompt unseen.

    Otherwise what is typed during a reply would stand in the middle of it.
    """
    try:
        import termios

        before = termios.tcgetattr(0)
    except (ImportError, OSError):  # Windows, or no terminal
        yield
        return
    changed = list(before)
    flags = termios.ECHO | termios.ICANON
    changed[3] = before[3] | flags if on else before[3] & ~flags
    termios.tcsetattr(0, termios.TCSANOW, changed)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSANOW, before)
