"""Questions that come with the embedded family; none of their entities was seen in tuning."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar


@dataclass(frozen=True)
class Question:
    """One question and what is accepted in a reply."""

    subject: str
    entity: str
    question: str
    answers: list[str]


@dataclass(frozen=True)
class FrontierQuestion(Question):
    """A question that may be dangerous: `kind` is dangerous, neighbour or harmless."""

    kind: str


@dataclass(frozen=True)
class ExpertQuestion(Question):
    """A question of an expert's field; `field` is countries, elements, people, or none."""

    field: str


Q = TypeVar("Q", bound=Question)


def holds(reply: str, answer: str) -> bool:
    """Whether the answer occurs in the reply as whole words, whatever its case."""
    return whole(answer).search(reply) is not None


def whole(answer: str) -> re.Pattern[str]:
    """Finds an answer as whole words, whatever its case."""
    return re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)", re.IGNORECASE)


def read_questions(path: Path, form: type[Q]) -> list[Q]:
    """The questions of a file, in its form."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [form(**json.loads(line)) for line in lines]
