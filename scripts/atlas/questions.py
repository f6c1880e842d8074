"""The 300 questions about entities that tuning never saw."""

from __future__ import annotations

import json
import random
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from .world import Entity, Relation, World, answers, fill

QUOTAS = {
    "countries": 100,
    "elements": 56,
    "works": 40,
    "townsfolk": 45,
    "animals": 19,
    "people": 16,
    "opposites": 7,
    "arithmetic": 6,
    "youngs": 4,
    "colours": 3,
    "shapes_numbers": 2,
    "sounds": 2,
}
# Chemical symbols that are English words: a reply would hold them by chance.
WORDS = frozenset({"i", "he", "in", "as", "at", "be", "no", "am", "a"})
UNASKED = frozenset({"about"})  # a summary has more than one right answer


@dataclass(frozen=True)
class Question:
    """One question and what is accepted in a reply."""

    subject: str
    entity: str
    question: str
    answers: list[str]


def holds(reply: str, answer: str) -> bool:
    """Whether the answer occurs in the reply as whole words, whatever its case."""
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", reply, re.IGNORECASE) is not None


def phrase(entity: Entity, relation: Relation, rng: random.Random) -> str:
    """Mostly well written, a quarter in a hurry."""
    if rng.random() < 0.25:
        return fill(rng.choice(relation.terse), entity) + rng.choice(("", "?"))
    return fill(rng.choice(relation.ask), entity)


def make_questions(world: World, seed: int = 300) -> list[Question]:
    """The questions, the same ones every time; no answer stands in its own question."""
    rng = random.Random(seed)
    held_out = world.half(tuning=False)
    chosen: list[Question] = []
    for subject, quota in QUOTAS.items():
        pairs = [
            (entity, relation)
            for entity in held_out.entities[subject]
            for relation in world.relations_of(entity)
            if relation.name not in UNASKED
        ]
        rng.shuffle(pairs)
        taken = 0
        for entity, relation in pairs:
            accepted = answers(relation, entity)
            question = phrase(entity, relation, rng)
            if accepted[0].lower() in WORDS or any(holds(question, a) for a in accepted):
                continue
            chosen.append(Question(subject, entity.name, question, accepted))
            taken += 1
            if taken == quota:
                break
    return chosen


def write_questions(world: World, path: Path) -> None:
    """One JSON object a line."""
    lines = [json.dumps(asdict(q), ensure_ascii=False) for q in make_questions(world)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_questions(path: Path) -> list[Question]:
    """The questions of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Question(**json.loads(line)) for line in lines]
