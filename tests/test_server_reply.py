"""A reply's text -> deltas: thinking first, then content and calls, whatever the pieces."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage
from openai.types.chat.chat_completion_chunk import ChoiceDelta

from eftlocal.reasoning import split
from eftlocal.server.openai.reply import Delta, ReplyParser, message_of
from eftlocal.toolcalls import CallDelta, Tools, split_calls

from .tool_data import FORMATS, tools_of

HERMES = tools_of(FORMATS["hermes"])
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
FRAGMENTS = ("<think>", "</think>", CALL, "<tool_call>", "</tool", "a", " ", "\n", '{"name": ', "}")
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join)


def deltas(pieces: Iterable[str], opened: bool, tools: Tools | None) -> list[Delta]:
    """All deltas of a reply; each holds one thing that is not empty."""
    parser = ReplyParser(opened, tools)
    found = [delta for piece in pieces for delta in parser.feed(piece)] + parser.finish()
    for delta in found:
        given = [delta.reasoning_content, delta.content, delta.tool_call]
        assert sum(part is not None for part in given) == 1
        assert any(given)
    assert parser.has_calls == any(delta.tool_call for delta in found)
    return found


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose calls have no ids, which are random."""
    calls = [call["function"] for call in message.get("tool_calls", [])]
    return {**message, "tool_calls": calls}


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.booleans(), st.sampled_from((None, HERMES)), st.lists(st.integers(0, 300)))
def test_any_cutting_gives_the_same_message(
    text: str, opened: bool, tools: Tools | None, cuts: list[int]
) -> None:
    """The message is that of the parts that were tested alone, in any order of pieces."""
    thinking, answer = split(text, opened)
    content, calls = split_calls(answer, tools) if tools else (answer, ())
    wanted: dict[str, Any] = {"role": "assistant", "content": content}
    if thinking:
        wanted["reasoning_content"] = thinking
    if calls:
        wanted["content"] = content or None
    wanted["tool_calls"] = [{"name": c.name, "arguments": c.arguments} for c in calls]
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    for given_pieces in ([text], list(text), pieces):
        assert without_ids(message_of(deltas(given_pieces, opened, tools))) == wanted


def test_the_deltas_of_a_stream() -> None:
    """Thinking, content, then a call whose first piece has id and name."""
    text = f"<think>\nHm\n</think>\n\nI look.\n{CALL}"
    found = deltas(list(text), False, HERMES)
    assert message_of(found)["reasoning_content"] == "Hm"
    calls = [delta.tool_call for delta in found if delta.tool_call]
    kinds = [next(iter(delta.to_json())) for delta in found]
    assert sorted(set(kinds), key=kinds.index) == ["reasoning_content", "content", "tool_calls"]
    assert (calls[0].name, calls[0].arguments) == ("weather", "")
    assert all(call.name is None and call.id is None for call in calls[1:])
    assert "".join(call.arguments for call in calls) == '{"city": "Oslo"}'
    assert len(calls) > 10


@pytest.mark.parametrize(
    ("delta", "wanted"),
    [
        (Delta(content="a"), {"content": "a"}),
        (Delta(reasoning_content="a"), {"reasoning_content": "a"}),
        (
            Delta(tool_call=CallDelta(1, "", "call_1", "f")),
            {
                "tool_calls": [
                    {
                        "index": 1,
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "f", "arguments": ""},
                    }
                ]
            },
        ),
        (
            Delta(tool_call=CallDelta(1, "{")),
            {"tool_calls": [{"index": 1, "function": {"arguments": "{"}}]},
        ),
    ],
)
def test_deltas_as_json(delta: Delta, wanted: dict[str, Any]) -> None:
    """As the openai package reads them."""
    assert delta.to_json() == wanted
    read = ChoiceDelta.model_validate(wanted)
    assert read.model_dump(exclude_unset=True) == wanted


def test_messages_as_json() -> None:
    """As the openai package reads them: keys that would be empty are not there."""
    assert message_of([]) == {"role": "assistant", "content": ""}
    assert message_of([Delta(content="a")]) == {"role": "assistant", "content": "a"}
    message = message_of(deltas([CALL, "\n", CALL], False, HERMES))
    assert message["content"] is None
    read = ChatCompletionMessage.model_validate(message)
    assert read.model_dump(exclude_unset=True) == message
    assert read.tool_calls is not None
    assert [call.type for call in read.tool_calls] == ["function", "function"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}


def test_how_a_reply_with_calls_ends() -> None:
    """A call that was cut off ends as its completion did."""
    parser, plain = ReplyParser(False, HERMES), ReplyParser(False, None)
    for each in (parser, plain):
        each.feed(CALL[:-20])
    assert [parser.finish_reason(reason) for reason in ("stop", "length")] == [
        "tool_calls",
        "length",
    ]
    assert plain.finish_reason("stop") == "stop"
    assert message_of(plain.finish())["content"] == ""
