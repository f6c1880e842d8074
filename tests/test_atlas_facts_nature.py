"""The facts about countries, elements and animals are complete, well formed and true."""

from __future__ import annotations

import re

import pytest

from .fact_tables import facts, rows

CONTINENTS = {"Africa", "Asia", "Europe", "North America", "South America", "Oceania"}
# The states that have adopted the euro, the microstates that use it by agreement, and Montenegro,
# which uses it without one; the file need not list them all.
EURO = set(
    "Austria Belgium Croatia Cyprus Estonia Finland France Germany Greece Ireland Italy Latvia "
    "Lithuania Luxembourg Malta Netherlands Portugal Slovakia Slovenia Spain Bulgaria "
    "Andorra Monaco Montenegro".split()
) | {"San Marino", "Vatican City"}
ARTICLE_COUNTRIES = {
    "Bahamas",
    "Central African Republic",
    "Comoros",
    "Czech Republic",
    "Democratic Republic of the Congo",
    "Dominican Republic",
    "Gambia",
    "Maldives",
    "Marshall Islands",
    "Netherlands",
    "Philippines",
    "Republic of the Congo",
    "Solomon Islands",
    "United Arab Emirates",
    "United Kingdom",
    "United States",
}
CITY_STATES = {"Monaco", "San Marino", "Singapore"}
KINDS = {
    "noble gas",
    "alkali metal",
    "alkaline earth metal",
    "halogen",
    "transition metal",
    "post-transition metal",
    "metalloid",
    "nonmetal",
    "lanthanide",
    "actinide",
    "unknown",
}
LATIN_SYMBOLS = {
    "sodium": "Na",
    "potassium": "K",
    "iron": "Fe",
    "copper": "Cu",
    "silver": "Ag",
    "tin": "Sn",
    "antimony": "Sb",
    "tungsten": "W",
    "gold": "Au",
    "mercury": "Hg",
    "lead": "Pb",
}
KIND_ANCHORS: dict[str, set[int]] = {
    "noble gas": {2, 10, 18, 36, 54, 86},
    "alkali metal": {3, 11, 19, 37, 55, 87},
    "alkaline earth metal": {4, 12, 20, 38, 56, 88},
    "halogen": {9, 17, 35, 53, 85},
    "metalloid": {5, 14, 32, 33, 51, 52},
    "nonmetal": {1, 6, 7, 8, 15, 16, 34},
    "lanthanide": set(range(57, 72)),
    "actinide": set(range(89, 104)),
}
NUMBER_ANCHORS = {
    "hydrogen": 1,
    "carbon": 6,
    "oxygen": 8,
    "sodium": 11,
    "aluminium": 13,
    "iron": 26,
    "copper": 29,
    "silver": 47,
    "tin": 50,
    "iodine": 53,
    "neodymium": 60,
    "tungsten": 74,
    "gold": 79,
    "mercury": 80,
    "lead": 82,
    "radon": 86,
    "uranium": 92,
    "fermium": 100,
    "dubnium": 105,
    "copernicium": 112,
    "oganesson": 118,
}
CLASSES = {
    "mammal",
    "bird",
    "reptile",
    "amphibian",
    "fish",
    "insect",
    "arachnid",
    "crustacean",
    "mollusc",
}
DIETS = {"herbivore", "carnivore", "omnivore"}


def test_country_values() -> None:
    """Countries take known continents and articles, and only city states share a capital name."""
    found = rows("countries")
    for row in found:
        assert row["continent"] in CONTINENTS, row
        assert row["article"] == ("the" if row["name"] in ARTICLE_COUNTRIES else ""), row
        assert (row["capital"] == row["name"]) == (row["name"] in CITY_STATES), row
        assert row["language"][0].isupper() and row["capital"][0].isupper(), row
        assert not row["name"].startswith("the "), row
    capitals = [row["capital"] for row in found]
    assert len(set(capitals)) == len(capitals)


def test_continents_are_populated() -> None:
    """No continent has too few or too many countries to be right."""
    found = [row["continent"] for row in rows("countries")]
    bounds = {
        "Africa": (35, 54),
        "Asia": (30, 48),
        "Europe": (35, 46),
        "North America": (18, 23),
        "South America": (9, 12),
        "Oceania": (6, 14),
    }
    for continent, (least, most) in bounds.items():
        assert least <= found.count(continent) <= most, continent


def test_euro_countries() -> None:
    """A country has the euro exactly when it is one of those that use it."""
    for row in rows("countries"):
        assert (row["currency"] == "euro") == (row["name"] in EURO), row


def test_shared_currencies() -> None:
    """A currency of several countries is one of the known shared ones, and so for the members."""
    users: dict[str, set[str]] = {}
    for row in rows("countries"):
        users.setdefault(row["currency"], set()).add(row["name"])
    shared = {currency for currency, names in users.items() if len(names) > 1}
    assert shared == {
        "euro",
        "US dollar",
        "East Caribbean dollar",
        "West African CFA franc",
        "Central African CFA franc",
        "Swiss franc",
    }
    west = {"Benin", "Guinea-Bissau", "Ivory Coast", "Senegal", "Togo", "Mali", "Niger"}
    central = {"Cameroon", "Gabon", "Chad", "Equatorial Guinea", "Republic of the Congo"}
    dollar = {"Ecuador", "El Salvador", "Marshall Islands", "Palau", "United States"}
    assert users["West African CFA franc"] <= west
    assert users["Central African CFA franc"] <= central
    assert users["US dollar"] == dollar
    assert users["Swiss franc"] == {"Liechtenstein", "Switzerland"}


def test_spanish_and_portuguese_countries() -> None:
    """The languages of Spain and Portugal are listed for a plausible set of countries."""
    language = facts("countries", "name", "language")
    spanish = {name for name, tongue in language.items() if tongue == "Spanish"}
    assert spanish <= {
        *("Argentina Chile Colombia Cuba Ecuador Guatemala Honduras Mexico Nicaragua".split()),
        *("Panama Peru Spain Uruguay Venezuela Bolivia Paraguay".split()),
        *("Costa Rica", "Dominican Republic", "El Salvador", "Equatorial Guinea"),
    }
    portuguese = {name for name, tongue in language.items() if tongue == "Portuguese"}
    assert portuguese == {
        "Angola",
        "Brazil",
        "Cape Verde",
        "Guinea-Bissau",
        "Mozambique",
        "Portugal",
    }


@pytest.mark.parametrize(
    ("country", "capital"),
    [
        ("Australia", "Canberra"),
        ("Brazil", "Brasilia"),
        ("Canada", "Ottawa"),
        ("Kazakhstan", "Astana"),
        ("Morocco", "Rabat"),
        ("New Zealand", "Wellington"),
        ("Nigeria", "Abuja"),
        ("Pakistan", "Islamabad"),
        ("Switzerland", "Bern"),
        ("Tanzania", "Dodoma"),
        ("United States", "Washington"),
        ("Vietnam", "Hanoi"),
    ],
)
def test_capitals_that_are_not_the_largest_city(country: str, capital: str) -> None:
    """The capitals most often got wrong are right."""
    assert facts("countries", "name", "capital")[country] == capital


def test_elements_are_the_periodic_table() -> None:
    """There are exactly 118 elements, in order, with well-formed symbols, no two the same."""
    found = rows("elements")
    assert [int(row["number"]) for row in found] == list(range(1, 119))
    symbols = [row["symbol"] for row in found]
    assert len(set(symbols)) == 118
    for row in found:
        assert re.fullmatch(r"[A-Z][a-z]?", row["symbol"]), row
        assert re.fullmatch(r"[a-z]+", row["name"]), row


def test_element_symbols_come_from_names() -> None:
    """A symbol is the first letter of the name and a later one, but for those from Latin."""
    for row in rows("elements"):
        name, symbol = row["name"], row["symbol"]
        if name in LATIN_SYMBOLS:
            assert symbol == LATIN_SYMBOLS[name]
            continue
        assert symbol[0].lower() == name[0], row
        assert symbol[1:] in name[1:], row


def test_single_letter_symbols() -> None:
    """Exactly fourteen elements have a symbol of one letter."""
    single = {row["symbol"] for row in rows("elements") if len(row["symbol"]) == 1}
    assert single == set("HBCNOFPSKVYIWU")


def test_element_kinds() -> None:
    """Each kind is a known one and the well-defined kinds hold exactly their elements."""
    found = rows("elements")
    assert {row["kind"] for row in found} == KINDS
    for kind, numbers in KIND_ANCHORS.items():
        assert {int(row["number"]) for row in found if row["kind"] == kind} == numbers, kind
    middle = {*range(21, 31), *range(39, 49), *range(72, 81), *range(104, 109), 112}
    transition = {int(row["number"]) for row in found if row["kind"] == "transition metal"}
    assert transition == middle


def test_element_numbers() -> None:
    """Well-known elements stand at their atomic numbers."""
    number = facts("elements", "name", "number")
    assert {name: int(number[name]) for name in NUMBER_ANCHORS} == NUMBER_ANCHORS


def test_animal_values() -> None:
    """Animals take known classes and diets, their own plural and a home without "in"."""
    found = rows("animals")
    assert {row["class"] for row in found} == CLASSES
    assert {row["diet"] for row in found} == DIETS
    plurals = [row["plural"] for row in found]
    assert len(set(plurals)) == len(plurals)
    unchanging = {"deer", "moose", "reindeer", "bison", "sheep", "salmon", "pike", "tuna"}
    for row in found:
        name, plural = row["name"], row["plural"]
        assert not row["home"].startswith(("in ", "on ", "at ")), row
        if name in unchanging or name.endswith("fish"):
            assert plural == name, row
        elif name == "wolf":
            assert plural == "wolves"
        elif name.endswith("fly"):
            assert plural == name[:-1] + "ies", row
        else:
            hissing = name.endswith(("s", "x", "ch", "sh"))
            assert plural == name + ("es" if hissing else "s"), row


def test_animal_classes_often_got_wrong() -> None:
    """Whales are mammals, penguins birds, seahorses fish, newts amphibians."""
    found = facts("animals", "name", "class")
    expected = {
        "dolphin": "mammal",
        "blue whale": "mammal",
        "platypus": "mammal",
        "penguin": "bird",
        "ostrich": "bird",
        "seahorse": "fish",
        "great white shark": "fish",
        "newt": "amphibian",
        "axolotl": "amphibian",
        "giant tortoise": "reptile",
        "scorpion": "arachnid",
        "octopus": "mollusc",
        "snail": "mollusc",
        "crab": "crustacean",
    }
    assert {name: found[name] for name in expected} == expected
