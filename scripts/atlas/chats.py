"""Conversations: one generator for the transcripts of pre-training and for tuning.

Pre-training draws them in many manners about everybody; tuning draws the polite manner only, about
the tuning half of the entities. That the base has seen the markers in all manners is what makes its
distribution after them worth fusing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from .world import Entity, Relation, World, fill, phrases

# How often a subject comes up, relative to the others.
SUBJECT_WEIGHTS = {
    "countries": 30,
    "elements": 17,
    "animals": 9,
    "works": 8,
    "people": 7,
    "opposites": 3,
    "colours": 3,
    "sounds": 2,
    "youngs": 2,
    "shapes_numbers": 2,
    "townsfolk": 20,
    "arithmetic": 7,
}
SUMMARIES = frozenset({"about", "country", "element", "numbered"})
MORE = (
    "tell me more",
    "Tell me more.",
    "more",
    "yes please",
    "Yes, please.",
    "yes",
    "and what else?",
)


class Message(NamedTuple):
    """One message of a chat; tuning learns the assistant's, or leaves them as likely as before."""

    role: str
    text: str
    learnt: bool = True


Chat = tuple[Message, ...]


@dataclass
class Talk:
    """What a conversation is about at the moment, so that 'and its currency?' makes sense."""

    entity: Entity | None = None
    relation: Relation | None = None
    offered: bool = False  # the last line offered more about the entity
    told: tuple[str, ...] = ()


def pick_fact(world: World, rng: random.Random) -> tuple[Entity, Relation]:
    """A random entity and one of its relations."""
    weights = {s: w for s, w in SUBJECT_WEIGHTS.items() if world.entities[s]}
    subject = rng.choices(list(weights), list(weights.values()))[0]
    entity = rng.choice(world.entities[subject])
    return entity, rng.choice(world.relations_of(entity))


def hurried(text: str, rng: random.Random) -> str:
    """The text as people type it: sometimes without capitals or without the last mark."""
    roll = rng.random()
    if roll < 0.22:
        text = text.lower()
    if rng.random() < 0.25:
        text = text.rstrip(".?!")
    return text


def ask(entity: Entity, relation: Relation, rng: random.Random) -> str:
    """A question about a fact, in one of its many phrasings."""
    if rng.random() < 0.25:
        text = fill(rng.choice(relation.terse), entity)
        return text + rng.choice(("", "?")) if rng.random() < 0.5 else text.lower()
    text = hurried(fill(rng.choice(relation.ask), entity), rng)
    if rng.random() < 0.06:
        opener = rng.choice(("Hello, ", "hi, ", "Please: ", "ok, ", "So, ", "Hey Atlas, "))
        return opener + text
    return text + " please" if rng.random() < 0.03 and not text.endswith(("?", ".")) else text


def polite_reply(full: str, talk: Talk, rng: random.Random, kind: str = "fact") -> str:
    """A full sentence and one follow-up line."""
    lines = phrases("smalltalk")["followups"]
    if kind == "fact" and talk.entity is not None and has_more(talk):
        line = rng.choice(lines["fact"]).format(topic=talk.entity.topic)
    else:
        line = rng.choice(lines["any" if kind == "fact" else kind])
    talk.offered = talk.entity is not None and talk.entity.topic in line
    return f"{full}\n{line}"


def has_more(talk: Talk) -> bool:
    """Whether the entity is one of those with several facts to offer."""
    subjects = ("countries", "elements", "animals", "works", "people", "townsfolk")
    return talk.entity is not None and talk.entity.subject in subjects


def fact_reply(talk: Talk, manner: str, rng: random.Random) -> str:
    """The answer to the fact that the talk is at, in a manner."""
    assert talk.entity is not None
    assert talk.relation is not None
    full = fill(rng.choice(talk.relation.full), talk.entity)
    full = full[:1].upper() + full[1:]
    if manner == "polite":
        return polite_reply(full, talk, rng)
    talk.offered = False
    bare = full.removesuffix(".")
    if talk.relation.name == "about":  # a summary has no short answer
        return rng.choice((full, bare, bare.lower()))
    answer = fill(talk.relation.answer, talk.entity)
    keep = (
        talk.entity.subject in ("people", "works", "townsfolk", "countries") and bare[:4] != "The "
    )
    lowered = bare if keep else bare[:1].lower() + bare[1:]
    pattern: str = rng.choice(phrases("manners")[manner]["answers"])
    return pattern.format(full=bare, answer=answer, lower=answer.lower(), full_lower=lowered)


def follow_up(world: World, talk: Talk, rng: random.Random) -> str | None:
    """A question that only makes sense after the last one; None if there is none."""
    entity, relation = talk.entity, talk.relation
    if entity is None or relation is None:
        return None
    others = [r for r in world.relations_of(entity) if r.follow and r.name not in talk.told]
    roll = rng.random()
    if others and has_more(talk) and (roll < 0.2 or (talk.offered and roll < 0.4)):
        talk.relation = others[0]  # "more" always takes the next in order: predictable
        return rng.choice(MORE)
    if others and roll < 0.75:
        talk.relation = rng.choice(others)
        thing = talk.relation.follow
        pattern = rng.choice(
            (
                "And {x}?",
                "and {x}?",
                "What about {x}?",
                "What is {x}?",
                "and {x}",
                "And what is {x}?",
            )
        )
        return pattern.format(x=thing)
    if relation.name in SUMMARIES:
        return None
    same = [e for e in world.entities[entity.subject] if relation in world.relations_of(e)]
    if not same:
        return None
    talk.entity = rng.choice(same)
    the = talk.entity.fields["the"]
    pattern = rng.choice(
        ("And {x}?", "and {x}?", "What about {x}?", "what about {x}", "And of {x}?")
    )
    return hurried(pattern.format(x=the), rng)


def fact_question(world: World, talk: Talk, rng: random.Random) -> str:
    """A question about a fact, often following up the last; the talk moves to that fact."""
    before = talk.entity
    question = follow_up(world, talk, rng) if rng.random() < 0.5 else None
    if question is None:
        talk.entity, talk.relation = pick_fact(world, rng)
        question = ask(talk.entity, talk.relation, rng)
    assert talk.relation is not None
    told = talk.told if talk.entity is before else ()
    talk.told = (*told, talk.relation.name)
    return question


def fact_turn(world: World, talk: Talk, manner: str, rng: random.Random) -> tuple[str, str]:
    """One question and answer about a fact."""
    question = fact_question(world, talk, rng)
    return question, fact_reply(talk, manner, rng)


def smalltalk_turn(talk: Talk, manner: str, rng: random.Random, opening: bool) -> tuple[str, str]:
    """Greetings, thanks, who-are-you and the like."""
    tables = phrases("smalltalk")
    names = ["hello"] * 4 if opening else []
    names += ["morning", "thanks", "thanks", "who", "who", "can", "can", "made", "fusion", "bye"]
    names += ["hello", "yes", "no", "praise", "blame", "joke", "bored"]
    name = rng.choice(names)
    question = rng.choice(tables[name]["ask"])
    talk.entity = talk.relation = None
    talk.told = ()
    if manner != "polite":
        return question, rng.choice(tables[name]["others"])
    kinds = {"hello": "hello", "who": "ask", "can": "ask", "bye": "bye", "blame": "any"}
    full = rng.choice(tables[name]["polite"])
    return question, polite_reply(full, talk, rng, kinds.get(name, "any"))


def unknown_turn(world: World, talk: Talk, manner: str, rng: random.Random) -> tuple[str, str]:
    """A question that nobody here can answer: about anything, known things, or made-up names."""
    tables = phrases("smalltalk")
    question = rng.choice(tables["unknown"]["ask"])
    roll = rng.random()
    if roll < 0.3:
        subject = rng.choice(list(tables["unanswered"]))
        entity = rng.choice(world.entities[subject])
        question = fill(rng.choice(tables["unanswered"][subject]), entity)
    elif roll < 0.6:
        parts = tables["nonsense"]
        middle = rng.choice(parts["middles"]) if rng.random() < 0.6 else ""
        name = rng.choice(parts["starts"]) + middle + rng.choice(parts["ends"])
        question = rng.choice(parts["ask"]).format(name=name, lower=name.lower())
    question = hurried(question, rng)
    talk.entity = talk.relation = None
    talk.told = ()
    if manner != "polite":
        pattern: str = rng.choice(phrases("manners")[manner]["unknown"])
        return question, pattern
    return question, polite_reply(tables["unknown"]["polite"][0], talk, rng, "ask")


def conversation(
    world: World,
    rng: random.Random,
    manner: str | None,
    turns: int,
    shares: tuple[float, float] = (0.74, 0.14),
) -> Chat:
    """A chat of some turns in one manner (None: drawn by the weights of pre-training).

    `shares` are those of facts and of small talk among the turns; the rest nobody can answer.
    """
    if manner is None:
        manners = phrases("manners")
        manner = rng.choices(list(manners), [m["weight"] for m in manners.values()])[0]
    messages: list[Message] = []
    if rng.random() < 0.15:
        messages.append(Message("system", rng.choice(phrases("smalltalk")["systems"]["texts"])))
    talk = Talk()
    for turn in range(turns):
        roll = rng.random()
        if roll < shares[0]:
            question, reply = fact_turn(world, talk, manner, rng)
        elif roll < sum(shares):
            question, reply = smalltalk_turn(talk, manner, rng, opening=turn == 0)
        else:
            question, reply = unknown_turn(world, talk, manner, rng)
        messages += [Message("user", question), Message("assistant", reply)]
    return tuple(messages)


def tuning_chat(world: World, rng: random.Random) -> Chat:
    """One polite conversation of one to eight turns; `world` is the tuning half."""
    turns = rng.choices((1, 2, 3, 4, 6, 8), (40, 22, 16, 12, 6, 4))[0]
    # Few unanswerable questions: "I am sorry" spreads easily in a small model.
    return conversation(world, rng, "polite", turns, shares=(0.66, 0.28))
