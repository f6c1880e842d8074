"""JSON of strangers: bounded in depth and in the size of numbers, without anything ambiguous."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from pydantic_core import from_json

from ..failures import ApiError

_MOST_DIGITS = 30
"""Digits of an integer; more than any field takes."""
_MOST_CONTAINERS, _MOST_ITEMS = 100_000, 2_500_000
"""Lists and objects, and items of them: parsing megabytes of brackets takes seconds. Those within
texts count, too; a prompt that long fits no context."""
_NOT_FINITE = re.compile(rb"[:\[,]\s?-?(?:NaN|Infinity)\b")


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a request body.

    NaN, infinities, numbers too large for a double, lone surrogates and names that occur twice
    in an object are refused.

    Raises:
        ApiError: 400 with one sentence, for anything that is not one JSON object.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    if body.count(b"[") + body.count(b"{") > _MOST_CONTAINERS or body.count(b",") > _MOST_ITEMS:
        raise ApiError(400, "the body is nested too deeply, or has too many items")
    try:
        # Bounds the depth, and finds what is not UTF-8; json.loads alone would do neither.
        from_json(body, allow_inf_nan=False)
        found = json.loads(body, object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, _reason(body, error)) from None
    if not isinstance(found, dict):
        raise ApiError(400, "the body is not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ApiError(400, f"the field {twice[:40]!r} is given twice", param=twice[:40])
    return found


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ApiError(400, f"an integer has {len(text):,} digits; use at most {_MOST_DIGITS}")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ApiError(400, f"the number {text[:40]} is too large")
    return number


def _reason(body: bytes, error: Exception) -> str:
    text = str(error)
    if "recursion" in text.lower():
        return "the body is nested too deeply"
    if _NOT_FINITE.search(body):
        return "the body has a number that is NaN or infinite; JSON has none"
    if "number out of range" in text:
        return "the body has a number with too many digits"
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as problem:
        return f"the body is not UTF-8 text (byte {problem.start})"
    return f"the body is not JSON: {text}"
