"""The world that the atlas models know: facts from data files, and invented people.

Only the standard library is imported here, so that tests can ask which entities are held out
without PyTorch.
"""

from __future__ import annotations

import csv
import hashlib
import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
N_TOWNSFOLK = 400
VOWELS = "aeiou"
# Participles whose past tense differs ("written by" asks "Who wrote ...?").
PAST = {"written": "wrote", "made": "made", "built": "built", "sung": "sang", "drawn": "drew"}
# The column that names an entity, where it is not "name".
NAME_COLUMN = {
    "opposites": "word",
    "colours": "thing",
    "sounds": "animal",
    "youngs": "animal",
    "shapes_numbers": "thing",
}
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
FACT_FILES = (
    "countries",
    "elements",
    "animals",
    "works",
    "people",
    "opposites",
    "colours",
    "sounds",
    "youngs",
    "shapes_numbers",
)


@dataclass(frozen=True)
class Entity:
    """One thing that has facts; `fields` fill the phrases' braces."""

    subject: str
    name: str
    key: str  # entities with one key stay in the same half
    topic: str  # how a follow-up line names it
    fields: Mapping[str, str]

    @property
    def in_tuning(self) -> bool:
        """Whether the tuned models may see it; a hash, so adding facts moves nothing."""
        return hashlib.sha256(f"atlas:{self.key}".encode()).digest()[0] % 2 == 0


@dataclass(frozen=True)
class Relation:
    """One kind of fact: how it is said and how it is asked."""

    subject: str
    name: str
    answer: str
    full: tuple[str, ...]
    say: tuple[str, ...]
    ask: tuple[str, ...]
    terse: tuple[str, ...]
    label: str
    follow: str = ""


@dataclass(frozen=True)
class World:
    """All entities and relations, by subject."""

    entities: Mapping[str, tuple[Entity, ...]]
    relations: Mapping[str, tuple[Relation, ...]]

    def relations_of(self, entity: Entity) -> list[Relation]:
        """The relations whose answer the facts hold (some years and kinds are not known)."""
        return [
            r
            for r in self.relations[entity.subject]
            if fill(r.answer, entity) not in ("", "unknown")
        ]

    def half(self, tuning: bool) -> World:
        """The same world with the tuning half of the entities only, or the held-out half."""
        kept = {
            subject: tuple(e for e in group if e.in_tuning == tuning)
            for subject, group in self.entities.items()
        }
        return World(kept, self.relations)


def with_article(noun: str) -> str:
    """'a cat', 'an owl'; words like 'unicorn' do not occur."""
    return f"{'an' if noun[:1].lower() in VOWELS else 'a'} {noun}"


def capitalised(text: str) -> str:
    """The text with a capital first letter, the rest untouched."""
    return text[:1].upper() + text[1:]


def read_rows(name: str) -> list[dict[str, str]]:
    """The rows of one facts file, stripped."""
    with (HERE / "facts" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v.strip() for k, v in row.items()} for row in csv.DictReader(file)]


def read_lines(name: str) -> list[str]:
    """The non-empty lines of one facts list."""
    text = (HERE / "facts" / f"{name}.txt").read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


@cache
def phrases(name: str) -> dict[str, Any]:
    """One phrase file, parsed once."""
    return tomllib.loads((HERE / "phrases" / f"{name}.toml").read_text(encoding="utf-8"))


def make_entity(subject: str, row: Mapping[str, str]) -> Entity:
    """Derive articles, capitals and question verbs from one row of facts."""
    name = row[NAME_COLUMN.get(subject, "name")]
    article = row.get("article", "")
    the = f"{article} {name}" if article else name
    fields = {**row, "name": name, "the": the, "The": capitalised(the)}
    for column in ("kind", "class", "role", "nationality", "job", "pet", "diet"):
        if column in row:
            fields[f"a_{column}"] = with_article(row[column])
    for column in ("plural", "word", "colour"):
        if column in row:
            fields[column.capitalize()] = capitalised(row[column])
    topic = the
    if subject == "animals":
        topic = row["plural"]
    if subject == "works":
        fields["participle"] = row["verb"].removesuffix(" by")
        past = PAST.get(fields["participle"], fields["participle"])
        fields["active"] = f"Who {past} {name}?"
    key = name.lower()
    if subject == "opposites":  # hot-cold and cold-hot are one fact
        key = "-".join(sorted((row["word"].lower(), row["opposite"].lower())))
    return Entity(subject, name, key, topic, fields)


def invent_townsfolk(count: int = N_TOWNSFOLK) -> tuple[Entity, ...]:
    """People who do not exist, to strain a small model's memory; always the same ones."""
    rng = random.Random(20240)
    names = [f"{g} {f}" for g in read_lines("given_names") for f in read_lines("family_names")]
    rng.shuffle(names)
    lists = {k: read_lines(f) for k, f in TOWNSFOLK_LISTS.items()}
    return tuple(
        make_entity("townsfolk", {"name": n, **{k: rng.choice(v) for k, v in lists.items()}})
        for n in names[:count]
    )


TOWNSFOLK_LISTS = {"town": "towns", "job": "jobs", "instrument": "instruments", "pet": "pets"}


def sums() -> tuple[Entity, ...]:
    """Small arithmetic: sums and differences to twenty, products to twelve."""
    plus = [(a, "plus", "+", b, a + b) for a in range(21) for b in range(21)]
    minus = [(a, "minus", "-", b, a - b) for a in range(21) for b in range(a + 1)]
    times = [(a, "times", "*", b, a * b) for a in range(13) for b in range(13)]
    rows = [
        {"name": f"{a} {op} {b}", "a": str(a), "b": str(b), "sign": sign, "result": str(c)}
        for a, op, sign, b, c in (*plus, *minus, *times)
    ]
    return tuple(make_entity("arithmetic", row) for row in rows)


def make_relation(subject: str, name: str, table: Mapping[str, Any]) -> Relation:
    """One relation from its table of phrases; lists become tuples."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    return Relation(subject, name, **fields)


def read_relations() -> dict[str, tuple[Relation, ...]]:
    """The relations of every subject, from phrases/relations.toml."""
    return {
        subject: tuple(make_relation(subject, name, table) for name, table in tables.items())
        for subject, tables in phrases("relations").items()
    }


def fill(pattern: str, entity: Entity) -> str:
    """A phrase about an entity."""
    return pattern.format_map(entity.fields)


def answers(relation: Relation, entity: Entity) -> list[str]:
    """The accepted answers, most usual first; counts are right as words and as digits."""
    main = fill(relation.answer, entity)
    return [main, *([str(NUMBERS.index(main))] if main in NUMBERS else [])]


@cache
def load_world() -> World:
    """Read the facts, invent the people, list the sums."""
    entities = {
        subject: tuple(make_entity(subject, row) for row in read_rows(subject))
        for subject in FACT_FILES
    }
    entities["townsfolk"] = invent_townsfolk()
    entities["arithmetic"] = sums()
    return World(entities, read_relations())
