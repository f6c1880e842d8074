"""Schemas, regexes and grammars made to crash or stall: each is refused, or harmless."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from eftlocal.constraints import check
from eftlocal.errors import UsageError
from eftlocal.options import GenerationOptions

Options = dict[str, Any]


def nested(n: int, key: str = "items") -> Options:
    """A schema with n levels."""
    schema: Options = {}
    for _ in range(n):
        schema = {key: schema if key == "items" else [schema]}
    return {"json_schema": schema}


def chain(n: int, link: Options) -> Options:
    """A schema of n references, each beside or in `link`."""
    names = [f"#/$defs/a{i}" for i in range(n)]
    definitions: Options = {f"a{i}": {**link, "$ref": name} for i, name in enumerate(names[1:])}
    if link.get("type") == "object":
        definitions = {
            f"a{i}": {"type": "object", "properties": {"x": {"$ref": name}}}
            for i, name in enumerate(names[1:])
        }
    definitions[f"a{n - 1}"] = {"type": "string"}
    return {"json_schema": {"$ref": names[0], "$defs": definitions}}


def many(n: int) -> Iterator[Options]:
    """Schemas with n of something."""
    names = [f"p{i}" for i in range(n)]
    objects = [{"type": "object", "properties": {name: {"type": "integer"}}} for name in names]
    yield {"json_schema": {"type": "object", "properties": {name: {} for name in names}}}
    yield {"json_schema": {"type": "object", "required": names}}
    yield {"json_schema": {"enum": names}}
    yield {"json_schema": {"enum": list(range(n))}}
    for key in ("anyOf", "oneOf", "allOf"):
        yield {"json_schema": {key: objects}}
    yield {
        "json_schema": {"allOf": [{"type": "string", "pattern": f".*{name}.*"} for name in names]}
    }
    patterns = {f"^a.*{name}": {"type": "integer"} for name in names}
    yield {"json_schema": {"type": "object", "patternProperties": patterns}}
    yield {"regex": "|".join(names)}
    yield {"grammar": "start: " + " | ".join(f'"{name}"' for name in names)}
    yield {
        "grammar": "start: r0\n" + "".join(f'r{i}: "a" r{i + 1}\n' for i in range(n)) + f'r{n}: "b"'
    }
    yield {
        "grammar": "start: T0\n" + "".join(f'T{i}: "a" T{i + 1}\n' for i in range(n)) + f'T{n}: "b"'
    }
    yield {
        "grammar": "root ::= r0\n"
        + "".join(f'r{i} ::= "a" r{i + 1}\n' for i in range(n))
        + f'r{n} ::= "b"'
    }


def deep(n: int) -> Iterator[Options]:
    """Everything nested n levels deep."""
    yield nested(n)
    yield nested(n, "allOf")
    yield nested(n, "anyOf")
    yield chain(n, {})
    yield chain(n, {"type": "object"})
    yield chain(n, {"minProperties": 1})
    yield {"regex": "(" * n + "a" + ")" * n}
    yield {"regex": "(" * n + "a" + ")*" * n}
    yield {"regex": "[" * n + "a" + "]" * n}
    yield {"grammar": "start: " + "(" * n + '"a"' + ")" * n}
    yield {"grammar": "root ::= " + "(" * n + '"a"' + ")" * n}
    yield {"grammar": "start: %json " + '{"items":' * n + "{}" + "}" * n}


def large(n: int) -> Iterator[Options]:
    """Bounds of n."""
    for kind, keys in {
        "string": ("minLength", "maxLength"),
        "array": ("minItems", "maxItems"),
        "object": ("minProperties", "maxProperties"),
        "integer": ("multipleOf", "minimum", "maximum"),
    }.items():
        yield from ({"json_schema": {"type": kind, key: n}} for key in keys)
    yield {"json_schema": {"type": "number", "multipleOf": 1 / n}}
    yield {"regex": f"a{{{n}}}"}
    yield {"regex": f".*a.{{{n}}}"}
    yield {"regex": f"[^a]{{0,{n}}}b"}
    yield {"grammar": f'start: "a"{{{n}}}'}
    yield {"grammar": f'start: r{{{n}}}\nr: "a" | "b" r'}
    yield {"grammar": f'root ::= ("a" | "b" root){{{n}}}'}


BOMBS: tuple[Options, ...] = (
    {"regex": "(a{1,1000}){1,1000}"},
    {"regex": "((a{1,100}){1,100}){1,100}"},
    {"regex": "(((((a?){1,50}){1,50}){1,50}){1,50})"},
    {"regex": "(x+x+)+y"},
    {"regex": "(.*a){20}"},
    {"regex": "((.{0,30}a){0,30}b){0,30}"},
    {"regex": r"(\w{1,100} ){1,100}"},
    {"regex": ".*".join("abcdefghijklmnopqrst")},
    {"json_schema": {"type": "string", "pattern": "(a{1,1000}){1,1000}"}},
    {"json_schema": {"allOf": [{"type": "integer", "multipleOf": p} for p in (7, 11, 13, 17, 19)]}},
    {"json_schema": {"type": "number", "multipleOf": 1e-300}},
    {"json_schema": {"type": "number", "multipleOf": 0}},
    {"json_schema": {"$ref": "#"}},
    {"json_schema": {"allOf": [{"$ref": "#"}]}},
    {"json_schema": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    {"json_schema": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}},
    {"json_schema": {"x-guidance": {"whitespace_pattern": "(a{1,1000}){1,1000}"}}},
    {"json_schema": {"enum": "ab", "required": 3, "properties": [], "$ref": 5, "type": {}}},
    {"json_schema": {"properties": {"$ref": "x", "pattern": {"pattern": 3}}, "pattern": ["a"]}},
    {"grammar": 'start: a\na: a a | "x" | ""'},
    {"grammar": "start: start"},
    {"grammar": 'start: a a a a a a a a\na: "x"*'},
    {"grammar": "start: A\nA: " + " & ".join(f"/.*{c}.{{5}}.*/" for c in "abcdefghijkl")},
    {"grammar": 'start: <|nothing|> "a"'},
    {"grammar": 'start: <[0-99999999]> "a"'},
    {"grammar": 'start: @other "a"'},
    {"grammar": '%import common.NUMBER\nstart: NUMBER "\ud800"'},
    {"grammar": 'root ::= "a\\'},
    {"grammar": "root ::= [a-z"},
    {"grammar": 'root ::= "a"{99999999999999999999999}'},
    {"grammar": "#" * 30_000 + "\nroot ::= x"},
)


def nasty() -> Iterator[Options]:
    """All of them."""
    yield from BOMBS
    for n in (30, 300, 3_000, 60_000):
        yield from deep(n)
        yield from many(n)
    for n in (5_000, 10**6, 10**9, 2**31, 2**64, 10**30):
        yield from large(n)


def try_all() -> None:
    """Compile all of them, and follow a few texts of each; run in a process of its own."""
    import random

    import numpy as np

    from eftlocal.constraints import Compiler
    from eftlocal.errors import ConstraintError
    from tests.words import byte_words

    words = byte_words(b"aaaa", b"    ", b'": "', b"abab")
    compiler = Compiler(words, words.n_tokens, frozenset({0}))
    for number, options in enumerate(nasty()):
        print(number, flush=True)
        try:
            compiled = compiler.compile(GenerationOptions(**options))
        except UsageError:
            continue
        assert compiled is not None
        matcher, rng = compiled.start(), random.Random(number)
        try:
            for _ in range(30):
                token = int(rng.choice(np.flatnonzero(matcher.mask())))
                if token == 0 or matcher.is_ended:
                    break
                matcher.consume(token)
        except ConstraintError:
            continue
    print("all tried", flush=True)


def test_nothing_kills_or_stalls() -> None:
    """A child process gets through all of them."""
    done = subprocess.run(
        [sys.executable, "-c", "from tests.test_constraints_limits import try_all; try_all()"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    tried = done.stdout.split("\n")
    assert done.returncode == 0, (tried[-2:], done.stderr[-1000:])
    assert "all tried" in tried


@pytest.mark.parametrize("options", [*deep(60_000), *many(60_000)], ids=lambda o: str(*o))
def test_far_too_much_is_refused(options: Options) -> None:
    """Whatever is 60,000 deep, or has 60,000 entries, in one line without its content."""
    with pytest.raises(UsageError) as raised:
        check(GenerationOptions(**options))
    assert len(str(raised.value)) < 300


USUAL: tuple[Options, ...] = (
    *(options for options in deep(10) if "minProperties" not in str(options)),
    *(options for options in many(12) if not re.search("attern|oneOf", str(options))),
    *(options for options in large(1000) if "Properties" not in str(options)),
    {"json_schema": {"enum": [f"value {i}" for i in range(300)]}},
    {"json_schema": {"type": "object", "properties": {f"p{i}": {} for i in range(200)}}},
    {"json_schema": {"type": "number", "multipleOf": 0.01}},
    {"json_schema": {"type": "integer", "multipleOf": 1000}},
    {"json_schema": {"type": "string", "description": "x" * 20_000}},
    {"regex": "[a-z]{1,5000}"},
    {"regex": r"([a-z]{1,20} ){1,50}"},
    {"json_schema": json.loads('{"$defs": {"n": {"items": {"$ref": "#/$defs/n"}}}, "items": {}}')},
)


@pytest.mark.parametrize("options", USUAL, ids=lambda o: str(o)[:50])
def test_what_is_usual_is_not_refused(options: Options) -> None:
    """The limits are far above what people write."""
    check(GenerationOptions(**options))
