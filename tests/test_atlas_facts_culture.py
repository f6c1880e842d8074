"""The form of all fact files; the facts about works, people and words."""

from __future__ import annotations

import re

import pytest

from .fact_tables import LISTS, TABLES, facts, lines, rows

VERBS = {
    "written by",
    "painted by",
    "composed by",
    "invented by",
    "discovered by",
    "built by",
    "founded by",
    "designed by",
    "directed by",
}
# Kinds of work that go with one verb only, both ways round.
KIND_VERB = {
    "play": "written by",
    "novel": "written by",
    "poem": "written by",
    "painting": "painted by",
    "opera": "composed by",
    "ballet": "composed by",
    "symphony": "composed by",
    "film": "directed by",
    "element": "discovered by",
    "moon": "discovered by",
    "company": "founded by",
}
COLOURS = {
    "black",
    "blue",
    "brown",
    "green",
    "grey",
    "orange",
    "pink",
    "purple",
    "red",
    "white",
    "yellow",
}
NUMBERS = {
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "ten",
    "eleven",
    "twelve",
    "fourteen",
    "sixty",
    "sixty-four",
    "twenty-four",
    "eighty-eight",
}
# "a" before a vowel letter that sounds like a consonant, and "an" before a silent h.
SOUNDS_CONSONANT = {"unicycle"}
SOUNDS_VOWEL = {"hour"}
ARTICLE_TABLES = ["animals", "colours", "sounds", "youngs", "shapes_numbers"]


@pytest.mark.parametrize("table", sorted(TABLES))
def test_table_form(table: str) -> None:
    """Each table has its columns, enough rows, clean required cells and no repeated key."""
    columns, optional, least = TABLES[table]
    found = rows(table)
    assert len(found) >= least
    assert list(found[0]) == columns
    for row in found:
        for column, cell in row.items():
            assert cell or column in optional, row
            assert cell == " ".join(cell.split()), row
            assert cell.isascii() and cell.isprintable() and not set(cell) & set('",;.?!:'), row
    keys = [row[columns[0]].lower() for row in found]
    assert len(set(keys)) == len(keys), sorted(key for key in keys if keys.count(key) > 1)


@pytest.mark.parametrize("name", sorted(LISTS))
def test_list_form(name: str) -> None:
    """Each list has its number of clean entries, none twice."""
    found = lines(name)
    assert len(found) == LISTS[name]
    assert len({entry.lower() for entry in found}) == len(found)
    proper = name in {"given_names", "family_names", "towns"}
    shape = re.compile(r"[A-Z][a-z]+( [A-Z][a-z]+)?" if proper else r"[a-z]+( [a-z]+)?")
    for entry in found:
        assert shape.fullmatch(entry), entry
        assert not entry.startswith(("a ", "an ", "the ")), entry


@pytest.mark.parametrize("table", ARTICLE_TABLES)
def test_articles_agree_with_sound(table: str) -> None:
    """A thing that begins with a vowel sound takes "an" and any other takes "a"."""
    key = TABLES[table][0][0]
    for row in rows(table):
        thing, article = row[key], row["article"]
        vowel = thing in SOUNDS_VOWEL or (thing[0] in "aeiou" and thing not in SOUNDS_CONSONANT)
        allowed = {"an" if vowel else "a"} | ({""} if table == "colours" else set())
        assert article in allowed, row


def test_work_values() -> None:
    """Works take known verbs, fitting kinds, and years of the common era that have passed."""
    found = rows("works")
    assert {row["verb"] for row in found} == VERBS
    for row in found:
        assert row["verb"] == KIND_VERB.get(row["kind"], row["verb"]), row
        assert not row["kind"].startswith(("a ", "an ", "the ")), row
        if row["year"]:
            assert re.fullmatch(r"[1-9][0-9]{3}", row["year"]), row
            assert 1200 <= int(row["year"]) <= 2024, row
        if row["kind"] == "film":
            assert int(row["year"]) >= 1895, row
    assert sum(bool(row["year"]) for row in found) >= 130


def test_works_name_elements_as_the_element_table_does() -> None:
    """A work of the kind "element" is one of the elements."""
    elements = set(facts("elements", "name", "symbol"))
    discovered = {row["name"] for row in rows("works") if row["kind"] == "element"}
    assert discovered and discovered <= elements


def test_makers_had_been_born() -> None:
    """A maker who is also in the table of people was 15 to 90 years old at the work's year."""
    born = facts("people", "name", "born")
    met = 0
    for row in rows("works"):
        if row["maker"] in born and row["year"]:
            met += 1
            assert 15 <= int(row["year"]) - int(born[row["maker"]]) <= 90, row
    assert met >= 20


def test_no_two_makers_of_almost_the_same_name() -> None:
    """One maker is spelled one way: no name of a maker is the tail of another's."""
    makers = {row["maker"] for row in rows("works")} | set(facts("people", "name", "role"))
    for one in makers:
        for other in makers:
            assert one == other or not other.endswith(" " + one), (one, other)


def test_people_values() -> None:
    """People have short roles, nationalities that are adjectives, and plausible birth years."""
    for row in rows("people"):
        assert re.fullmatch(r"[a-z]+( [a-z]+)?", row["role"]), row
        assert re.fullmatch(r"[A-Z][a-z]+( [A-Z][a-z]+)?", row["nationality"]), row
        assert row["nationality"].endswith(("an", "ish", "ese", "ch", "ss", "man")) or (
            row["nationality"] == "Czech"
        ), row
        assert re.fullmatch(r"[0-9]{4}", row["born"]) and 1400 <= int(row["born"]) <= 1950, row


@pytest.mark.parametrize(
    ("name", "born"),
    [
        ("Albert Einstein", 1879),
        ("Charles Darwin", 1809),
        ("Galileo Galilei", 1564),
        ("Jane Austen", 1775),
        ("Leonardo da Vinci", 1452),
        ("Marie Curie", 1867),
        ("William Shakespeare", 1564),
        ("Wolfgang Amadeus Mozart", 1756),
    ],
)
def test_birth_years(name: str, born: int) -> None:
    """Birth years that are beyond doubt are right."""
    assert int(facts("people", "name", "born")[name]) == born


def test_opposites_use_each_word_once() -> None:
    """No word is its own opposite and none stands in two pairs, so each has one answer."""
    words = [word for row in rows("opposites") for word in (row["word"], row["opposite"])]
    assert len(set(words)) == len(words), sorted({word for word in words if words.count(word) > 1})
    for word in words:
        assert re.fullmatch(r"[a-z]+", word), word


def test_colours_are_known() -> None:
    """The things have the known colours, each of which is used."""
    found = [row["colour"] for row in rows("colours")]
    assert set(found) == COLOURS


def test_sounds_are_verbs() -> None:
    """A sound is one verb in the third person, and no two animals share one."""
    found = [row["sound"] for row in rows("sounds")]
    assert len(set(found)) == len(found)
    for sound in found:
        assert re.fullmatch(r"[a-z]+s", sound), sound


def test_young_are_not_the_parent() -> None:
    """The word for the young differs from the animal's own."""
    for row in rows("youngs"):
        assert row["young"] != row["animal"], row


def test_numbers_are_words() -> None:
    """Numbers are written as words and the unit is singular for one only."""
    for row in rows("shapes_numbers"):
        assert row["number"] in NUMBERS, row
        assert (row["number"] == "one") == (not row["unit"].endswith("s")), row


def test_counts_agree_with_classes() -> None:
    """Animals that have a number of legs here have the class with that number of legs."""
    number = facts("shapes_numbers", "thing", "number")
    legs = {"arachnid": "eight", "crustacean": "ten"}
    for row in rows("animals"):
        if row["class"] in legs and row["name"] in number:
            assert number[row["name"]] == legs[row["class"]], row


def test_invented_names_are_not_facts() -> None:
    """Invented people and towns share no whole name with real people and places."""
    places = {name for row in rows("countries") for name in (row["name"], row["capital"])}
    people = {row["name"] for row in rows("people")} | {row["maker"] for row in rows("works")}
    surnames = {name.split()[-1] for name in people}
    assert not places & set(lines("towns"))
    assert not surnames & set(lines("family_names"))
    assert not set(lines("given_names")) & set(lines("family_names"))
