"""Messages of OpenAI's API: contents of any form become text; what is no text is refused."""

from __future__ import annotations

from typing import Any

import pytest

from eftlocal.prompts import check_messages
from eftlocal.server.failures import ApiError
from eftlocal.server.openai.messages import plain_messages


def user(content: object) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": content}


def text(value: str) -> dict[str, str]:
    """A part with a text."""
    return {"type": "text", "text": value}


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SAID: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "refusal": None,
    "annotations": [],
    "audio": None,
}

PLAIN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a text": (user("Hi"), user("Hi")),
    "parts": (user([text("Hi "), text("you"), "!"]), user("Hi you!")),
    "no parts": (user([]), user("")),
    "a refusal": (
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": "No."},
    ),
    "calls as the package sends them back": (
        {**SAID, "function_call": None, "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ),
    "an answer of a tool": (
        {"role": "tool", "tool_call_id": "1", "content": [text("blue")], "name": None},
        {"role": "tool", "tool_call_id": "1", "content": "blue"},
    ),
    "thinking": (
        {"role": "assistant", "content": "b", "reasoning_content": "a", "reasoning": "c"},
        {"role": "assistant", "content": "b", "reasoning_content": "a"},
    ),
    "thinking by its other name": (
        {"role": "assistant", "content": "b", "reasoning": "a", "other": {}},
        {"role": "assistant", "content": "b", "reasoning_content": "a"},
    ),
}


@pytest.mark.parametrize(("given", "wanted"), PLAIN.values(), ids=PLAIN)
def test_plain_messages(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    """What comes out is a message that conversations may have."""
    (message,) = plain_messages([given])
    assert message == wanted
    check_messages([message])


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
DEEP: list[Any] = []
for _ in range(60_000):
    DEEP = [DEEP]

REFUSED: dict[str, tuple[object, str, str]] = {
    "an image": (user([text("a"), IMAGE]), "messages[1].content[1]", "no images"),
    "audio": (user([{"type": "input_audio"}]), "messages[1].content[0]", "no audio"),
    "a file": (user([{"type": "file", "file": {}}]), "messages[1].content[0]", "no files"),
    "an unknown part": (user([{"type": "hologram"}]), "messages[1].content[0]", "is {'type': 'hol"),
    "a part without text": (
        user([{"type": "text"}]),
        "messages[1].content[0]",
        "use parts such as",
    ),
    "a number as text": (
        user([{"type": "text", "text": 1}]),
        "messages[1].content[0]",
        "use parts",
    ),
    "a number as part": (user([1]), "messages[1].content[0]", "is 1; use parts"),
    "a part of a strange type": (user([{"type": []}]), "messages[1].content[0]", "use parts"),
    "a deep part": (user([DEEP]), "messages[1].content[0]", "is [[[["),
    "many parts": (user(["a"] * 10_001), "messages[1].content", "more than 10000 parts"),
    "no message": (1, "messages[1]", "is not an object"),
    "the old form of calls": (
        {"role": "assistant", "content": None, "function_call": {"name": "f"}},
        "messages[1]",
        "use tool_calls",
    ),
    "audio of a reply": (
        {"role": "assistant", "content": None, "audio": {"id": "a"}},
        "messages[1].audio",
        "reads text only",
    ),
}


@pytest.mark.parametrize(("message", "param", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(message: Any, param: str, words: str) -> None:
    """A 400 with one short sentence that names the part."""
    with pytest.raises(ApiError) as caught:
        plain_messages([user("Hi"), message])
    error = caught.value
    assert (error.status, error.param) == (400, param)
    assert words in str(error)
    assert str(error).startswith("messages[1]")
    assert "\n" not in str(error)
    assert len(str(error)) < 300


def test_other_contents_are_left_to_the_check() -> None:
    """Wrong roles and contents get the words that Python's users get, too."""
    for content in (1, {"type": "text"}, None, True):
        (message,) = plain_messages([user(content)])
        assert message["content"] == content
