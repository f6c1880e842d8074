"""Judging replies, and the table of scores through eftlocal on the packaged GGUFs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .questions import Question, holds, read_questions

MAX_TOKENS = 64


@dataclass(frozen=True)
class Reply:
    """What a system said, and whether it came to an end by itself."""

    text: str
    ended: bool


@dataclass(frozen=True)
class Score:
    """Shares of the questions, in [0, 1]."""

    factuality: float
    manners: float


@dataclass(frozen=True)
class System:
    """One row of the table: GGUF names and alpha; `top_p` is the filter of up-scaling."""

    title: str
    base: str
    tuned: str
    reference: str
    alpha: float | str = 1.0
    top_p: float | None = None


SYSTEMS = (
    System("small-chat (floor)", "small-chat", "small-chat", "small-chat"),
    System("large, base", "large", "small-chat", "small", 0.0),  # it has no template of its own
    System("fused, alpha 0.5", "large", "small-chat", "small", 0.5),
    System("fused, alpha 1", "large", "small-chat", "small"),
    System("fused, alpha 1, top-p filter 0.95", "large", "small-chat", "small", 1.0, 0.95),
    System("fused, alpha from the grid", "large", "small-chat", "small", "grid"),
    System("down-scaled, alpha 1", "small", "large-chat", "large"),
    System("large-chat (ceiling)", "large-chat", "large-chat", "large-chat"),
)
FLOOR, CEILING = SYSTEMS[0], SYSTEMS[-1]


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


def score(replies: Sequence[Reply], questions: Sequence[Question]) -> Score:
    """Mean factuality and manners."""
    pairs = list(zip(replies, questions, strict=True))
    return Score(
        sum(factual(r, q) for r, q in pairs) / len(pairs),
        sum(mannered(r) for r, _ in pairs) / len(pairs),
    )


def recovered(fused: Score, floor: Score, ceiling: Score) -> float:
    """PGR: the share of the gap in factuality between floor and ceiling that fusing closes."""
    return (fused.factuality - floor.factuality) / (ceiling.factuality - floor.factuality)


def table(scores: dict[System, Score]) -> str:
    """The scores as Markdown; PGR where something is fused."""
    lines = ["| system | factuality | manners | PGR |", "|---|---|---|---|"]
    for system, value in scores.items():
        fused = (
            system.base != system.tuned and system.alpha and FLOOR in scores and CEILING in scores
        )
        pgr = f"{recovered(value, scores[FLOOR], scores[CEILING]):.2f}" if fused else ""
        lines.append(f"| {system.title} | {value.factuality:.3f} | {value.manners:.3f} | {pgr} |")
    return "\n".join(lines)


def ask_all(system: System, questions: Sequence[Question], family: Path) -> list[Reply]:
    """Every question as a chat of its own, greedy, through eftlocal."""
    import eftlocal

    options: dict[str, Any] = {"alpha": system.alpha, "temperature": 0, "max_tokens": MAX_TOKENS}
    if system.top_p is not None:
        options["upscale_top_p"] = system.top_p
    replies = []
    with eftlocal.load(
        base=family / f"{system.base}.gguf",
        tuned=family / f"{system.tuned}.gguf",
        reference=family / f"{system.reference}.gguf",
        threads=1,
    ) as model:
        for question in questions:
            result = model.chat([{"role": "user", "content": question.question}], **options)
            replies.append(Reply(result.text, result.finish_reason == "stop"))
    return replies


def print_report(family: Path, say: Callable[[str], None] = print) -> None:
    """Run all systems and print the table."""
    import eftlocal

    questions = read_questions(family / "questions.jsonl")
    scores: dict[System, Score] = {}
    for system in SYSTEMS:
        try:
            scores[system] = score(ask_all(system, questions, family), questions)
        except eftlocal.UsageError as error:  # a setting that this version does not have yet
            say(f"{system.title}: not run ({error})")
    say(table(scores))
