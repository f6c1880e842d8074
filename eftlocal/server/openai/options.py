"""A request body -> what it changes in the options of its model entry."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from ...errors import UsageError
from ...options import GenerationOptions, option_name
from ..failures import ApiError
from .body import names_of
from .fields import CommonFields
from .schemas import ChatRequest, CompletionRequest

# A number of 53 bits is exact in every JSON reader.
_SEED_BITS = 53

_OPTIONS = tuple(option_name(field.name) for field in fields(GenerationOptions))


def chat_changes(body: ChatRequest, n_vocab: int) -> dict[str, Any]:
    """The options that a chat request sets, by their names outside Python.

    Raises:
        ApiError: for what this server cannot do.
    """
    _refuse_what_is_not_text(body)
    if body.top_logprobs and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs = true", param="top_logprobs")
    limit = body.max_completion_tokens or body.max_tokens
    if body.max_tokens not in (None, limit):
        message = "max_tokens and max_completion_tokens differ; use max_completion_tokens alone"
        raise ApiError(400, message, param="max_tokens")
    changes = _changes(body, n_vocab)
    changes["max_tokens"] = limit
    return changes


def completion_changes(body: CompletionRequest, n_vocab: int) -> dict[str, Any]:
    """The options that a completion request sets, by their names outside Python.

    Raises:
        ApiError: for what this server cannot do.
    """
    if body.suffix not in (None, ""):
        message = "suffix is not supported: these models continue a text, they fill no gaps"
        raise ApiError(400, message, param="suffix")
    if body.best_of not in (None, 1, body.choices):
        message = f"best_of = {body.best_of} is not supported; leave it out, or use n"
        raise ApiError(400, message, param="best_of")
    if body.max_tokens == 0 and not body.echo:
        message = "max_tokens = 0 is not allowed without echo; use a whole number of at least 1"
        raise ApiError(400, message, param="max_tokens")
    changes = _changes(body, n_vocab)
    if body.max_tokens == 0:
        del changes["max_tokens"]
    if body.logprobs:
        changes["top_logprobs"] = body.logprobs
    return changes


def with_seed(
    changes: dict[str, Any], defaults: GenerationOptions
) -> tuple[dict[str, Any], int | None]:
    """The changes with the seed that the request runs with, and that seed.

    A request without one gets a random one, unless the server was started with a seed. None is
    a seed that does not matter, because nothing is drawn.

    Raises:
        UsageError: for options that are not allowed.
    """
    wanted = defaults.updated(changes)
    if wanted.temperature == 0:
        return changes, None
    seed = wanted.seed if "seed" in changes or defaults.seed else secrets.randbits(_SEED_BITS)
    return {**changes, "seed": seed}, seed


def _changes(body: CommonFields, n_vocab: int) -> dict[str, Any]:
    """The options that stand in a body under their own names, and those it says otherwise."""
    attributes = names_of(type(body))
    given = {name: getattr(body, attributes[name]) for name in _OPTIONS if name in attributes}
    changes = {name: value for name, value in given.items() if value is not None}
    if body.logit_bias is not None:
        changes["logit_bias"] = _biases(body.logit_bias, n_vocab)
    if body.seed is not None:
        # Two's complement: every seed of 64 bits has its own texts.
        changes["seed"] = body.seed % 2**64
    if body.response_format is not None:
        changes |= _format(body.response_format)
    return changes


def _biases(given: Mapping[str, float], n_vocab: int) -> dict[int, float]:
    biases = {}
    for key, bias in given.items():
        if not re.fullmatch("[0-9]{1,9}", key) or int(key) >= n_vocab:
            message = f"logit_bias has the key {key[:40]!r}; use token ids from 0 to {n_vocab - 1}"
            raise ApiError(400, message, param="logit_bias")
        biases[int(key)] = bias
    return biases


def _format(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's response_format as a constraint."""
    kind = wanted.get("type")
    if kind == "text":
        return {}
    if kind == "json_object":
        # llama.cpp's clients put a schema here.
        return {"json_schema": wanted.get("schema") or True}
    inner = wanted.get("json_schema")
    if kind == "json_schema" and isinstance(inner, Mapping):
        schema = inner.get("schema", inner.get("json_schema"))
        if isinstance(schema, Mapping | bool):
            return {"json_schema": schema}
    message = (
        'response_format is not {"type": "text"}, {"type": "json_object"} or '
        '{"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}'
    )
    raise ApiError(400, message, param="response_format")


def _refuse_what_is_not_text(body: ChatRequest) -> None:
    if body.audio is not None or (body.modalities and body.modalities != ["text"]):
        param = "audio" if body.audio is not None else "modalities"
        raise ApiError(400, "these models answer with text only", param=param)
    for name, message in _REFUSED.items():
        if getattr(body, name) is not None:
            raise ApiError(400, message, param=name)


_REFUSED = {
    "functions": "functions is the old form of tools; use tools",
    "function_call": "function_call is the old form of tool_choice; use tools and tool_choice",
    "web_search_options": "this server does not search the web",
    "moderation": "this server does not moderate",
}


@contextmanager
def named_fields(body: CommonFields) -> Iterator[None]:
    """Have options that are not allowed answered with the field that they stand in."""
    try:
        yield
    except UsageError as error:
        name = str(error).split(" ", 1)[0]
        raise ApiError(400, str(error), name if name in names_of(type(body)) else None) from error
