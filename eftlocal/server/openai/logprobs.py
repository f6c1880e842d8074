"""Log-probabilities in OpenAI's two forms: chat, and the older one of completions.

They are those of the fused distribution before sampler settings and temperature.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Sequence
from typing import Any

from ...generation import TokenEvent
from .pieces import Pieces, Placed

NEVER = -9999.0
"""Stands for minus infinity, which JSON does not have; OpenAI's own number for it."""


def finite(logprob: float) -> float:
    """A log-probability as JSON can hold it."""
    return logprob if logprob > -math.inf else NEVER


def chat_logprobs(placed: Iterable[Placed], pieces: Pieces) -> list[dict[str, Any]]:
    """The `content` of a chat choice's logprobs; end tokens are no content."""
    return [_entry(item.event, pieces) for item in placed if item.event.token not in pieces.eog]


def _entry(event: TokenEvent, pieces: Pieces) -> dict[str, Any]:
    top = [_token(token, logprob, pieces) for token, logprob in event.top]
    return {**_token(event.token, event.logprob, pieces), "top_logprobs": top}


def _token(token: int, logprob: float, pieces: Pieces) -> dict[str, Any]:
    piece = pieces.shown[token]
    text = piece.decode("utf-8", "replace")
    return {"token": text, "logprob": finite(logprob), "bytes": list(piece)}


def legacy_logprobs(
    placed: Sequence[Placed], pieces: Pieces, shift: int = 0
) -> dict[str, list[Any]]:
    """The logprobs of completions.

    Args:
        placed: tokens; an end token is one of them.
        pieces: of the model.
        shift: characters of the text before the completion.
    """
    return {
        "tokens": [legacy_key(item.event.token, pieces) for item in placed],
        "token_logprobs": [finite(item.event.logprob) for item in placed],
        "top_logprobs": [_row(item.event, pieces) for item in placed],
        "text_offset": [item.offset + shift for item in placed],
    }


def prompt_logprobs(
    prompt: Sequence[int], scores: Sequence[TokenEvent], pieces: Pieces, text: str
) -> dict[str, list[Any]]:
    """The logprobs of an echoed prompt: nothing precedes its first token, whose entry is null.

    Args:
        prompt: its tokens.
        scores: one event for each of them but the first.
        pieces: of the model.
        text: what the answer shows as the prompt. Markers and the space that some tokenizers put
            first may be missing in it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offsets, length = [], 0
    for token in prompt:
        offsets.append(length)
        length += len(decoder.decode(pieces.shown[token]))
    missing = max(0, length - len(text))
    return {
        "tokens": [legacy_key(token, pieces) for token in prompt],
        "token_logprobs": [None, *(finite(event.logprob) for event in scores)],
        "top_logprobs": [None, *(_row(event, pieces) for event in scores)],
        "text_offset": [min(max(0, offset - missing), len(text)) for offset in offsets],
    }


def joined(first: dict[str, list[Any]], second: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The logprobs of two stretches of a text as one."""
    return {name: values + second[name] for name, values in first.items()}


def legacy_key(token: int, pieces: Pieces) -> str:
    r"""A token as text; a part of a character, which is no text, as bytes:\xe2\x98."""
    piece = pieces.shown[token]
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _row(event: TokenEvent, pieces: Pieces) -> dict[str, float]:
    """Text -> log-probability of the likeliest tokens and the chosen one, likeliest first.

    Of several ids with one text the chosen one has it, then the likeliest; others are named by id.
    """
    top = event.top
    if all(token != event.token for token, _ in top):
        top = (*top, (event.token, event.logprob))
    keys = {event.token: legacy_key(event.token, pieces)}
    taken = set(keys.values())
    for token, _ in top:
        if token not in keys:
            text = legacy_key(token, pieces)
            keys[token] = f"token_id:{token}" if text in taken else text
            taken.add(keys[token])
    return {keys[token]: finite(logprob) for token, logprob in top}
