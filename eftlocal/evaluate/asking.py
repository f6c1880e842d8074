"""What is asked where no judge is needed: conversations, and what belongs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .answering import Conversation, ask
from .prompt_sets import Prompt
from .questions import Question, read_questions
from .store import file_digest
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


def own(prompts: Sequence[Prompt]) -> tuple[Asked, ...]:
    """The first turns of people's own prompts; each stands alone."""
    return tuple(
        Asked(one.conversation, f"{i}", one.category, one.answers) for i, one in enumerate(prompts)
    )


def family_asked() -> tuple[Asked, ...]:
    """The questions of the embedded family; those on one thing belong together."""
    return tuple(
        Asked(ask(q.question), f"{q.subject}/{q.entity}", q.subject, tuple(q.answers))
        for q in read_questions(FAMILY / "questions.jsonl", Question)
    )


def chosen(asked: Sequence[Asked] | None, thin: int, setting: Setting) -> list[Asked]:
    """What is asked: these, or every `thin`-th question of the embedded family; then thinned."""
    if asked is None:
        asked = family_asked()[::thin]
    return list(asked[:: setting.every])


def shortened(text: str, most: int) -> str:
    """The first line of a text with so many characters at most; "..." stands for what is left."""
    first, *more = text.strip().splitlines() or [""]
    line = " ".join(first.split())
    if len(line) <= most and not more:
        return line
    return line[: most - 3].rstrip() + "..."


def named(files: Mapping[str, Path]) -> str:
    """Names of files and what tells their content from others': "base large.gguf 0a1b2c3d; ...".

    Args:
        files: what a file is -> where it is.

    Raises:
        EftlocalError: where one cannot be read.
    """
    return "; ".join(f"{k} {path.name} {file_digest(path)[:8]}" for k, path in files.items())
