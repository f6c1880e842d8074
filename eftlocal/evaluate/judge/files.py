"""Questions to a judge as a file, and verdicts that were given elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...textfiles import filled_lines, json_value, read_text
from .asks import Ask
from .reading import Verdict, Verdicts, as_value, read_answer


def ask_lines(asks: Sequence[Ask]) -> Iterator[str]:
    """One JSON object per ask: its key, what it is about, and what to tell the judge."""
    for ask in asks:
        line = {"key": ask.key, **ask.about, "messages": ask.messages}
        yield json.dumps(line, ensure_ascii=False)


def read_verdicts(path: Path, asks: Sequence[Ask]) -> tuple[Verdicts, int]:
    """Verdicts of a file of JSON lines, and how many of its lines are about nothing asked here.

    A line has the "key" of an ask, and "verdict" (a number, or "A", "B" or "tie"; null where there
    is none) or "answer" (a judge's whole answer, read as an endpoint's would be); "reason" if
    wanted. An ask without a line has no verdict.

    Raises:
        UsageError: for a line of another form, a verdict that is not allowed, or two verdicts on
            one key (says which line); for a file that is about other asks altogether, or cannot be
            read.
    """
    known = {ask.key: ask for ask in asks}
    found: dict[str, Verdict | None] = {}
    foreign = 0
    for number, line in filled_lines(read_text(path)):
        try:
            given = _line(line)
            ask = known.get(given["key"])
            if ask is None:
                foreign += 1
                continue
            if ask.key in found:
                raise UsageError("a second verdict on the same key")
            found[ask.key] = _verdict(given, ask)
        except UsageError as error:
            raise UsageError(f"{path}, line {number}: {error}") from None
    if not found:
        raise UsageError(
            f"{path} has no verdict on what is asked here; was its --out made with the same "
            "prompts, models and options?"
        )
    return {ask.key: found.get(ask.key) for ask in asks}, foreign


def _line(line: str) -> dict[str, Any]:
    try:
        given = json_value(line)
    except ValueError as error:
        raise UsageError(f"no JSON: {error}") from None
    if not isinstance(given, dict) or not isinstance(given.get("key"), str):
        raise UsageError('not a JSON object with a "key"')
    if ("verdict" in given) == ("answer" in given):
        raise UsageError('needs "verdict" or "answer", one of them')
    return given


def _verdict(given: dict[str, Any], ask: Ask) -> Verdict | None:
    if "answer" in given:
        answer = given["answer"]
        if not isinstance(answer, str):
            raise UsageError("answer is not a text")
        return read_answer(answer, ask.form)
    if given["verdict"] is None:
        return None
    value = as_value(given["verdict"], ask.form)
    if value is None:
        allowed = "A, B or tie" if ask.form.is_pair else f"0 to {ask.form.role.highest}"
        raise UsageError(f"the verdict {given['verdict']!r:.40} is not allowed; use {allowed}")
    return Verdict(value, str(given.get("reason", "")))
