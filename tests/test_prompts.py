"""Conversations -> prompts: what is a conversation, and its plain form."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from eftlocal.errors import PromptError
from eftlocal.prompts import Message, check_messages, plain_transcript

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi {{ 7 * 6 }} é"}
REPLY = {"role": "assistant", "content": " Hello. "}
AGAIN = {"role": "user", "content": "And\nyou?"}

MESSAGES: dict[str, tuple[object, str]] = {
    "none": ([], "there are no messages"),
    "a string": ("Hello", "there are no messages; give a list"),
    "one message": (USER, "there are no messages; give a list"),
    "no table": ([USER, "Hello"], "message 2 is not a table"),
    "role": ([USER, {"role": "robot", "content": ""}], "message 2 has role 'robot'; use system,"),
    "no role": ([{"content": "Hello"}], "message 1 has role None"),
    "no content": ([{"role": "user"}], "message 1 has no text content"),
    "parts": ([USER, {"role": "user", "content": [{"type": "text"}]}], "message 2 has no text"),
}


@pytest.mark.parametrize(("messages", "wanted"), MESSAGES.values(), ids=MESSAGES)
def test_bad_messages(messages: Sequence[Message], wanted: str) -> None:
    """The first message that is wrong is named."""
    with pytest.raises(PromptError, match=f"^{re.escape(wanted)}"):
        check_messages(messages)


def test_good_messages_pass() -> None:
    """All three roles, and empty content."""
    check_messages([SYSTEM, USER, {"role": "assistant", "content": ""}, AGAIN])


def test_plain_transcript() -> None:
    """System text bare, then User: and Assistant: lines, open for the reply."""
    assert plain_transcript([USER]) == "User: Hi {{ 7 * 6 }} é\nAssistant:"
    wanted = "Be brief.\nUser: Hi {{ 7 * 6 }} é\nAssistant:  Hello. \nUser: And\nyou?\nAssistant:"
    assert plain_transcript([SYSTEM, USER, REPLY, AGAIN]) == wanted
