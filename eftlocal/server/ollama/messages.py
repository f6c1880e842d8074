"""Messages of Ollama's API <-> messages of OpenAI's, which the rest of the server takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...toolcalls import ToolCall
from ..failures import ApiError
from ..openai.messages import plain_messages

_KEPT = ("role", "content")
_KNOWN = frozenset((*_KEPT, "thinking", "images", "tool_calls", "tool_name", "name"))
_KNOWN |= {"tool_call_id"}


def openai_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What `FusedModel.prepare_chat` takes.

    Raises:
        ApiError: 400 for images and unknown keys, naming the message.
    """
    return plain_messages([_message(message, i) for i, message in enumerate(messages)])


def _message(message: Mapping[str, Any], place: int) -> dict[str, Any]:
    where = f"messages[{place}]"
    for key in message:
        if key not in _KNOWN:
            shown = str(key)[:40]
            raise ApiError(400, f"{where} has {shown!r}, which is not a known field", where)
    if message.get("images"):
        raise ApiError(400, f"{where} has images; this model reads text only", where)
    found = {key: message[key] for key in _KEPT if key in message}
    if message.get("content") is None and not message.get("tool_calls"):
        found["content"] = ""
    if message.get("thinking"):
        found["reasoning_content"] = message["thinking"]
    name = message.get("tool_name") or message.get("name")
    if name is not None:
        found["name"] = name
    if message.get("tool_call_id") is not None:
        found["tool_call_id"] = message["tool_call_id"]
    if message.get("tool_calls"):
        found["tool_calls"] = message["tool_calls"]
    return found


def ollama_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Calls as Ollama answers with them: arguments are an object.

    A call that was cut off is left out, since its arguments are none.
    """
    return [
        {"function": {"index": index, "name": call.name, "arguments": call.parsed}}
        for index, call in enumerate(calls)
        if isinstance(call.parsed, dict)
    ]


def context_of(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """A conversation as numbers, for the `context` of /api/generate.

    Ollama gives token ids, which say nothing where models have prompts of their own; clients only
    send it back. Here it is the bytes of a JSON text.
    """
    kept = [[message["role"], message["content"]] for message in messages]
    return list(json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode())


def messages_of(context: Sequence[int]) -> list[dict[str, Any]]:
    """The conversation that `context_of` made numbers of.

    Raises:
        ApiError: 400 where these numbers are not such a conversation.
    """
    try:
        found = json.loads(bytes(context)) if context else []
        messages = [{"role": role, "content": content} for role, content in found]
    except (ValueError, TypeError, RecursionError):
        messages = [{"role": None}]
    for message in messages:
        if not isinstance(message["role"], str) or not isinstance(message["content"], str):
            text = "context is not one that this server answered with; send it back as it came"
            raise ApiError(400, text, "context")
    return messages
