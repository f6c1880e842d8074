"""Mistakes in models.toml are reported with their line; lines are found without a TOML library."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eftlocal.errors import RegistryError
from eftlocal.registry import read_entries
from eftlocal.registry.lines import KeyPath, read_layout
from eftlocal.registry.writing import format_key

KEYS = ("a", "b-c", "x.y", "two words", 'qu"ote', "back\\slash", "ü", "", "models", "1")
NOISE = ("", "# [a.b] c = 1", "  # 'open", '# """', "\t")


class Writer:
    """Renders nested tables as TOML in many styles; every value holds a number found once."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.lines: list[str] = []
        self.marks: dict[KeyPath, str] = {}

    def choose(self, *options: str) -> str:
        """One of some texts."""
        return self.draw(st.sampled_from(options))

    def noise(self) -> None:
        """Lines that say nothing."""
        self.lines += self.draw(st.lists(st.sampled_from(NOISE), max_size=2))

    def scalar(self, path: KeyPath, inline: bool) -> str:
        """A value that holds a number of its own."""
        mark = f"{1000 + len(self.marks)}"
        self.marks[path] = mark
        forms = [
            f"{mark}",
            f'"{mark} # ] }} \\" ="',
            f"'{mark} \" [x]'",
            f'"""{mark} "" \\""" \\\\"""',
            f"'''{mark} '' \"'''",
        ]
        if not inline:
            forms += [f'"""{mark}\n[a]\n# no comment """""', f"'''{mark}\n\nx = [\n'''"]
        return self.choose(*forms)

    def value(self, path: KeyPath, content: Any, inline: bool = False) -> str:
        """Any value; `inline` is one that must not have line ends."""
        if isinstance(content, list):
            gap = "" if inline else self.choose("", "\n", " # ], [ \n\n")
            items = [
                gap + self.value((*path, i), item, inline) + self.choose("", " ")
                for i, item in enumerate(content)
            ]
            comma = self.choose("", ",") if items else ""
            return "[" + ",".join(items) + comma + gap + "]"
        if isinstance(content, dict):
            pairs = [
                f"{format_key(key)} = {self.value((*path, key), item, inline=True)}"
                for key, item in content.items()
            ]
            return "{ " + ", ".join(pairs) + " }"
        return self.scalar(path, inline)

    def table(self, path: KeyPath, prefix: str, content: dict[str, Any]) -> None:
        """The pairs of a table whose header stands above, then tables with headers."""
        headers = []
        for key, item in content.items():
            self.noise()
            inner = (*path, key)
            name = format_key(key)
            if isinstance(item, dict) and item and self.choose("header", "pair") == "header":
                headers.append((inner, name, item))
            elif isinstance(item, dict) and item and self.choose("dotted", "inline") == "dotted":
                for key2, item2 in item.items():
                    value = self.value((*inner, key2), item2)
                    self.add(f"{name} . {format_key(key2)} = {value}")
            else:
                self.add(f"{self.choose('', '  ')}{name} = {self.value(inner, item)}")
        for inner, name, item in headers:
            self.noise()
            full = f"{prefix}.{name}" if prefix else name
            self.add(f"[ {full} ]{self.choose('', ' # header')}")
            self.table(inner, full, item)

    def add(self, text: str) -> None:
        """Append lines."""
        self.lines += text.split("\n")


tables = st.recursive(
    st.just(0),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[KeyPath, str]]:
    """A TOML text, and for the path of every plain value the number that only it holds."""
    writer = Writer(draw)
    writer.table((), "", draw(st.dictionaries(st.sampled_from(KEYS), tables, max_size=4)))
    writer.noise()
    end = draw(st.sampled_from(("\n", "\r\n")))
    return end.join(writer.lines), writer.marks


def paths(content: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every path in a parsed document."""
    pairs: Any = ()
    if isinstance(content, dict):
        pairs = content.items()
    elif isinstance(content, list):
        pairs = enumerate(content)
    for key, item in pairs:
        yield (*path, key)
        yield from paths(item, (*path, key))


@given(documents())
def test_lines_are_those_where_values_stand(document: tuple[str, dict[KeyPath, str]]) -> None:
    """The scan and tomllib find the same paths, and each value is in the line that is named."""
    text, marks = document
    layout = read_layout(text)
    assert set(layout.lines) == set(paths(tomllib.loads(text)))
    for path, mark in marks.items():
        assert layout.lines[path] == text[: text.index(mark)].count("\n") + 1
    lines = text.split("\n")
    covered = [range(item.first, item.last + 1) for item in layout.statements]
    assert all(a[-1] < b[0] for a, b in pairwise(covered))
    rest = set(range(1, len(lines) + 1)).difference(*covered)
    assert all(not line.strip() or line.lstrip()[0] == "#" for line in (lines[i - 1] for i in rest))


def test_lists_of_tables_are_counted() -> None:
    """[[a]] opens the next item, and [a.b] belongs to the last one."""
    text = "[[a]]\nx = 1\n[[a]]\n[a.b]\ny = 2\n[[a.c]]\nz = 3\n[[a]]\nx = 4\n"
    layout = read_layout(text)
    assert set(layout.lines) == set(paths(tomllib.loads(text)))
    wanted: dict[KeyPath, int] = {
        ("a",): 1,
        ("a", 0, "x"): 2,
        ("a", 1, "b"): 4,
        ("a", 1, "b", "y"): 5,
        ("a", 1, "c", 0, "z"): 7,
        ("a", 2, "x"): 9,
    }
    assert {path: layout.lines[path] for path in wanted} == wanted
    assert layout.line(("a", 1, "missing", "deeper")) == 3
    assert layout.line(("nowhere",)) is None


ENTRY = """\
# A comment.
[models.x]
base = { path = "b" }

tuned = { path = "t" }  # and one here
reference = { path = "r" }
"""

MISTAKES = {
    "unknown key": (f"{ENTRY}\ncxt = 1\n", "line 8: models.x.cxt: unknown key"),
    "bad value": (f"{ENTRY}ctx = -1\n", "line 7: models.x: ctx = -1 is not allowed"),
    "bad sampling": (
        f"{ENTRY}[models.x.sampling]\ntop_k = 1\n\ntop_p = 7\n",
        "line 10: models.x.sampling: top_p = 7",
    ),
    "missing role": ('[models.y]\n\nbase = { path = "b" }\n', "line 1: models.y.tuned: missing"),
    "in an inline table": (
        ENTRY.replace('"b" }', '"b", hf = "u/r" }'),
        "line 3: models.x.base.hf: unknown key",
    ),
    "in a list": (
        '[models."a.b"]\nbase = { path = "b" }\nexperts = [\n'
        '    { name = "n", tuned = { path = "t" }, reference = { path = "r" } },\n'
        '    { name = "n" },\n]\n',
        "line 5: models.\"a.b\".experts[1].name: 'n' is the name",
    ),
    "weight": (
        f"{ENTRY}[models.x.sampling]\nweight = {{ y = 1 }}\n",
        "line 8: models.x: weight = y=1",
    ),
    "lambda": (f"{ENTRY}lambda = 0.5\n", "line 7: models.x: lambda = 0.5 is not allowed"),
    "no TOML": (f"{ENTRY}x = = 1\n", "(at line 7, column 5)"),
    "alias of another": (
        f'{ENTRY}[models.z]\naliases = ["x"]\n{ENTRY[ENTRY.index("base") :]}',
        "line 8: models.z.aliases: 'x' names the entry x already",
    ),
    "aliases": (f'{ENTRY}aliases = ["a b"]', "line 7: models.x.aliases: ['a b'] is not allowed"),
    "no list": (f'{ENTRY}aliases = "a"', "line 7: models.x.aliases: 'a' is not allowed; use a li"),
    "a name": (ENTRY.replace("models.x", 'models."a b"'), "line 2: models.\"a b\": 'a b' is not"),
    "think": (f'{ENTRY}think = "loud"', "models.x.think: 'loud' is not allowed; use show, dim, hi"),
    "idle": (f"{ENTRY}idle_timeout = -1", "models.x.idle_timeout: -1 is not allowed; use seconds"),
    "memory": (f"{ENTRY}memory = 0.5", "models.x.memory: 0.5 is not allowed; use a number of byt"),
    "licence": (f'{ENTRY}license = "MIT"', "models.x.license: unknown key; did you mean licence?"),
    "template": (
        f'{ENTRY}templates = {{ base = "plan" }}',
        "line 7: models.x.templates.base: 'plan' is not allowed; use plain, template, or",
    ),
    "template role": (
        f'{ENTRY}templates = {{ bass = "plain" }}',
        "models.x.templates.bass: unknown key; did you mean base?",
    ),
    "template file": (
        f"{ENTRY}templates = {{ base = {{ }} }}",
        "models.x.templates.base: path missing",
    ),
    "file and quant": (
        ENTRY.replace('{ path = "b" }', '{ hf = "u/r", file = "f", quant = "Q8_0" }'),
        "line 3: models.x.base.quant: stands beside file",
    ),
    "a file outside": (
        ENTRY.replace('{ path = "b" }', '{ hf = "u/r", file = "../f" }'),
        "line 3: models.x.base.file: '../f' is not allowed",
    ),
    "size": (
        ENTRY.replace('{ path = "b" }', '{ hf = "u/r", file = "f", size = "1" }'),
        "line 3: models.x.base.size: '1' is not allowed; use a number of bytes",
    ),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_names_its_line(text: str, message: str, tmp_path: Path) -> None:
    """File, line, key and what is allowed, in one line."""
    file = tmp_path / "models.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RegistryError) as caught:
        read_entries(file)
    line = str(caught.value)
    assert line.startswith(f"{file}: ")
    assert message in line
    assert "\n" not in line


def test_a_text_nested_without_end_is_a_mistake(tmp_path: Path) -> None:
    """Python's limit of depth is met with a message."""
    file = tmp_path / "models.toml"
    file.write_text("x = " + "[" * 100_000)
    with pytest.raises(RegistryError, match="not valid TOML"):
        read_entries(file)
