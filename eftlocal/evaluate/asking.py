"""What is asked where no judge is needed: conversations, and what belongs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .answering import Conversation, ask
from .questions import Question, read_questions
from .study import Setting
from .systems import FAMILY


@dataclass(frozen=True)
class Asked:
    """A conversation that a reply is wanted for.

    Attributes:
        conversation: its messages.
        cluster: those with the same name stand or fall together in the bootstrap.
        subject: what it is about, in one word.
        answers: texts that a reply should hold, where somebody knows.
    """

    conversation: Conversation
    cluster: str
    subject: str = ""
    answers: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Its last message."""
        return self.conversation[-1]["content"]


def own(conversations: Sequence[Conversation]) -> tuple[Asked, ...]:
    """People's own conversations; each stands alone."""
    return tuple(Asked(one, f"{i}") for i, one in enumerate(conversations))


def chosen(asked: Sequence[Asked] | None, thin: int, setting: Setting) -> list[Asked]:
    """What is asked: these, or every `thin`-th question of the embedded family; then thinned."""
    if asked is None:
        asked = [
            Asked(ask(q.question), f"{q.subject}/{q.entity}", q.subject, tuple(q.answers))
            for q in read_questions(FAMILY / "questions.jsonl", Question)
        ][::thin]
    return list(asked[:: setting.every])
