"""Messages as OpenAI's API has them -> messages of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as brief
from typing import Any

from ..failures import ApiError

_KEPT = ("role", "name", "tool_calls", "tool_call_id", "reasoning_content")
_TEXTS = {"text": "text", "refusal": "refusal"}
"""Type of a part -> the key of its text."""
_FOREIGN = {
    "image_url": "images",
    "input_image": "images",
    "input_audio": "audio",
    "audio": "audio",
    "file": "files",
    "input_file": "files",
    "video_url": "videos",
}
_MAX_PARTS = 10_000


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What `FusedModel.prepare_chat` takes: contents as text, and no keys that mean nothing here.

    A content may be a text, a list of parts with texts, which are joined, or null. What is wrong
    with roles and calls is left to `prompts.check_messages`.

    Args:
        messages: as they came, parsed from JSON.

    Raises:
        ApiError: 400 for images, audio and files, naming the part.
    """
    return [_message(message, f"messages[{place}]") for place, message in enumerate(messages)]


def _message(message: object, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise ApiError(400, f"{where} is not an object with a role and a content", where)
    if message.get("function_call") is not None:
        raise ApiError(400, f"{where} has a function_call; use tool_calls", where)
    if message.get("audio") is not None:
        raise ApiError(400, f"{where} has audio; this model reads text only", f"{where}.audio")
    kept = {key: message[key] for key in _KEPT if message.get(key) is not None}
    # Some servers and clients call it so.
    if isinstance(message.get("reasoning"), str):
        kept.setdefault("reasoning_content", message["reasoning"])
    content = message.get("content")
    if isinstance(content, list):
        content = _joined(content, f"{where}.content")
    return {**kept, "content": content}


def _joined(parts: Sequence[object], where: str) -> str:
    """The texts of a list of parts."""
    if len(parts) > _MAX_PARTS:
        raise ApiError(400, f"{where} has more than {_MAX_PARTS} parts", where)
    return "".join(_text(part, f"{where}[{place}]") for place, part in enumerate(parts))


def _text(part: object, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and isinstance(kind, str):
        if kind in _FOREIGN:
            what = _FOREIGN[kind]
            message = f"{where} has type {kind!r}; this model reads text only, no {what}"
            raise ApiError(400, message, where)
        text = part.get(_TEXTS.get(kind, ""))
        if isinstance(text, str):
            return text
    message = f'{where} is {brief(part)}; use parts such as {{"type": "text", "text": "..."}}'
    raise ApiError(400, message, where)
