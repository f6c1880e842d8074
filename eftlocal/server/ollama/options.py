"""Ollama's options -> what a request changes in the options of its model entry."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import Any

from ...errors import UsageError
from ...model import FusedModel
from ...options import GenerationOptions, option_name
from ..failures import ApiError
from ..openai.body import names_of
from ..openai.options import with_seed
from .schemas import ChatBody, GenerateBody, Options

_OWN = frozenset(option_name(field.name) for field in fields(GenerationOptions))
_NEUTRAL = {"mirostat": 0, "tfs_z": 1, "typical_p": 1}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3}
_UNITS |= {"s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 10 * 365 * 24 * 3600.0
_FOR_EVER = -1.0


def changes_of(body: ChatBody | GenerateBody, model: FusedModel) -> dict[str, Any]:
    """The options that a request sets, by their names outside Python; the seed it runs with, too.

    Raises:
        ApiError: for what this server cannot do.
        UsageError: for values that are not allowed.
    """
    wanted = body.wanted
    _refuse(wanted, model.n_ctx)
    names = names_of(Options)
    given = {name: getattr(wanted, names[name]) for name in names if name in _OWN}
    changes = {name: value for name, value in given.items() if value is not None}
    if wanted.repeat_penalty is not None:
        changes.setdefault("repetition_penalty", wanted.repeat_penalty)
    if wanted.num_predict is not None:
        changes["max_tokens"] = max(0, wanted.num_predict)
    if changes.get("seed", 0) < 0:
        del changes["seed"]
    if body.format:
        changes["json_schema"] = True if body.format == "json" else body.format
    if body.logprobs and body.top_logprobs:
        changes["top_logprobs"] = body.top_logprobs
    changes, _ = with_seed(changes, model.options)
    return changes


def _refuse(wanted: Options, n_ctx: int) -> None:
    for name, neutral in _NEUTRAL.items():
        value = getattr(wanted, name)
        if value is not None and value != neutral:
            message = f"{name} = {value} is not supported; leave it out"
            raise ApiError(400, message, param=name)
    if wanted.num_ctx is not None and wanted.num_ctx > n_ctx:
        raise ApiError(
            400,
            f"num_ctx = {wanted.num_ctx} is more than the {n_ctx} tokens that the model was loaded "
            "with; leave it out, or start the server with a larger --ctx",
            param="num_ctx",
        )


def keep_alive_of(value: float | str | None) -> float | None:
    """Seconds that a model is kept after a request, as `Host.worker` takes them.

    Args:
        value: seconds, a number as text, or durations such as "1h30m" and "-1s".

    Raises:
        UsageError: for another text, or no finite number.
    """
    if value is None:
        return None
    seconds = value if isinstance(value, int | float) else _parsed(value.strip())
    if seconds is None or not math.isfinite(seconds):
        raise UsageError(
            f"keep_alive = {str(value)[:40]!r} is not allowed; use seconds, or a text such as "
            '"5m"; 0 unloads when done, -1 never'
        )
    return _FOR_EVER if seconds < 0 else min(float(seconds), _LONGEST)


def _parsed(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    sign = -1.0 if text.startswith("-") else 1.0
    body = text.lstrip("+-")
    parts = _DURATION.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        return None
    return sign * sum(float(number) * _UNITS[unit] for number, unit in parts)
