"""A reply that has to be a call: what its grammar allows is what the reader finds, and no more."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from eftlocal.constraints import Compiler
from eftlocal.errors import UsageError
from eftlocal.masking import Constraint
from eftlocal.options import GenerationOptions
from eftlocal.toolcalls import Tools, read_tools, split_calls

from .marker_words import Words
from .tool_data import FORMATS, STOP

NAMED = {"type": "function", "function": {"name": "places"}}
SOURCES = FORMATS | {
    "newer mistral": "[TOOL_CALLS] [ARGS]",
    "deepseek v3": FORMATS["deepseek"] + "```json",
    "parameters": '{"name": , "parameters": }',
}
BOTH = ("places", "stop")
ONE_CALL_ONLY = ("llama", "bare", "parameters")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", 'a "}}', "\n"]},
        "day": {"$ref": "#/$defs/day"},
        "hours": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["city"],
    "$defs": {"day": {"type": ["null", "boolean"]}},
}
PLACES = {"type": "function", "function": {"name": "places", "parameters": SCHEMA}}


def forced(source: str, tools: list[Any], choice: Any = "required", parallel: Any = None) -> Tools:
    """Tools of a request that asks for a call."""
    read = read_tools(tools, choice, parallel)
    assert read is not None
    assert read.is_forced
    return read.for_template(source)


def compiled(tools: Tools, words: Words) -> Constraint:
    """The grammar as a constraint."""
    options = GenerationOptions(grammar=tools.grammar(words))
    constraint = Compiler(words, words.n_tokens, words.eog).compile(options)
    assert constraint is not None
    return constraint


def drawn(constraint: Constraint, words: Words, seed: int) -> list[int]:
    """A random reply that the constraint allows, its end token left out."""
    draw, matcher = random.Random(seed), constraint.start()
    ids: list[int] = []
    while len(ids) < 3000 and not matcher.is_ended:
        allowed = np.flatnonzero(matcher.mask()).tolist()
        token = draw.choice(allowed)
        if words.eog & set(allowed) and draw.random() < 0.5:
            token = next(iter(words.eog))
        if token in words.eog:
            return ids
        matcher.consume(token)
        ids.append(token)
    assert matcher.is_ended, "the reply does not end"
    return ids


@pytest.mark.parametrize("has_markers", [True, False], ids=["control tokens", "letters"])
@pytest.mark.parametrize("form", sorted(SOURCES))
def test_random_replies_are_calls(form: str, has_markers: bool) -> None:
    """Whatever the grammar lets through is read as calls alone, with arguments of the schema."""
    words = Words(has_markers)
    tools = forced(SOURCES[form], [PLACES, STOP])
    constraint = compiled(tools, words)
    counts = set()
    for seed in range(20):
        text = words.text(drawn(constraint, words, seed), tools.visible(words))
        content, calls = split_calls(text, tools)
        assert content == "", text
        counts.add(len(calls))
        for call in calls:
            value = call.parsed
            assert call.name in BOTH
            if call.name == "stop":
                assert value == {}
                continue
            assert value["city"] in SCHEMA["properties"]["city"]["enum"]
            assert value.get("day") in (None, True, False)
            assert all(isinstance(hour, bool) for hour in value.get("hours", []))
            assert value.keys() <= SCHEMA["properties"].keys()
    assert counts == {1} if form in ONE_CALL_ONLY else max(counts) > 1
    assert min(counts) == 1


@pytest.mark.parametrize("form", sorted(SOURCES))
def test_one_call(form: str) -> None:
    """A named function is called once; so is one of several where calls may not be parallel."""
    words = Words(True)
    for choice, parallel, names in ((NAMED, None, {"places"}), ("required", False, set(BOTH))):
        tools = forced(SOURCES[form], [PLACES, STOP], choice, parallel)
        constraint = compiled(tools, words)
        found = set()
        for seed in range(12):
            text = words.text(drawn(constraint, words, seed), tools.visible(words))
            # Another reader, which would take more calls and other functions.
            (call,) = split_calls(text, forced(SOURCES[form], [PLACES, STOP]))[1]
            found.add(call.name)
        assert found == names


def test_markers_are_shown_where_they_are_control_tokens() -> None:
    """Without `visible` the markers of a reply would be lost with its calls."""
    words, tools = Words(True), forced(FORMATS["hermes"], [STOP])
    ids = drawn(compiled(tools, words), words, 1)
    assert "<tool_call>" not in words.text(ids, frozenset())
    assert words.text(ids, tools.visible(words)).startswith("<tool_call>\n")
    assert forced(FORMATS["hermes"], [STOP]).visible(Words(False)) == frozenset()


def test_notes_are_left_out() -> None:
    """What only people read takes no room, but parameters may have such names."""
    properties = {"title": {"type": "string", "title": "T"}, "b": {"enum": [{"default": 1}]}}
    parameters = {"description": "D" * 40_000, "properties": properties}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    grammar = forced("", [tool]).grammar(Words(False))
    schema = json.loads(grammar.partition("%json ")[2])
    assert schema["properties"] == {"title": {"type": "string"}, "b": properties["b"]}
    assert schema["additionalProperties"] is False
    assert len(grammar) < 500


def test_other_arguments_where_the_schema_says_more() -> None:
    """Only a schema that lists its properties, and says no more, is taken as complete."""
    others: list[dict[str, Any]] = [
        {"additionalProperties": True},
        {"patternProperties": {}},
        {"allOf": [{}]},
        {"required": ["b"]},
    ]
    for more in others:
        parameters = {"properties": {"a": {}}, **more}
        tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
        schema = json.loads(forced("", [tool]).grammar(Words(False)).partition("%json ")[2])
        assert schema.get("additionalProperties") is more.get("additionalProperties")


def test_schemas_that_are_too_large() -> None:
    """One sentence that says what to do instead of a grammar that takes seconds."""
    properties = {f"property-{i}": {"type": "string"} for i in range(100)}
    tools = [
        {
            "type": "function",
            "function": {"name": f"f{i}", "parameters": {"properties": properties}},
        }
        for i in range(10)
    ]
    with pytest.raises(UsageError, match=r"^the tools' parameters have more than 32000 bytes"):
        forced("", tools).grammar(Words(False))
    assert forced("", tools, {"type": "function", "function": {"name": "f1"}}).grammar(Words(True))


def test_schemas_that_cannot_be_kept() -> None:
    """What JSON or llguidance cannot hold is one line, not a stall."""
    for parameters in (
        {"type": "object", "properties": {"a": {"const": float("nan")}}},
        {"type": "object", "properties": {"a": {"$ref": "https://example.com"}}},
        {"type": "object", "properties": {"a": {"pattern": "(" * 99}}},
    ):
        tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
        with pytest.raises(UsageError) as caught:
            compiled(forced("", [tool]), Words(False))
        assert "\n" not in str(caught.value)
    assert "x-guidance" not in json.dumps(SCHEMA)
