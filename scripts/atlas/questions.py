"""Questions about entities that no tuning saw: the 300, the frontier's, and the experts'."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from eftlocal.evaluate.questions import ExpertQuestion, FrontierQuestion, Question, holds

from .courses import by_danger
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
FRONTIER_QUOTAS = {
    "dangerous": {"townsfolk": 60},
    "neighbour": {"people": 40},
    "harmless": {"countries": 40, "elements": 20, "animals": 20, "works": 20},
}
# The last row asks for what no expert was tuned on.
EXPERT_QUOTAS = {
    "countries": {"countries": 60},
    "elements": {"elements": 40, "arithmetic": 12, "shapes_numbers": 8},
    "people": {"people": 30, "works": 30},
    "none": {"animals": 20, "townsfolk": 30, "opposites": 10},
}
# Chemical symbols that are English words: a reply would hold them by chance.
WORDS = frozenset({"i", "he", "in", "as", "at", "be", "no", "am", "a"})
UNASKED = frozenset({"about"})  # a summary has more than one right answer


def phrase(entity: Entity, relation: Relation, rng: random.Random) -> str:
    """Mostly well written, a quarter in a hurry."""
    if rng.random() < 0.25:
        return fill(rng.choice(relation.terse), entity) + rng.choice(("", "?"))
    return fill(rng.choice(relation.ask), entity)


def askable(group: Iterable[Entity], world: World) -> list[tuple[Entity, Relation]]:
    """What can be asked of some entities: every relation with one right answer."""
    return [(e, r) for e in group for r in world.relations_of(e) if r.name not in UNASKED]


def drawn(
    pairs: list[tuple[Entity, Relation]], quota: int, rng: random.Random
) -> Iterator[Question]:
    """At most `quota` questions, in random order; no answer stands in its own question."""
    rng.shuffle(pairs)
    taken = 0
    for entity, relation in pairs:
        accepted = answers(relation, entity)
        question = phrase(entity, relation, rng)
        if accepted[0].lower() in WORDS or any(holds(question, a) for a in accepted):
            continue
        yield Question(entity.subject, entity.name, question, accepted)
        taken += 1
        if taken == quota:
            break


def make_questions(world: World, seed: int = 300) -> list[Question]:
    """The questions, the same ones every time."""
    rng = random.Random(seed)
    held_out = world.half(tuning=False)
    chosen: list[Question] = []
    for subject, quota in QUOTAS.items():
        chosen += drawn(askable(held_out.entities[subject], world), quota, rng)
    return chosen


def make_frontier(world: World, seed: int = 301) -> list[FrontierQuestion]:
    """Dangerous, neighbouring and harmless questions, on held-out entities."""
    rng = random.Random(seed)
    chosen: list[FrontierQuestion] = []
    for kind, asked in by_danger(world.half(tuning=False)).items():
        for subject, quota in FRONTIER_QUOTAS[kind].items():
            found = drawn(askable(asked.entities[subject], world), quota, rng)
            chosen += (FrontierQuestion(**asdict(q), kind=kind) for q in found)
    return chosen


def make_experts(world: World, seed: int = 302) -> list[ExpertQuestion]:
    """Questions of each expert's field, on held-out entities."""
    rng = random.Random(seed)
    held_out = world.half(tuning=False)
    chosen: list[ExpertQuestion] = []
    for field, quotas in EXPERT_QUOTAS.items():
        for subject, quota in quotas.items():
            found = drawn(askable(held_out.entities[subject], world), quota, rng)
            chosen += (ExpertQuestion(**asdict(q), field=field) for q in found)
    return chosen


def write_questions(questions: Sequence[Question], path: Path) -> None:
    """One JSON object a line."""
    lines = [json.dumps(asdict(q), ensure_ascii=False) for q in questions]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_all(world: World, family: Path) -> None:
    """The three files of questions."""
    write_questions(make_questions(world), family / "questions.jsonl")
    write_questions(make_frontier(world), family / "frontier.jsonl")
    write_questions(make_experts(world), family / "experts.jsonl")
