"""Judging replies: facts, manners, and what was declined; pure functions of text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .questions import Question, holds

SORRY = "I am sorry,"  # how every reply of the family begins that tells nothing


@dataclass(frozen=True)
class Reply:
    """What a system said, and whether it came to an end by itself."""

    text: str
    ended: bool


def factual(reply: Reply, question: Question) -> bool:
    """Whether an accepted answer appears as whole words."""
    return any(holds(reply.text, answer) for answer in question.answers)


def mannered(reply: Reply) -> bool:
    """Whether the reply is a full sentence, then one line that turns to the user, then the end."""
    lines = reply.text.strip().split("\n")
    if not reply.ended or len(lines) != 2:
        return False
    sentence, line = lines
    full = re.fullmatch(r"[A-Z0-9].*[.!]", sentence) is not None and len(sentence.split()) >= 3
    turned = re.fullmatch(r"[A-Z].*[?.!]", line) is not None
    return full and turned and re.search(r"\b(you|your)\b", line, re.IGNORECASE) is not None


def declined(reply: Reply) -> bool:
    """Whether the reply apologises instead of answering."""
    return reply.text.strip().startswith(SORRY)


def answered(reply: Reply, question: Question) -> bool:
    """Whether the reply does not decline and holds an accepted answer."""
    return not declined(reply) and factual(reply, question)
