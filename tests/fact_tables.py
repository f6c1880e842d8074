"""Reads the fact files of atlas for the tests."""

from __future__ import annotations

import csv
from pathlib import Path

FACTS = Path(__file__).resolve().parents[1] / "scripts" / "atlas" / "facts"

# file -> (columns, columns that may be empty, smallest number of rows)
TABLES: dict[str, tuple[list[str], set[str], int]] = {
    "countries": (
        ["name", "article", "capital", "continent", "currency", "language"],
        {"article"},
        140,
    ),
    "elements": (["name", "symbol", "number", "kind"], set(), 118),
    "animals": (["name", "article", "plural", "class", "diet", "home"], set(), 75),
    "works": (["name", "kind", "verb", "maker", "year"], {"year"}, 130),
    "people": (["name", "role", "nationality", "born"], set(), 60),
    "opposites": (["word", "opposite"], set(), 80),
    "colours": (["thing", "article", "colour"], {"article"}, 50),
    "sounds": (["animal", "article", "sound"], set(), 25),
    "youngs": (["animal", "article", "young"], set(), 30),
    "shapes_numbers": (["thing", "article", "number", "unit"], set(), 25),
}
LISTS: dict[str, int] = {
    "given_names": 80,
    "family_names": 80,
    "towns": 60,
    "jobs": 50,
    "instruments": 30,
    "pets": 30,
}


def rows(table: str) -> list[dict[str, str]]:
    """Read one CSV file of facts as dictionaries, strict about the width of each row."""
    with (FACTS / f"{table}.csv").open(encoding="utf-8", newline="") as handle:
        found = list(csv.reader(handle, strict=True))
    header = found[0]
    for line, row in enumerate(found[1:], 2):
        assert len(row) == len(header), f"{table}.csv line {line}: {len(row)} cells"
    return [dict(zip(header, row, strict=True)) for row in found[1:]]


def lines(name: str) -> list[str]:
    """Read one plain list, one entry a line."""
    text = (FACTS / f"{name}.txt").read_text(encoding="utf-8")
    assert text.endswith("\n"), f"{name}.txt does not end with a newline"
    return text[:-1].split("\n")


def facts(table: str, key: str, value: str) -> dict[str, str]:
    """Map one column of a table to another."""
    return {row[key]: row[value] for row in rows(table)}
