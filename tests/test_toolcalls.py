"""Calls of tools in replies: every form, however the text is cut, and what is no call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.toolcalls import CallDelta, Tools, ToolStream, gathered, read_tools, split_calls
from eftlocal.toolcalls.formats import DEEPSEEK, SYNTAXES

from .tool_data import FORMATS, REPLIES, TOOLS, tools_of

FRAGMENTS = (
    *(marker for syntax in SYNTAXES for marker in (*syntax.opens, *syntax.closes)),
    *(
        "<tool",
        "_call>",
        "[TOOL",
        "[ARGS]",
        "<function=weather>",
        "weather",
        "stop",
        "<parameter=a>",
        "</parameter>",
    ),
    *('{"name": "weather", ', '"arguments": ', '"parameters": ', '{"city": "Oslo"}', "{}"),
    *("{", "}", "[", "]", '"', ":", ",", ";", "\\", "\\u00e9", "1.5e3", "null", "a", " ", "\n"),
)
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)
ALL = tools_of("".join(marker for syntax in SYNTAXES for marker in syntax.opens))
Calls = list[tuple[str, str]]


def in_pieces(pieces: Iterable[str], tools: Tools) -> tuple[str, Calls]:
    """What a stream makes of all pieces together; every call has an id of its own."""
    stream = ToolStream(tools)
    found = [delta for piece in pieces for delta in stream.feed(piece)] + stream.finish()
    text, calls = gathered(found)
    assert len({call.id for call in calls}) == len(calls) == stream.count
    return text, [(call.name, call.arguments) for call in calls]


def whole(text: str, tools: Tools) -> tuple[str, Calls]:
    """What is made of a text in one piece."""
    content, calls = split_calls(text, tools)
    return content, [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize(("form", "text", "content", "calls"), REPLIES.values(), ids=REPLIES)
def test_replies(form: str, text: str, content: str, calls: Sequence[tuple[str, Any]]) -> None:
    """The text without calls, and the calls with their arguments, in one piece and in letters."""
    tools = tools_of(FORMATS[form])
    found = whole(text, tools)
    assert found[0] == content
    assert [(name, json.loads(arguments)) for name, arguments in found[1]] == list(calls)
    assert in_pieces(text, tools) == found
    for place in range(len(text)):
        assert in_pieces((text[:place], text[place:]), tools) == found


@settings(max_examples=600, deadline=None)
@given(TEXTS, st.sampled_from((*FORMATS.values(), None)), st.lists(st.integers(0, 200), max_size=9))
def test_any_cutting_gives_the_same(text: str, source: str | None, cuts: list[int]) -> None:
    """Pieces of any size, also in the middle of a marker or a number, end as the whole text."""
    tools = ALL if source is None else tools_of(source)
    found = whole(text, tools)
    assert in_pieces(text, tools) == found
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert in_pieces((text[start:end] for start, end in pairwise(places)), tools) == found


@settings(max_examples=600, deadline=None)
@given(st.one_of(TEXTS, st.text(max_size=60)))
def test_no_text_is_lost_without_a_call(text: str) -> None:
    """Whatever comes, a reply that calls nothing stays as it is, letter for letter."""
    content, calls = whole(text, ALL)
    if not calls:
        assert content == text
    other = read_tools([{"type": "function", "function": {"name": "another"}}])
    assert other is not None
    if "another" not in text:
        assert whole(text, other.for_template(FORMATS["hermes"])) == (text, [])


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_pieces_come_in_order(text: str) -> None:
    """Calls are numbered from 0; a name comes once, before the arguments; nothing is empty."""
    stream, begun = ToolStream(ALL), 0
    for piece in [delta for c in text for delta in stream.feed(c)] + stream.finish():
        if isinstance(piece, str):
            assert piece
        elif piece.name is not None:
            assert piece.index == begun
            assert piece.id
            assert piece.name in ALL.names
            begun += 1
        else:
            assert piece.index == begun - 1
            assert piece.arguments
            assert piece.id is None


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), json_values, max_size=4),
    st.sampled_from((None, 1, "\t")),
    st.booleans(),
    st.sampled_from(sorted(FORMATS)),
)
def test_any_arguments_come_through(
    value: dict[str, Any], indent: str | int | None, ascii_only: bool, form: str
) -> None:
    """Whatever JSON the model writes is the arguments' text, byte for byte."""
    arguments = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    text = written(form, arguments)
    content, calls = whole(text, tools_of(FORMATS[form]))
    assert (content, calls) == ("", [("weather", arguments), ("stop", "{}")])
    assert in_pieces(text, tools_of(FORMATS[form])) == ("", calls)


def written(form: str, arguments: str) -> str:
    """Two calls as models of that format write them, the second without arguments."""
    first = f'{{"name": "weather", "arguments": {arguments}}}'
    second = '{"name": "stop", "arguments": {}}'
    (one, more), (end, last), sep = DEEPSEEK.opens, DEEPSEEK.closes, DEEPSEEK.separator
    return {
        "hermes": f"<tool_call>\n{first}\n</tool_call>\n<tool_call>\n{second}\n</tool_call>",
        "llama": f"<|python_tag|>{first}; {second}",
        "bare": f"{first}\n{second}",
        "mistral": f"[TOOL_CALLS][{first}, {second}]",
        "function": f"<function=weather>{arguments}</function>\n<function=stop>{{}}</function>",
        "coder": f"<tool_call>{first}</tool_call><function=stop></function>",
        "phi": f"<|tool_call|>[{first}, {second}]<|/tool_call|>",
        "deepseek": f"{one}function{sep}weather\n```json\n{arguments}\n```{end}\n"
        f"{more}function{sep}stop\n```json\n{{}}\n```{end}{last}",
    }[form]


def test_names_and_arguments_stream() -> None:
    """The name comes with the first letters of the arguments, and these as they come."""
    stream = ToolStream(tools_of(FORMATS["hermes"]), lambda: "id")
    assert stream.feed("Wait. <tool") == ["Wait."]
    assert stream.feed('_call>\n{"name": "weather", "arguments": {') == []
    assert stream.feed('"ci') == [CallDelta(0, "", "id", "weather"), CallDelta(0, '{"ci')]
    assert stream.feed('ty": "Os') == [CallDelta(0, 'ty": "Os')]
    assert stream.feed('lo"}') == [CallDelta(0, 'lo"}')]
    assert stream.feed("}\n</tool_call>\n") == []
    assert stream.feed("Done") == ["\nDone"]
    assert stream.finish() == []


def test_no_more_is_held_back_than_may_be_a_call() -> None:
    """Text comes at once, but for white space and the beginnings of markers."""
    stream = ToolStream(tools_of(FORMATS["hermes"]))
    pieces = ["Is 1 <", " 2?", " <tool", "s> ", "\n", "x {", '"name"']
    shown = [stream.feed(piece) for piece in pieces]
    assert shown == [["Is 1"], [" < 2?"], [], [" <tools>"], [], [" \nx {"], ['"name"']]


BROKEN = {
    "a word": ('{"city": Oslo}}\n</tool_call>\n', '{"city": Oslo}}\n'),
    "a trailing comma": ('{"city": "Oslo",}}</tool_call>', '{"city": "Oslo",}}'),
    "a wrong escape": ('{"city": "\\x"}}</tool_call>', '{"city": "\\x"}}'),
    "no comma": ('{"city": "Oslo" "days": 3}}</tool_call>', '{"city": "Oslo" "days": 3}}'),
    "another list": ('{"city": [1}}</tool_call>', '{"city": [1}}'),
    "cut off": ('{"city": "Os', '{"city": "Os'),
    "cut off after a mistake": ('{"city": Os</tool', '{"city": Os</tool'),
    "too deep": ('{"a": ' + "[" * 100 + "</tool_call>", '{"a": ' + "[" * 100),
}


@pytest.mark.parametrize(("rest", "arguments"), BROKEN.values(), ids=BROKEN)
def test_arguments_that_are_no_json(rest: str, arguments: str) -> None:
    """A call that has begun keeps what the model wrote up to the marker; then text goes on."""
    text = '<tool_call>{"name": "weather", "arguments": ' + rest
    tools = tools_of(FORMATS["hermes"])
    for behind in ("", "So.", written("hermes", "{}")) if "</tool_call>" in rest else ("",):
        content, calls = whole(text + behind, tools)
        assert calls[0] == ("weather", arguments)
        assert in_pieces(text + behind, tools) == (content, calls)
        assert content == ("So." if behind == "So." else "")
        assert len(calls) == (3 if behind.startswith("<") else 1)


def test_one_call_where_there_may_be_no_more() -> None:
    """parallel_tool_calls = false: the calls behind the first one are left out."""
    for options in ({"parallel": False}, {"choice": TOOLS_CHOICE}):
        tools = read_tools(TOOLS, **options)
        assert tools is not None
        form = tools.for_template(FORMATS["hermes"])
        text = written("hermes", "{}").replace("stop", "weather")
        assert whole(text, form) == ("", [("weather", "{}")])


TOOLS_CHOICE = {"type": "function", "function": {"name": "weather"}}


def test_ids() -> None:
    """Random and of OpenAI's form, but nine letters for Mistral; a function of a seed if given."""
    text, hermes = written("hermes", "{}"), tools_of(FORMATS["hermes"])
    first = [call.id for call in split_calls(text, hermes)[1]]
    assert all(id.startswith("call_") and id[5:].isalnum() for id in first)
    assert first != [call.id for call in split_calls(text, hermes)[1]]
    again = [split_calls(text, hermes, seed="1")[1] for _ in range(2)]
    assert again[0] == again[1]
    assert again[0] != split_calls(text, hermes, seed="2")[1]
    mistral = split_calls(written("mistral", "{}"), tools_of(FORMATS["mistral"]))[1]
    assert all(len(call.id) == 9 and call.id.isalnum() for call in mistral)


def test_long_and_deep_texts_take_little_time() -> None:
    """A thousand letters cost the same wherever they stand; no nesting ends in an exception."""
    for start in ("", "<tool_call>", '<tool_call>{"name": "weather", "arguments": {"a": '):
        for unit in ("<tool_call>", '{"a":', "[", '"', " ", "<", '\\"', "[[1,"):
            text = start + unit * 3_000
            content, calls = whole(text, ALL)
            assert content == text or calls
