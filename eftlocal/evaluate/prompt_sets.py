"""Sets of prompts: files of JSON lines, and the embedded family's questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PromptError, UsageError
from ..prompts import check_messages
from ..textfiles import filled_lines, json_value, read_text
from .questions import Question, read_questions
from .store import digest
from .systems import FAMILY

ATLAS = "atlas"
"""Names the embedded family's questions in place of a file."""

_FORMS = ("turns", "prompt", "question", "messages")
Message = dict[str, str]


@dataclass(frozen=True)
class Prompt:
    """What a system is asked, turn by turn.

    Attributes:
        name: an id for people.
        turns: what the user says; every turn but the first follows the system's own reply.
        opening: messages before the first turn.
        category: "" where the set has none.
        references: per turn what a judge of facts is shown as known to be true; "" for nothing.
        answers: texts of which a reply to the first turn should hold one, where the set has them.
    """

    name: str
    turns: tuple[str, ...]
    opening: tuple[tuple[str, str], ...] = ()
    category: str = ""
    references: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Names what is asked, whatever the prompt is called."""
        return digest([list(map(list, self.opening)), list(self.turns)])

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The messages up to the first turn."""
        before = [{"role": role, "content": content} for role, content in self.opening]
        return (*before, {"role": "user", "content": self.turns[0]})

    def reference(self, turn: int) -> str:
        """What is known to be true about a turn (from 0)."""
        return self.references[turn] if turn < len(self.references) else ""


def prompts_of(source: str) -> tuple[Prompt, ...]:
    """The prompts of a file, or of the set `ATLAS`.

    Raises:
        UsageError: as `read_prompts` does.
    """
    return atlas_prompts() if source == ATLAS else read_prompts(Path(source))


def atlas_prompts() -> tuple[Prompt, ...]:
    """The embedded family's questions, with their accepted answers."""
    questions = read_questions(FAMILY / "questions.jsonl", Question)
    return tuple(
        Prompt(
            name=str(number),
            turns=(question.question,),
            category=question.subject,
            references=(_accepted(question.answers),),
            answers=tuple(question.answers),
        )
        for number, question in enumerate(questions, 1)
    )


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file of JSON lines; empty lines are passed over.

    A line has one of "turns" (a list of texts, as in MT-Bench), "prompt", "question" or "messages"
    (the last one the user's). It may have "id" or "question_id", "category" or "subject", and
    "reference" (a text, or one per turn) or "answers" (a list of accepted ones).

    Raises:
        UsageError: for a line of another form (says which), one that repeats another, or a file
            that has no lines or cannot be read.
    """
    found: dict[str, tuple[int, Prompt]] = {}
    for number, line in filled_lines(read_text(path)):
        try:
            prompt = _prompt(_object(line), str(number))
        except (UsageError, PromptError) as error:
            raise UsageError(f"{path}, line {number}: {error}") from None
        if prompt.key in found:
            raise UsageError(f"{path}, line {number}: asks the same as line {found[prompt.key][0]}")
        found[prompt.key] = number, prompt
    if not found:
        raise UsageError(f"{path} has no prompts")
    return tuple(prompt for _, prompt in found.values())


def _object(line: str) -> dict[str, Any]:
    try:
        found = json_value(line)
    except ValueError as error:
        raise UsageError(f"no JSON: {error}") from None
    if not isinstance(found, dict):
        raise UsageError("not a JSON object")
    return found


def _prompt(line: dict[str, Any], number: str) -> Prompt:
    given = [form for form in _FORMS if form in line]
    if len(given) != 1:
        what = " and ".join(given) if given else "none of them"
        raise UsageError(f"needs one of {', '.join(_FORMS)}; it has {what}")
    turns, opening = _asked(line, given[0])
    return Prompt(
        name=str(line.get("id", line.get("question_id", number))),
        turns=turns,
        opening=opening,
        category=str(line.get("category", line.get("subject", ""))),
        references=_references(line, len(turns)),
        answers=_texts(line["answers"], "answers") if "answers" in line else (),
    )


def _asked(line: dict[str, Any], form: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The turns, and the messages before them."""
    value = line[form]
    if form == "turns":
        return _texts(value, form), ()
    if form != "messages":
        return _texts([value], form), ()
    if not isinstance(value, list) or not value:
        raise UsageError("messages is not a list of messages")
    check_messages(value)
    messages = [(message["role"], message.get("content")) for message in value]
    if any(not isinstance(content, str) for _, content in messages):
        raise UsageError("messages has a content that is no text")
    if messages[-1][0] != "user":
        raise UsageError("the last of messages is not the user's")
    return _texts([messages[-1][1]], form), tuple(messages[:-1])


def _texts(values: object, form: str) -> tuple[str, ...]:
    texts = values if isinstance(values, list) else []
    if not texts or any(not isinstance(text, str) or not text.strip() for text in texts):
        raise UsageError(f"{form} is empty, or holds something that is no text")
    return tuple(texts)


def _references(line: dict[str, Any], n_turns: int) -> tuple[str, ...]:
    if "answers" in line:
        return (_accepted(_texts(line["answers"], "answers")),)
    given = line.get("reference") or []
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or any(not isinstance(text, str) for text in texts):
        raise UsageError("reference is not a text, or a list of one text per turn")
    if len(texts) > n_turns:
        raise UsageError(f"reference has {len(texts)} texts for {n_turns} turns")
    return tuple(texts)


def _accepted(answers: Sequence[str]) -> str:
    return "Accepted answers: " + "; ".join(answers)
