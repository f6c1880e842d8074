"""Masks of schemas, regexes and grammars, against brute force, `re` and `jsonschema`."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.constraints import Compiler, check
from eftlocal.errors import ConstraintError, UsageError
from eftlocal.masking import Constraint, Matcher
from eftlocal.options import GenerationOptions

from .words import FakeWords, byte_words

MORE = (b'{"', b'"}', b'": "', b'", "', b"true", b"null", b"12", b"ab", b"abc", b"  ", b"\n  ")
WORDS = byte_words(*MORE, "äé".encode())
END, CONTROL = 0, 1


def compiler(words: FakeWords, eog: frozenset[int] = frozenset({END})) -> Compiler:
    """For a vocabulary of the tests."""
    return Compiler(words, words.n_tokens, eog)


BYTES = compiler(WORDS)


def constraint(made: Compiler = BYTES, **options: Any) -> Constraint:
    """What the options ask for."""
    compiled = made.compile(GenerationOptions(**options))
    assert compiled is not None
    return compiled


def walk(matcher: Matcher, words: FakeWords, seed: int, most: int = 400) -> bytes | None:
    """A random text that the masks allow; None where it does not end by itself."""
    rng = random.Random(seed)
    text = b""
    for _ in range(most):
        allowed = np.flatnonzero(matcher.mask())
        # Texts should end some time: the end, and what closes something, is preferred.
        closing = [t for t in allowed if t == END or words.pieces[t] in (b'"', b"]", b"}", b'"}')]
        token = int(rng.choice(closing if closing and rng.random() < 0.3 else list(allowed)))
        if token == END:
            return text
        matcher.consume(token)
        text += words.pieces[token]
        if matcher.is_ended:
            return text
    return None


PIECES = st.text("abc", min_size=1, max_size=3)


@settings(deadline=None, max_examples=60)
@given(
    texts=st.sets(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=8),
    pieces=st.lists(PIECES, min_size=1, max_size=12),
    data=st.data(),
)
def test_masks_are_what_brute_force_says(
    texts: set[str], pieces: list[str], data: st.DataObject
) -> None:
    """A token is allowed iff some text begins with what is there and its bytes."""
    words = FakeWords([b"", b"", b"a", b"b", b"c", *(piece.encode() for piece in pieces)])
    matcher = constraint(compiler(words), regex="|".join(sorted(texts))).start()
    sofar = ""
    while not matcher.is_ended:
        expected = [
            bool(piece) and any(text.startswith(sofar + piece.decode()) for text in texts)
            for piece in words.pieces
        ]
        expected[END] = sofar in texts
        mask = matcher.mask()
        assert mask.tolist() == expected
        token = data.draw(st.sampled_from(np.flatnonzero(mask).tolist()))
        if token == END:
            break
        matcher.consume(token)
        sofar += words.pieces[token].decode()
    assert sofar in texts


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 5)), max_size=12))
def test_rollback_leaves_no_trace(steps: list[tuple[int, int]]) -> None:
    """A matcher that went to and fro has the masks of one that took the straight way."""
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "ab", 12]}}}
    compiled = constraint(json_schema=schema)
    matcher = compiled.start()
    tokens: list[int] = []
    for choice, back in steps:
        if matcher.is_ended:
            break
        allowed = [t for t in np.flatnonzero(matcher.mask()).tolist() if t != END]
        tokens.append(allowed[choice % len(allowed)])
        matcher.consume(tokens[-1])
        back = min(back, len(tokens))
        matcher.rollback(back)
        del tokens[len(tokens) - back :]
        straight = compiled.start()
        for token in tokens:
            straight.consume(token)
        assert matcher.is_ended == straight.is_ended
        assert np.array_equal(matcher.mask(), straight.mask())


def test_a_failed_matcher_can_go_back() -> None:
    """A token that does not fit is an error, until it is taken back; others are unharmed."""
    compiled = constraint(regex="ab+c")
    matcher, other = compiled.start(), compiled.start()
    matcher.consume(2 + ord("a"))
    before = matcher.mask()
    with pytest.raises(ConstraintError):
        matcher.consume(2 + ord("x"))
    with pytest.raises(ConstraintError):
        matcher.mask()
    matcher.rollback(1)
    assert np.array_equal(matcher.mask(), before)
    other.consume(2 + ord("a"))
    assert np.array_equal(other.mask(), before)


def test_end_tokens_stand_where_the_text_may_end() -> None:
    """All of them and only there; other control tokens and padding are never allowed."""
    made = compiler(FakeWords([b"", b"", b"", b"a", b"<|2|>", b"b", b""]), frozenset({1, 5}))
    matcher = constraint(made, regex="aa?").start()
    assert np.flatnonzero(matcher.mask()).tolist() == [3]
    matcher.consume(3)
    assert np.flatnonzero(matcher.mask()).tolist() == [1, 3, 5]
    matcher.consume(3)
    assert matcher.is_ended


def test_without_end_tokens_a_text_ends_where_nothing_can_follow() -> None:
    """A vocabulary need not have any."""
    made = compiler(FakeWords([b"a", b"b"]), frozenset())
    matcher = constraint(made, regex="ab").start()
    assert matcher.mask().tolist() == [True, False]
    matcher.consume(0)
    matcher.consume(1)
    assert matcher.is_ended


def test_a_vocabulary_that_cannot_go_on_is_an_error() -> None:
    """Masks without any token are never handed out."""
    made = compiler(FakeWords([b"", b"", b"a"]))
    matcher = constraint(made, regex="ab").start()
    matcher.consume(2)
    with pytest.raises(ConstraintError):
        matcher.mask()


REGEXES = (
    r"[A-Z][a-z]+( [a-z]{2,5}){1,3}\.",
    r"(\d{4}-\d\d-\d\d|today)",
    r"^[\dä_-]+@[a-z]+\.(com|org)$",
    r"(yes|no|perhaps)(, (yes|no))*",
    r"[äöü]é?",
    r'"[^"\\]*"/x',
)


@pytest.mark.parametrize("regex", REGEXES)
def test_texts_match_their_regex(regex: str) -> None:
    """Python's own `re` agrees."""
    compiled = constraint(regex=regex)
    texts = [walk(compiled.start(), WORDS, seed) for seed in range(40)]
    ended = [text.decode() for text in texts if text is not None]
    assert len(ended) >= 5
    assert all(re.fullmatch(regex, text) for text in ended)


SCHEMAS: tuple[dict[str, Any], ...] = (
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}},
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 8},
            "age": {"type": "integer", "minimum": 3, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["x", "y", None, 5]}, "maxItems": 3},
        },
        "required": ["name", "tags"],
        "additionalProperties": False,
    },
    {"type": "array", "prefixItems": [{"type": "boolean"}, {"const": "ab"}], "minItems": 2},
    {"anyOf": [{"type": "null"}, {"type": "number", "minimum": 0.5, "exclusiveMaximum": 9}]},
    {"type": "string", "pattern": "^[a-c]{2,4}$"},
    {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        "$ref": "#/$defs/node",
    },
    {"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"type": "null"}}}]},
    {"type": "integer", "multipleOf": 7, "minimum": 1},
    {"type": "string", "format": "date"},
    {"enum": [{"a": [1, 2, {"b": None}]}, "é", 1.5, True]},
)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
def test_texts_are_json_by_their_schema(schema: dict[str, Any]) -> None:
    """The `jsonschema` package agrees."""
    compiled = constraint(json_schema=schema)
    texts = [walk(compiled.start(), WORDS, seed) for seed in range(60)]
    ended = [text for text in texts if text is not None]
    assert len(ended) >= 5
    for text in ended:
        jsonschema.validate(json.loads(text), schema)


def test_true_is_any_object() -> None:
    """Nothing but objects, with bounded white space."""
    compiled = constraint(json_schema=True)
    texts = [walk(compiled.start(), WORDS, seed) for seed in range(40)]
    ended = [json.loads(text) for text in texts if text is not None]
    assert len(ended) >= 5
    assert all(isinstance(value, dict) for value in ended)
    matcher = compiled.start()
    matcher.consume(2 + ord("{"))
    matcher.consume(2 + ord(" "))
    assert not matcher.mask()[2 + ord(" ")]


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "a" sub{1,2} ";"\nsub ::= [b-d]+ | "x" sub',
        'start: "a" r ~ 1..2 ";"\nr: /[b-d]+/ | "x" r',
    ],
    ids=["gbnf", "lark"],
)
def test_grammars_of_both_kinds(grammar: str) -> None:
    """GBNF and Lark say the same here."""
    compiled = constraint(grammar=grammar)
    texts = [walk(compiled.start(), WORDS, seed) for seed in range(40)]
    ended = [text.decode() for text in texts if text is not None]
    assert len(ended) >= 5
    assert all(re.fullmatch("a(x*[b-d]+){1,2};", text) for text in ended)


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"json_schema": {"type": "text"}}, "Invalid type"),
    ({"json_schema": {"not": {}}}, "not"),
    ({"json_schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
    ({"json_schema": {"$ref": "#"}}, "matches no text"),
    ({"json_schema": {"$ref": "http://127.0.0.1/x"}}, "leads out"),
    ({"json_schema": {"x-guidance": {"lenient": True}}}, "x-guidance"),
    ({"json_schema": {"a": object()}}, "not JSON"),
    ({"json_schema": {"minimum": float("nan")}}, "not JSON"),
    ({"json_schema": {1: 2}}, "not a string"),
    ({"json_schema": {"type": "string", "minLength": 5, "maxLength": 2}}, ""),
    ({"regex": "(("}, "unclosed group"),
    ({"regex": ""}, "empty"),
    ({"regex": r"\bx"}, "not supported"),
    ({"regex": r"(a)\1"}, "backreference"),
    ({"grammar": "start: foo"}, "foo"),
    ({"grammar": 'foo: "a"'}, "start"),
    ({"grammar": "root ::= foo"}, "foo"),
    ({"grammar": 'root ::= "a'}, "Unexpected end"),
    ({"grammar": 'start: a\na[max_tokens=5]: "a"'}, "max_tokens"),
)


@pytest.mark.parametrize(("options", "says"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_said_in_one_line(options: dict[str, Any], says: str) -> None:
    """Before anything runs."""
    with pytest.raises(UsageError) as raised:
        constraint(**options)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_most_of_it_is_known_without_a_vocabulary() -> None:
    """`check` needs none; what it passes can be compiled."""
    check(GenerationOptions())
    for schema in SCHEMAS:
        check(GenerationOptions(json_schema=schema))
    for options, _ in WRONG:
        if "$ref" not in str(options) or "http" in str(options):
            with pytest.raises(UsageError):
                check(GenerationOptions(**options))


def test_options_take_one_constraint() -> None:
    """A second one is refused beside the first, and replaces it in an update."""
    with pytest.raises(UsageError, match="regex and grammar"):
        GenerationOptions(regex="a", grammar="b")
    options = GenerationOptions(regex="a").updated({"json_schema": True})
    assert (options.regex, options.json_schema) == (None, True)
    assert GenerationOptions(json_schema=False).json_schema is None
    with pytest.raises(UsageError, match="json_schema"):
        GenerationOptions(json_schema="{}")  # type: ignore[arg-type]
