"""Reads what a judge answers: a verdict counts only where the answer ends with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .roles import PAIR_VERDICTS, Form

Value = int | str

_MOST = 50_000
"""Characters of an answer's end that are looked at."""
_LINE = re.compile(r"[\W_]*verdict[\W_]*?[:=]\s*(.+)", re.IGNORECASE)
_NUMBER = re.compile(r"(\d{1,9})(?:\.0+)?\s*(?:%|/\s*(\d{1,9}))?")


@dataclass(frozen=True)
class Verdict:
    """What a judge found.

    Attributes:
        value: a number, or one of `PAIR_VERDICTS`.
        reason: what it said before.
    """

    value: Value
    reason: str


Verdicts = Mapping[str, Verdict | None]
"""Key of an ask -> what a judge found; None where its answers could not be read."""


def read_answer(text: str, form: Form) -> Verdict | None:
    """The verdict that an answer ends with; None where there is none, or none that is allowed.

    The end is a JSON object with the key "verdict", fenced or not, or a line "VERDICT: ...". What
    stands before it may quote the judged text, and is never searched for a verdict.
    """
    body = _without_fence(text.rstrip()[-_MOST:])
    if body.endswith("}"):
        return _from_object(body, form)
    reason, _, last = body.rpartition("\n")
    if found := _LINE.fullmatch(last.strip()):
        value = as_value(found[1].strip(" *_`\"'.$"), form)
        return None if value is None else Verdict(value, reason.strip())
    return None


def as_value(given: object, form: Form) -> Value | None:
    """What a verdict says, where it is one that the form allows."""
    if form.is_pair:
        names = {name.casefold(): name for name in PAIR_VERDICTS}
        return names.get(given.strip().casefold()) if isinstance(given, str) else None
    if isinstance(given, str):
        found = _NUMBER.fullmatch(given.strip())
        if found is None or (found[2] is not None and int(found[2]) != form.role.highest):
            return None
        given = int(found[1])
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool):
        return None
    return given if 0 <= given <= form.role.highest else None


def _without_fence(text: str) -> str:
    """A text whose end is fenced code, without the closing fence."""
    return text.removesuffix("```").rstrip() if text.endswith("```") else text


def _from_object(text: str, form: Form) -> Verdict | None:
    """The largest JSON object that the text ends with."""
    start = text.find("{")
    while start >= 0:
        try:
            found = json.loads(text[start:], object_pairs_hook=_once)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        value = as_value(found.get("verdict"), form)
        reason = found.get("reason")
        said = reason if isinstance(reason, str) else text[:start].strip()
        return None if value is None else Verdict(value, said)
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; one that gives two verdicts gives none."""
    keys = [key for key, _ in pairs]
    return {k: v for k, v in pairs if k != "verdict" or keys.count(k) == 1}
