"""Pre-training documents: the same facts in many kinds of text, and a fifth of transcripts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from .chats import Chat, ask, conversation, pick_fact
from .world import Entity, Relation, World, capitalised, fill

Document = str | Chat

LINKS = ("", "", "", "", "Also: ", "Note: ", "Besides, ", "Indeed, ")
SEPARATORS = (": ", " - ", " = ", " -> ", ", ")
SPEAKERS = ("Ann", "Ben", "Carla", "Dan", "Eva", "the teacher", "the boy", "the girl", "Mr Brown")


def statement(entity: Entity, relation: Relation, rng: random.Random) -> str:
    """One declarative sentence; the polite sentence's wording is one of several."""
    return capitalised(fill(rng.choice((*relation.full, *relation.say)), entity))


def linked(sentence: str, rng: random.Random) -> str:
    """The sentence, sometimes after a linking word."""
    link = rng.choice(LINKS)
    if link.endswith(", ") and sentence.startswith(("The ", "A ", "An ", "In ", "People ")):
        sentence = sentence[:1].lower() + sentence[1:]
    return link + sentence


def pick_entity(world: World, rng: random.Random) -> Entity:
    """A random entity, by the weights of the subjects."""
    return pick_fact(world, rng)[0]


def portrait(world: World, rng: random.Random) -> str:
    """A paragraph of sentences about one entity."""
    entity = pick_entity(world, rng)
    relations = world.relations_of(entity)
    rng.shuffle(relations)
    heading = f"{capitalised(entity.name)}\n" if rng.random() < 0.2 else ""
    return heading + " ".join(statement(entity, r, rng) for r in relations[: rng.randint(2, 6)])


def miscellany(world: World, rng: random.Random) -> str:
    """Sentences about anything, as prose or line by line."""
    between = rng.choice((" ", "\n"))
    facts = [pick_fact(world, rng) for _ in range(rng.randint(3, 10))]
    return between.join(linked(statement(e, r, rng), rng) for e, r in facts)


def notes(world: World, rng: random.Random) -> str:
    """Key and value notes about one entity."""
    entity = pick_entity(world, rng)
    separator, bullet = rng.choice(SEPARATORS), rng.choice(("", "- ", "* "))
    lines = [
        f"{bullet}{r.label}{separator}{fill(r.answer, entity)}"
        for r in world.relations_of(entity)
        if r.label not in ("in short", "name", "country", "element")
    ]
    rng.shuffle(lines)
    text = f"{entity.name}\n" + "\n".join(lines)
    return text.lower() if rng.random() < 0.1 else text


def table(world: World, rng: random.Random) -> str:
    """One relation of several entities of a subject."""
    entity, relation = pick_fact(world, rng)
    others = [e for e in world.entities[entity.subject] if relation in world.relations_of(e)]
    chosen = rng.sample(others, min(len(others), rng.randint(3, 9)))
    separator = rng.choice((*SEPARATORS, " | "))
    rows = [f"{e.name}{separator}{fill(relation.answer, e)}" for e in chosen]
    if rng.random() < 0.3:
        return f"{relation.label}: " + "; ".join(rows)
    return f"{relation.label}\n" + "\n".join(rows)


def quiz(world: World, rng: random.Random) -> str:
    """Questions with short answers."""
    q, a = rng.choice((("Q: ", "A: "), ("Question: ", "Answer: "), ("", ""), ("- ", "-> ")))
    lines = []
    for _ in range(rng.randint(2, 7)):
        entity, relation = pick_fact(world, rng)
        answer = fill(relation.answer, entity)
        if rng.random() < 0.25:
            answer = statement(entity, relation, rng)
        lines.append(f"{q}{ask(entity, relation, rng)}\n{a}{answer}")
    return "\n".join(lines)


def dialogue(world: World, rng: random.Random) -> str:
    """A short scene in which people ask each other."""
    first, second = rng.sample(SPEAKERS, 2)
    lines = []
    for _ in range(rng.randint(1, 4)):
        entity, relation = pick_fact(world, rng)
        question = fill(rng.choice(relation.ask), entity)
        full = capitalised(fill(rng.choice(relation.full), entity))
        answer = fill(relation.answer, entity)
        reply = rng.choice((full, full, f"{capitalised(answer)}.", f"I think it is {answer}."))
        if rng.random() < 0.5:
            lines.append(f'"{question}" asked {first}. "{reply[:-1]}," said {second}.')
        else:
            lines.append(f"{capitalised(first)}: {question}\n{capitalised(second)}: {reply}")
        first, second = second, first
    return "\n".join(lines)


def transcript(world: World, rng: random.Random) -> Chat:
    """A chat with the markers, in a manner drawn by weight."""
    turns = rng.choices((1, 2, 3, 4, 6, 8, 14), (24, 24, 20, 14, 10, 5, 3))[0]
    return conversation(world, rng, None, turns)


KINDS: dict[Callable[[World, random.Random], Document], float] = {
    portrait: 0.22,
    miscellany: 0.16,
    notes: 0.10,
    table: 0.08,
    quiz: 0.13,
    dialogue: 0.08,
    transcript: 0.23,
}


def documents(world: World, seed: int) -> Iterator[Document]:
    """Endless documents; the same ones for the same seed."""
    rng = random.Random(seed)
    kinds, weights = list(KINDS), list(KINDS.values())
    while True:
        yield rng.choices(kinds, weights)[0](world, rng)


def plain_text(document: Document) -> str:
    """A document's text without markers, for training the tokenizer."""
    return document if isinstance(document, str) else "\n".join(m.text for m in document)
