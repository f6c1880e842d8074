"""Whatever JSON a request holds for messages and tools: it works, or ends in one clear line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.constraints import Compiler
from eftlocal.errors import EftlocalError
from eftlocal.options import GenerationOptions
from eftlocal.prompts import check_messages, plain_transcript, without_thinking
from eftlocal.server.openai.messages import plain_messages
from eftlocal.templates import ChatTemplate
from eftlocal.toolcalls import read_tools, split_calls

from .marker_words import Words
from .tool_data import FORMATS
from .tool_templates import TEMPLATES

WORDS = Words(True)
COMPILER = Compiler(WORDS, WORDS.n_tokens, WORDS.eog)
CHAT_TEMPLATES = [ChatTemplate(source, "<s>", "</s>") for source in TEMPLATES.values()]
# Words that mean something somewhere, so that random values often get far.
NAMES = (
    *("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "function"),
    *("arguments", "id", "type", "text", "parameters", "description", "properties", "required"),
    *("$ref", "enum", "anyOf", "items", "pattern", "additionalProperties", "x-guidance"),
)
TEXTS = st.sampled_from(
    ("user", "assistant", "tool", "system", "developer", "function", "object", "string", "f", "{}")
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.text(max_size=5))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=3)), inner, max_size=4),
    ),
    max_leaves=12,
)


def mostly(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is right, now and then replaced by anything."""
    return st.integers(0, 24).flatmap(lambda n: values if n == 17 else strategy)


ROLES = st.sampled_from(("user", "assistant", "tool", "system", "developer"))
arguments = st.one_of(TEXTS, st.dictionaries(TEXTS, values, max_size=2))
calls = st.fixed_dictionaries(
    {"function": mostly(st.fixed_dictionaries({"name": mostly(TEXTS), "arguments": arguments}))},
    optional={"id": mostly(TEXTS), "type": mostly(TEXTS)},
)
parts = st.fixed_dictionaries({"type": mostly(st.just("text")), "text": mostly(TEXTS)})
contents = mostly(st.one_of(TEXTS, st.just("<think>a</think>b"), st.lists(parts, max_size=2)))
said = st.fixed_dictionaries(
    {"role": mostly(ROLES), "content": contents},
    optional={
        "name": mostly(TEXTS),
        "tool_call_id": mostly(TEXTS),
        "reasoning_content": mostly(TEXTS),
    },
)
called = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": st.one_of(st.none(), contents),
        "tool_calls": mostly(st.lists(mostly(calls), max_size=3)),
    },
)
messages = st.one_of(said, called)
kinds = st.sampled_from(("string", "integer", "array", "object", "boolean"))
schemas = st.recursive(
    st.fixed_dictionaries({"type": mostly(kinds)}, optional={"description": values}),
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(TEXTS, inner, max_size=3)},
            optional={"required": mostly(st.lists(TEXTS, max_size=2)), "title": values},
        ),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"type": st.just("array"), "items": mostly(inner)}),
    ),
    max_leaves=5,
)
parameters = st.fixed_dictionaries(
    {}, optional={"type": st.just("object"), "properties": st.dictionaries(TEXTS, schemas)}
)
functions = st.fixed_dictionaries(
    {"name": mostly(st.sampled_from(("f", "g", "h")))},
    optional={"description": mostly(TEXTS), "parameters": mostly(parameters)},
)
tools = st.fixed_dictionaries({"type": mostly(st.just("function")), "function": mostly(functions)})
several = st.lists(mostly(tools), min_size=1, max_size=3, unique_by=repr)
named = st.fixed_dictionaries({"type": st.just("function"), "function": mostly(functions)})
choices = mostly(st.one_of(st.sampled_from(("required", "auto")), named))


def line_of(error: EftlocalError) -> None:
    """The message is for people."""
    assert "\n" not in str(error)
    assert 0 < len(str(error)) < 1000


@settings(max_examples=500, deadline=None)
@given(mostly(st.lists(mostly(messages), min_size=1, max_size=4)), st.booleans())
def test_any_messages(given_messages: Any, keeps: bool) -> None:
    """Every template and the plain form either print them or refuse them."""
    if not isinstance(given_messages, list):
        return  # the schema of the body refuses these
    try:
        found: Any = plain_messages(given_messages)
        check_messages(found)
    except EftlocalError as error:
        line_of(error)
        return
    found = found if keeps else without_thinking(found)
    assert plain_transcript(found).endswith("Assistant:")
    for template in CHAT_TEMPLATES:
        try:
            assert isinstance(template.render(found), str)
        except EftlocalError as error:
            line_of(error)


@settings(max_examples=500, deadline=None)
@given(
    mostly(several),
    choices,
    mostly(st.sampled_from((None, True, False))),
    st.sampled_from(sorted(FORMATS)),
)
def test_any_tools(given_tools: Any, choice: Any, parallel: Any, form: str) -> None:
    """They are printed, read and asked for, or refused."""
    try:
        found = read_tools(given_tools, choice, parallel)
        if found is None:
            return
        found = found.for_template(FORMATS[form])
        assert plain_transcript([{"role": "user", "content": "a"}], found.definitions)
        for template in CHAT_TEMPLATES:
            template.render([{"role": "user", "content": "a"}], found.definitions)
        text = '{"name": "f", "arguments": {"a": 1}}<function=g><parameter=a>1</parameter>'
        split_calls(text, found)
        if found.is_forced:
            COMPILER.compile(GenerationOptions(grammar=found.grammar(WORDS)))
    except EftlocalError as error:
        line_of(error)


@pytest.mark.parametrize("text", ["9" * 5000, "1e999", "NaN", '"\\ud800"', "[" * 100_000])
def test_arguments_at_the_edge(text: str) -> None:
    """Numbers that Python refuses, values beyond JSON, half characters, and depth."""
    call = {"function": {"name": "f", "arguments": f'{{"a": {text}}}'}}
    said: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [call]},
    ]
    check_messages(said)
    for template in CHAT_TEMPLATES[:4]:
        assert isinstance(template.render(said), str)
    tools = read_tools([{"type": "function", "function": {"name": "f"}}])
    assert tools is not None
    reply = json.dumps(call["function"])
    (found,) = split_calls(reply, tools)[1] or (None,)
    assert found is None or found.name == "f"
