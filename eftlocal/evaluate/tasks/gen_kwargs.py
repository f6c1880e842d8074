"""Generation settings of lm-evaluation-harness -> ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ...errors import UsageError
from ...options import GenerationOptions, option_name
from ...textfiles import json_value

MAX_GEN_TOKS = 256
"""The length of a reply where a task does not say, as in the harness's own models."""

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_ONLY_ONE = ("num_beams", "num_return_sequences", "n")
_WITHOUT_EFFECT = ("use_cache",)
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "none": None}
_OWN = frozenset(option_name(item.name) for item in fields(GenerationOptions))


@dataclass(frozen=True)
class Wanted:
    """What a task wants of a reply.

    Attributes:
        options: changes to `GenerationOptions`.
        max_tokens: of the reply; the prompt has to leave room for so many.
    """

    options: Mapping[str, Any]
    max_tokens: int


def wanted(kwargs: Mapping[str, Any], max_gen_toks: int = MAX_GEN_TOKS) -> Wanted:
    """Read the settings of a request for text.

    Replies are greedy unless `do_sample` or a temperature says otherwise, as in the harness.

    Args:
        kwargs: as tasks have them: until, max_gen_toks (or another of its names), do_sample,
            temperature, and any of our options, such as top_p.
        max_gen_toks: where they do not say.

    Raises:
        UsageError: for settings that are unknown, or that cannot be had here.
    """
    left = dict(kwargs)
    for name in _ONLY_ONE:
        if left.pop(name, 1) != 1:
            raise UsageError(f"generation setting {name} = {kwargs[name]!r}: only 1 is possible")
    for name in _WITHOUT_EFFECT:
        left.pop(name, None)
    given = [value for value in (left.pop(name, None) for name in _LENGTHS) if value is not None]
    length = count_of("max_gen_toks", given[0]) if given else max_gen_toks
    stop = left.pop("until", left.pop("stop", None))
    texts = [stop] if isinstance(stop, str) else list(stop or ())
    temperature = _temperature(left)
    if unknown := sorted(left.keys() - _OWN):
        known = ", ".join(sorted({"until", "max_gen_toks", "do_sample", *_OWN} - {"max_tokens"}))
        raise UsageError(f"unknown generation setting {unknown[0]!r}; known are {known}")
    options = {name: value for name, value in left.items() if value is not None}
    options |= {
        "stop": tuple(text for text in texts if text),
        "max_tokens": length,
        "temperature": temperature,
    }
    GenerationOptions().updated(options)
    return Wanted(options, length)


def read_settings(text: str) -> dict[str, Any]:
    """Settings as a command line has them, NAME=VALUE,...

    Values are JSON, lists with commas included; true, false and none in any case, as in the
    harness; everything else is a text.

    Raises:
        UsageError: where there is no =.
    """
    found: dict[str, Any] = {}
    parts = text.split(",")
    while parts:
        part = parts.pop(0)
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"generation settings {part!r}: use NAME=VALUE,...")
        found[name.strip()], used = _value(value, parts)
        del parts[:used]
    return found


def _value(first: str, rest: Sequence[str]) -> tuple[Any, int]:
    """A value, and how many of the parts after it belong to it: JSON may hold commas."""
    word = first.strip().lower()
    if word in _WORDS:
        return _WORDS[word], 0
    for used in range(len(rest) + 1 if word[:1] in ("[", "{", '"') else 1):
        try:
            return json_value(",".join([first, *rest[:used]])), used
        except ValueError:
            continue
    return first, 0


def count_of(name: str, value: object) -> int:
    """A number of things, 1 or more; command lines give texts.

    Raises:
        UsageError: for something else.
    """
    try:
        count = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise UsageError(f"{name} = {value!r} is not allowed; use a number, 1 or more")
    return int(count)


def _temperature(left: dict[str, Any]) -> float:
    """The temperature that do_sample and temperature mean together; takes both out."""
    sample, temperature = left.pop("do_sample", None), left.pop("temperature", None)
    if sample is False:
        return 0.0
    if temperature is None:
        return 1.0 if sample else 0.0
    if not isinstance(temperature, int | float) or isinstance(temperature, bool):
        raise UsageError(f"temperature = {temperature!r} is not allowed; use a number")
    return float(temperature)
