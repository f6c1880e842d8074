"""A chat without a terminal: a scripted user, and a session with three random models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import eftlocal
from eftlocal.cli.commands import handle
from eftlocal.cli.controller import Chat
from eftlocal.cli.options import Arguments
from eftlocal.cli.session import Deliver, Session, StartStream
from eftlocal.cli.state import autosave_file

from .conftest import Trio

CTX = 256
OPTIONS = {"max_tokens": 10, "seed": 5, "logit_bias": {2: -1000.0, 262: -1000.0}}


@dataclass
class ScriptedFace:
    """A user who answers from a script; keeps everything that was shown."""

    shown: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    agrees: bool = True
    editor: Callable[[str], str | None] = lambda text: None
    stop_after: int | None = None

    @property
    def deliver(self) -> Deliver:
        """Runs a reply; stops it after `stop_after` events, as Ctrl-C does."""
        return self._deliver

    def _deliver(self, start: StartStream) -> eftlocal.Completion:
        stream = start(None)
        if self.stop_after == 0:
            stream.cancel()
        for count, _ in enumerate(stream, 1):
            if count == self.stop_after:
                stream.cancel()
        return stream.completion

    def say(self, text: str) -> None:
        """Keep what was asked for."""
        self.shown.append(text)

    def note(self, text: str) -> None:
        """Keep a remark."""
        self.shown.append(text)

    def warn(self, text: str) -> None:
        """Keep an error."""
        self.warnings.append(text)

    def report(self, text: str) -> None:
        """Keep timings."""
        self.reports.append(text)

    def confirm(self, question: str) -> bool:
        """Agree, or not."""
        self.shown.append(question)
        return self.agrees

    def edit(self, text: str) -> str | None:
        """Change the text as the scripted editor does."""
        return self.editor(text)


def arguments_for(trio: Trio) -> Arguments:
    """The command line that names a trio's files."""
    files = {role: str(path) for role, path in trio._asdict().items()}
    return Arguments(None, None, files, {"threads": 1, "ctx": CTX}, {}, 0, "off")


def new_chat(trio: Trio, model: eftlocal.FusedModel) -> Chat:
    """A chat that is saved automatically and has said nothing yet."""
    session = Session(arguments_for(trio), Arguments.load, model)
    session.options = dict(OPTIONS)
    session.autosave = autosave_file()
    return Chat(session, ScriptedFace())


def face(chat: Chat) -> ScriptedFace:
    """The scripted user of a chat."""
    assert isinstance(chat.face, ScriptedFace)
    return chat.face


def say(chat: Chat, *inputs: str) -> str:
    """Enter some lines and return what the last one showed."""
    for text in inputs:
        face(chat).shown.clear()
        face(chat).warnings.clear()
        handle(chat, text)
    return "\n".join(face(chat).shown + face(chat).warnings)


def roles(chat: Chat) -> list[tuple[str, str]]:
    """The messages of the conversation in short."""
    return [(m["role"], m["content"]) for m in chat.session.conversation.messages()]


def replies(chat: Chat) -> list[str]:
    """The replies so far."""
    return [turn.reply for turn in chat.session.conversation.turns]
