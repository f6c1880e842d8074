"""Conversations -> prompts: what is a conversation, and its plain form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from eftlocal.errors import PromptError
from eftlocal.prompts import (
    MAX_MESSAGES,
    Message,
    check_messages,
    plain_transcript,
    without_thinking,
)

from .tool_data import STOP, WEATHER

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi {{ 7 * 6 }} é"}
REPLY = {"role": "assistant", "content": " Hello. "}
AGAIN = {"role": "user", "content": "And\nyou?"}
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"a": 1}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOLD = {"role": "tool", "content": "blue", "tool_call_id": "1", "name": "weather"}


def calling(*calls: object, **more: object) -> list[dict[str, object]]:
    """A conversation whose second message calls something."""
    return [dict(USER), {"role": "assistant", "tool_calls": list(calls), **more}]


def function(**function: object) -> dict[str, object]:
    """A call."""
    return {"function": {"name": "f", **function}}


def deep(levels: int) -> object:
    """Nested lists."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


MESSAGES: dict[str, tuple[object, str]] = {
    "none": ([], "there are no messages"),
    "a string": ("Hello", "there are no messages; give a list"),
    "one message": (USER, "there are no messages; give a list"),
    "no table": ([USER, "Hello"], "message 2 is not a table"),
    "role": ([USER, {"role": "robot", "content": ""}], "message 2 has role 'robot'; use system,"),
    "no role": ([{"content": "Hello"}], "message 1 has role None"),
    "no content": ([{"role": "user"}], "message 1 has no text content"),
    "too many": ([USER] * (MAX_MESSAGES + 1), "there are 10001 messages; at most 10000"),
    "calls of a user": ([{**USER, "tool_calls": [CALL]}], "message 1 has tool_calls, which only"),
    "no calls": (calling(), "message 2 has no text content"),
    "calls as a text": ([USER, {**REPLY, "tool_calls": "f"}], "the tool_calls of message 2 are"),
    "many calls": (calling(*[CALL] * 257), "message 2 has 257 tool_calls; at most 256"),
    "no function": (calling(CALL, {}), "a tool call of message 2 has no function with a name"),
    "no name": (calling(function(name="")), "a tool call of message 2 has no function with"),
    "a long name": (calling(function(name="n" * 257)), "a tool call of message 2 has a name or"),
    "a number as id": (calling({**CALL, "id": 1}), "a tool call of message 2 has a name or an id"),
    "arguments": (calling(function(arguments=1)), "a tool call of message 2 has arguments that"),
    "deep arguments": (
        calling(function(arguments={"a": deep(60_000)})),
        "a tool call of message 2 has arguments that are nested too deep",
    ),
    "thinking": ([USER, {**REPLY, "reasoning_content": 1}], "the reasoning_content of message 2"),
    "id": ([{**TOLD, "tool_call_id": "1" * 257}], "the tool_call_id of message 1 is not a short"),
    "deep role": ([{"role": deep(60_000), "content": ""}], "message 1 has role [[[["),
    "no answer of a tool": ([{"role": "tool", "content": None}], "message 1 has no text content"),
    "parts": ([USER, {"role": "user", "content": [{"type": "text"}]}], "message 2 has no text"),
}


@pytest.mark.parametrize(("messages", "wanted"), MESSAGES.values(), ids=MESSAGES)
def test_bad_messages(messages: Sequence[Message], wanted: str) -> None:
    """The first message that is wrong is named."""
    with pytest.raises(PromptError, match=f"^{re.escape(wanted)}"):
        check_messages(messages)


def test_good_messages_pass() -> None:
    """All roles, empty content, and calls with and without content, ids and arguments."""
    check_messages([SYSTEM, USER, {"role": "assistant", "content": ""}, AGAIN])
    developer = {"role": "developer", "content": "Be brief."}
    check_messages([developer, USER, CALLING, TOLD, {**CALLING, "content": "Wait."}, TOLD])
    check_messages([*calling(function(), function(arguments={"a": [1]})), {**TOLD, "name": None}])
    check_messages([USER, {**REPLY, "tool_calls": None, "reasoning_content": None}])


def test_plain_transcript() -> None:
    """System text bare, then User: and Assistant: lines, open for the reply."""
    assert plain_transcript([USER]) == "User: Hi {{ 7 * 6 }} é\nAssistant:"
    wanted = "Be brief.\nUser: Hi {{ 7 * 6 }} é\nAssistant:  Hello. \nUser: And\nyou?\nAssistant:"
    assert plain_transcript([SYSTEM, USER, REPLY, AGAIN]) == wanted


def test_plain_transcript_with_tools() -> None:
    """Signatures first, calls as in Python, answers of tools in lines of their own."""
    wanted = (
        "Tools:\n- weather(city: string, days: integer): Tells the weather.\n- stop()\n"
        'Be brief.\nUser: Go\nAssistant: Wait.\nweather({"a": 1})\nTool: blue\nAssistant:'
    )
    developer = {"role": "developer", "content": "Be brief."}
    user = {"role": "user", "content": "Go"}
    messages: list[Message] = [developer, user, {**CALLING, "content": "Wait."}, TOLD]
    assert plain_transcript(messages, [WEATHER, STOP]) == wanted
    silent: list[Message] = [
        user,
        *calling(function(arguments={"a": "\xe9"}), function())[1:],
        TOLD,
    ]
    lines = ["User: Go", 'Assistant: f({"a": "\xe9"})', "f({})", "Tool: blue", "Assistant:"]
    assert plain_transcript(silent) == "\n".join(lines)


def test_thinking_of_a_turn_with_tools() -> None:
    """Earlier turns lose it; in the turn that goes on it stands apart for the template."""
    thought = {"role": "assistant", "content": "<think>\na\n</think>\n\nb"}
    given = {"role": "assistant", "content": "b", "reasoning_content": "a"}
    wanted = [{"role": "assistant", "content": "b"}, USER, given, TOLD]
    assert without_thinking([thought, USER, thought, TOLD]) == wanted
    assert without_thinking([given, USER, given, TOLD]) == wanted
    assert without_thinking([USER, CALLING, TOLD]) == [USER, CALLING, TOLD]
