"""Tools over HTTP, with the openai package: whole answers, streams, several turns, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import eftlocal

from . import callers
from .callers import NAMED, OPTIONS, QUESTION, THINK, THINK_END, TOOLS, is_right
from .conftest import Trio
from .full_server import CHAT, Running, exact, serve
from .tool_templates import QWEN_2_5, QWEN_3

FORCED: dict[str, Any] = {
    "model": "exact",
    "messages": QUESTION,
    "tools": TOOLS,
    "tool_choice": "required",
    "temperature": OPTIONS["temperature"],
    "max_tokens": OPTIONS["max_tokens"],
    "extra_body": {"alpha": OPTIONS["alpha"]},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    """Models whose template has tools."""
    return callers.write(tmp_path_factory.mktemp("callers"), QWEN_2_5)


@pytest.fixture(scope="module")
def server(files: Trio) -> Iterator[Running]:
    """A server with them."""
    with serve(exact(files)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    """The package as people use it, which checks what it gets."""
    with openai.OpenAI(
        base_url=f"{server.url}/v1",
        api_key="none",
        max_retries=0,
        timeout=60,
        _strict_response_validation=True,
    ) as made:
        yield made


def test_calls_in_one_piece(client: openai.OpenAI, files: Trio) -> None:
    """The calls of the Python API, with ids, and no text beside them."""
    with eftlocal.load(**files._asdict(), threads=1) as model:
        for seed in range(4):
            answer = client.chat.completions.create(**FORCED, seed=seed)
            (choice,) = answer.choices
            assert choice.finish_reason == "tool_calls"
            assert choice.message.content is None
            found = [call_of(call) for call in choice.message.tool_calls or []]
            options = {**OPTIONS, "seed": seed, "tools": TOOLS, "tool_choice": "required"}
            expected = model.chat(QUESTION, **options)
            assert found == [(call.name, call.arguments) for call in expected.tool_calls]
            assert all(is_right(name, json.loads(text)) for name, text in found)
            ids = [call.id for call in choice.message.tool_calls or []]
            assert len(set(ids)) == len(found) >= 1
            assert all(id.startswith("call_") for id in ids)


def call_of(call: Any) -> tuple[str, str]:
    """Name and arguments of a call."""
    assert call.type == "function"
    return call.function.name, call.function.arguments


def test_a_stream_of_calls(client: openai.OpenAI) -> None:
    """Name and id first, then the arguments in pieces; together they are the whole answer's."""
    for seed in range(3):
        whole = client.chat.completions.create(**FORCED, seed=seed).choices[0].message
        stream = client.chat.completions.create(**FORCED, seed=seed, stream=True)
        chunks = [chunk.choices[0] for chunk in stream if chunk.choices]
        assert [c.finish_reason for c in chunks if c.finish_reason] == ["tool_calls"]
        assert not any(chunk.delta.content for chunk in chunks)
        pieces = [piece for chunk in chunks for piece in chunk.delta.tool_calls or []]
        found: list[list[str]] = []
        for piece in pieces:
            assert piece.function is not None
            if piece.id:
                assert piece.index == len(found) and piece.type == "function"
                found.append([piece.function.name or "", ""])
            assert piece.index == len(found) - 1
            found[-1][1] += piece.function.arguments or ""
        assert [tuple(call) for call in found] == [call_of(call) for call in whole.tool_calls or []]
        assert len(pieces) > 2 * len(found)


def test_one_call(client: openai.OpenAI) -> None:
    """A function by its name; and one call where they may not be parallel."""
    for changes in ({"tool_choice": NAMED}, {"parallel_tool_calls": False}):
        for seed in range(3):
            answer = client.chat.completions.create(**{**FORCED, **changes}, seed=seed)
            (call,) = answer.choices[0].message.tool_calls or []
            assert "tool_choice" not in changes or call_of(call)[0] == "weather"


def test_thinking_and_calls(tmp_path: Path) -> None:
    """Thinking is apart from the calls, in the answer and in the stream."""
    letter = next(place for place, token in enumerate(callers.TOKENS) if token.text == "a")
    body = {key: value for key, value in FORCED.items() if key != "extra_body"}
    body |= {"logit_bias": dict.fromkeys(map(str, (THINK, THINK_END, letter)), 60.0)}
    body |= {"alpha": 1.0, "draft": "off", "parallel_tool_calls": False}
    thoughts = set()
    with serve(exact(callers.write(tmp_path, QWEN_3))) as server:
        for seed in range(4):
            choice = server.post(CHAT, **body, seed=seed)["choices"][0]
            parts = server.stream(CHAT, **body, seed=seed)
            deltas = [part["choices"][0]["delta"] for part in parts]
            message = choice["message"]
            assert choice["finish_reason"] == "tool_calls"
            assert message["tool_calls"] and message["content"] is None
            thinking = "".join(delta.get("reasoning_content", "") for delta in deltas)
            assert thinking == message.get("reasoning_content", "")
            assert not any(delta.get("content") for delta in deltas)
            thoughts.add(thinking)
    assert max(map(len, thoughts)) > 1


def test_a_conversation_with_answers_of_tools(client: openai.OpenAI, server: Running) -> None:
    """The package's own message goes back, and the tool's answer after it."""
    message = client.chat.completions.create(**FORCED, seed=1).choices[0].message
    told = [
        {"role": "tool", "tool_call_id": call.id, "content": [{"type": "text", "text": "rain"}]}
        for call in message.tool_calls or []
    ]
    messages = [*QUESTION, message.model_dump(), *told]
    body = {**FORCED, "messages": messages, "tool_choice": "auto", "max_tokens": 4}
    answer = client.chat.completions.create(**body, seed=1)
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens or 0 > 100
    text = server.post("/apply-template", messages=messages, tools=TOOLS)["prompt"]
    assert text.count("<tool_response>\nrain\n</tool_response>") == len(told)
    for call in message.tool_calls or []:
        name, arguments = call_of(call)
        # This tokenizer puts a blank behind each marker.
        assert f'<tool_call> \n{{"name": "{name}", "arguments": {arguments}}}' in text


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no list": ({"tools": {"a": 1}}, "tools"),
    "no name": ({"tools": [{"type": "function", "function": {}}]}, "tools[0] has the name None"),
    "web search": ({"tools": [{"type": "web_search"}]}, "only function tools"),
    "choice": ({"tool_choice": "any"}, "tool_choice = 'any' is not allowed"),
    "no such tool": (
        {"tool_choice": {"type": "function", "function": {"name": "go"}}},
        "tool_choice names 'go'",
    ),
    "without tools": ({"tools": None}, "there are no tools"),
    "a number": ({"parallel_tool_calls": 3}, "parallel_tool_calls"),
    "two forms": ({"response_format": {"type": "json_object"}}, "cannot go together"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "no images",
    ),
    "calls of a user": (
        {"messages": [{"role": "user", "content": "a", "tool_calls": [{}]}]},
        "only an assistant's",
    ),
    "a pattern that is a bomb": (
        {
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "f",
                        "parameters": {"properties": {"a": {"pattern": "(" * 300}}},
                    },
                }
            ]
        },
        "pattern",
    ),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(server: Running, changes: dict[str, Any], words: str) -> None:
    """A 400 with one clear sentence."""
    body = {key: value for key, value in FORCED.items() if key != "extra_body"}
    error = server.refused(CHAT, **{**body, **changes})
    assert words in error["message"]
    assert "\n" not in error["message"]


def test_a_template_without_tools_is_a_400(trio: Trio) -> None:
    """Tools are never left out silently."""
    with serve(exact(trio)) as plain:
        error = plain.refused(CHAT, messages=QUESTION, tools=TOOLS)
        assert error["message"] == "the model's chat template has no tools"
