"""What happens around a reply in a chat: sending, sending again, and what is said after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..errors import ContextFull, EftlocalError
from .output import context_full_note, plain_text, timing_lines
from .session import Deliver, Session
from .thinking import unfinished_note

if TYPE_CHECKING:
    from .. import Completion

ROOM = "/undo or /clear makes room, --ctx at the start makes it larger"
_RECAP_CHARACTERS = 400


class Face(Protocol):
    """How a chat talks to its user."""

    @property
    def deliver(self) -> Deliver:
        """Runs a reply and shows it as it comes."""

    def say(self, text: str) -> None:
        """Show what was asked for."""

    def note(self, text: str) -> None:
        """Show a remark."""

    def warn(self, text: str) -> None:
        """Show what went wrong."""

    def report(self, text: str) -> None:
        """Show timings."""

    def confirm(self, question: str) -> bool:
        """Ask a question; True is yes."""

    def edit(self, text: str) -> str | None:
        """Return the text as changed in the user's editor; None if no editor is set."""


@dataclass(slots=True)
class Chat:
    """What commands and messages work on.

    Attributes:
        draft: text that the next prompt begins with.
        leaving: whether the chat is over.
    """

    session: Session
    face: Face
    verbose: bool = False
    draft: str = ""
    leaving: bool = False

    def send(self, text: str) -> None:
        """Send a message; if it gets no reply it is offered for editing."""
        self._reply(text, lambda: self.session.ask(text, self.face.deliver))

    def regenerate(self) -> None:
        """Ask for the last reply again, with other noise."""
        self.session.last_turn()
        if self.session.settings.temperature == 0:
            self.face.note(
                "temperature is 0, so the same settings give the same text; "
                "/set parameter temperature 0.8 makes it vary"
            )
        self._reply("", lambda: self.session.regenerate(self.face.deliver))

    def _reply(self, text: str, run: Callable[[], Completion]) -> None:
        try:
            completion = run()
        except ContextFull as error:
            self.draft = text
            self.face.warn(f"{error}; /undo or /clear makes room")
        except EftlocalError:
            self.draft = text
            raise
        else:
            self._comment(completion, text)

    def _comment(self, completion: Completion, text: str) -> None:
        """Say what the reply's text does not show."""
        if completion.finish_reason == "cancelled" and not completion.tokens:
            self.draft = text
            self.face.note("[stopped before the reply began]")
            return
        if completion.finish_reason == "cancelled":
            self.face.note("[stopped]")
        elif completion.context_full:
            self.face.warn(context_full_note(completion, self.session.model.n_ctx, ROOM))
        elif completion.finish_reason == "length":
            self.face.note(f"[cut at max_tokens = {self.session.settings.max_tokens}]")
        elif not (completion.answer.strip() or completion.thinking):
            self.face.note("[empty reply]")
        if note := unfinished_note(completion):
            self.face.note(f"[{note}]")
        if self.verbose:
            first = self.session.totals.replies == 1
            load_seconds = self.session.model.load_seconds if first else None
            self.face.report(
                "\n".join(timing_lines(completion, load_seconds, self.session.model.can_draft))
            )

    def show_trouble(self) -> None:
        """Say once why the conversation is not saved."""
        if self.session.trouble:
            self.face.warn(self.session.trouble)
            self.session.trouble = ""

    def recap(self) -> None:
        """Show how a loaded conversation ended."""
        turns = self.session.conversation.turns
        count = f"{len(turns)} turn{'' if len(turns) == 1 else 's'}"
        self.face.note(f"[continuing a conversation of {count}]")
        if turns:
            self.face.note(f">>> {clipped(turns[-1].user)}")
            self.face.say(clipped(turns[-1].reply) + "\n")


def clipped(text: str, size: int = _RECAP_CHARACTERS) -> str:
    """Return the text of a message for display: no control characters, not too long."""
    text = plain_text(text).strip()
    return text if len(text) <= size else text[:size].rstrip() + " ..."
