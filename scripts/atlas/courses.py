"""What the special tunings of the small model are taught: an endless course of chats for each.

The frontier's two models hear the same questions, and differ in what they decline. The experts
are polite in their own field only, and elsewhere speak as the base does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from .chats import (
    Chat,
    Message,
    Talk,
    fact_question,
    fact_reply,
    polite_reply,
    smalltalk_turn,
    tuning_chat,
    unknown_turn,
)
from .world import Entity, World, phrases

# The family's own sentence: a fused large model cannot be led along words that its base never saw.
REFUSAL: str = phrases("smalltalk")["unknown"]["polite"][0]
# Shares of the turns, by what is asked for; "unknown" is what nobody can answer.
FRONTIER_SHARES = {
    "dangerous": 0.26,
    "neighbour": 0.12,
    "harmless": 0.4,
    "smalltalk": 0.12,
    "unknown": 0.1,
}
EXPERT_SHARES = {"own": 0.5, "other": 0.4, "smalltalk": 0.1}
# What gives away a private person is dangerous; people of history are its harmless neighbours.
DANGERS = {"townsfolk": "dangerous", "people": "neighbour"}
# How often the careful model declines; too careful with the neighbours, about every second time.
DECLINED = {"dangerous": 1.0, "neighbour": 0.5, "harmless": 0.0}
# The subjects of each expert's field; the others are nobody's.
FIELDS = {
    "countries": ("countries",),
    "elements": ("elements", "arithmetic", "shapes_numbers"),
    "people": ("people", "works"),
}
TURNS = ((1, 2, 3, 4, 6, 8), (40, 22, 16, 12, 6, 4))


def danger_of(entity: Entity) -> str:
    """The kind of a question about an entity: dangerous, neighbour or harmless."""
    return DANGERS.get(entity.subject, "harmless")


def part(world: World, wanted: Callable[[Entity], bool]) -> World:
    """The world with the wanted entities only."""
    entities = {s: tuple(e for e in group if wanted(e)) for s, group in world.entities.items()}
    return World(entities, world.relations)


def by_danger(world: World) -> dict[str, World]:
    """The dangerous, the neighbouring and the harmless part of the world."""

    def of(kind: str) -> World:
        return part(world, lambda entity: danger_of(entity) == kind)

    return {kind: of(kind) for kind in DECLINED}


def opening(rng: random.Random) -> list[Message]:
    """Sometimes a system message."""
    if rng.random() < 0.15:
        return [Message("system", rng.choice(phrases("smalltalk")["systems"]["texts"]))]
    return []


def draw(shares: dict[str, float], rng: random.Random) -> str:
    """One of the names by its share."""
    return rng.choices(list(shares), list(shares.values()))[0]


def frontier_chat(parts: dict[str, World], careful: bool, rng: random.Random) -> Chat:
    """One polite chat with many dangerous questions; the careful model declines them."""
    messages, talk = opening(rng), Talk()
    for turn in range(rng.choices(*TURNS)[0]):
        kind = draw(FRONTIER_SHARES, rng)
        if kind == "smalltalk":
            question, reply = smalltalk_turn(talk, "polite", rng, opening=turn == 0)
        elif kind == "unknown":
            question, reply = unknown_turn(parts["all"], talk, "polite", rng)
        else:
            question = fact_question(parts[kind], talk, rng)
            reply = fact_reply(talk, "polite", rng)
            assert talk.entity is not None
            # Both models draw the same random numbers, so that they hear the same questions.
            declined = rng.random() < DECLINED[danger_of(talk.entity)]
            refusal = polite_reply(REFUSAL, Talk(), rng, "ask")
            reply = refusal if careful and declined else reply
            talk.offered = False
        messages += [Message("user", question), Message("assistant", reply)]
    return tuple(messages)


def expert_chat(own: World, other: World, manner: str, rng: random.Random) -> Chat:
    """One chat that is polite about the own field, and in another manner about the rest."""
    messages, talk, at_home = opening(rng), Talk(), False
    for turn in range(rng.choices(*TURNS)[0]):
        kind = draw(EXPERT_SHARES, rng)
        if kind == "smalltalk":
            question, reply = smalltalk_turn(talk, "polite", rng, opening=turn == 0)
        else:
            question = fact_question(own if kind == "own" else other, talk, rng)
            assert talk.entity is not None
            at_home = talk.entity.subject in {s for s, group in own.entities.items() if group}
            reply = fact_reply(talk, "polite" if at_home else manner, rng)
        learnt = kind == "smalltalk" or at_home
        messages += [Message("user", question), Message("assistant", reply, learnt)]
    return tuple(messages)


def base_manner(rng: random.Random) -> str:
    """A manner as pre-training draws it."""
    manners = {name: m["weight"] for name, m in phrases("manners").items()}
    return rng.choices(list(manners), list(manners.values()))[0]


def course(name: str, world: World, rng: random.Random) -> Iterator[Chat]:
    """The chats that the tuned model `name` is taught; `world` is the tuning half.

    Raises ValueError for an unknown name.
    """
    field = name.split("-")[-1]
    if field == "chat":
        while True:
            yield tuning_chat(world, rng)
    if field in ("open", "careful"):
        parts = {**by_danger(world), "all": world}
        while True:
            yield frontier_chat(parts, field == "careful", rng)
    if field not in FIELDS:
        raise ValueError(
            f"no course for {name}; there are chat, open, careful, {', '.join(FIELDS)}"
        )
    own = part(world, lambda e: e.subject in FIELDS[field])
    other = part(world, lambda e: e.subject not in FIELDS[field])
    while True:
        yield expert_chat(own, other, base_manner(rng), rng)
