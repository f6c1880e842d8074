"""What pydantic found wrong with a request, as one sentence about one field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Path = tuple[str | int, ...]

_LONGEST_VALUE = 40
"""Characters of a value that a sentence repeats; longer ones are left out."""
_MOST_WAYS = 6

_USE: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "string_type": lambda _: "a string",
    "string_sub_type": lambda _: "a string",
    "int_type": lambda _: "an integer",
    "int_parsing": lambda _: "an integer",
    "int_parsing_size": lambda _: "a smaller integer",
    "int_from_float": lambda _: "an integer",
    "float_type": lambda _: "a number",
    "float_parsing": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "bool_type": lambda _: "true or false",
    "bool_parsing": lambda _: "true or false",
    "list_type": lambda _: "a list",
    "tuple_type": lambda _: "a list",
    "set_type": lambda _: "a list",
    "dict_type": lambda _: "an object",
    "model_type": lambda _: "an object",
    "model_attributes_type": lambda _: "an object",
    "dataclass_type": lambda _: "an object",
    "none_required": lambda _: "null",
    "literal_error": lambda ctx: str(ctx["expected"]),
    "enum": lambda ctx: str(ctx["expected"]),
    "greater_than": lambda ctx: f"more than {ctx['gt']}",
    "greater_than_equal": lambda ctx: f"{ctx['ge']} or more",
    "less_than": lambda ctx: f"less than {ctx['lt']}",
    "less_than_equal": lambda ctx: f"at most {ctx['le']}",
    "string_too_short": lambda ctx: f"{ctx['min_length']} or more characters",
    "string_too_long": lambda ctx: f"at most {ctx['max_length']} characters",
    "too_short": lambda ctx: f"{ctx['min_length']} or more items",
    "too_long": lambda ctx: f"at most {ctx['max_length']} items",
    "string_pattern_mismatch": lambda ctx: f"a text of the form {ctx['pattern']}",
    "union_tag_invalid": lambda ctx: f"a {ctx['discriminator']} of {ctx['expected_tags']}",
    "union_tag_not_found": lambda ctx: f"an object with a {ctx['discriminator']}",
}


def explain(errors: Sequence[Mapping[str, Any]], body: object) -> tuple[str, str | None]:
    """Say the most telling of pydantic's errors in one sentence.

    Of a union's errors the ones that lie deepest count, since that alternative fits best; where
    several lie equally deep the sentence lists what each would have taken.

    Args:
        errors: of one validation, at least one; `loc` begins with where the value came from.
        body: the parsed body that `loc` leads into.

    Returns:
        The sentence, and the field that it is about, None for the body as a whole.
    """
    if any(error["loc"] == ("body",) for error in errors) and not body:
        return "the request has no body; send a JSON object", None
    placed = [(_path(error, body), error) for error in errors]
    first = placed[0][0][:1]
    rivals = [(path, error) for path, error in placed if path[:1] == first]
    deepest = max((path for path, _ in rivals), key=len)
    chosen = [error for path, error in rivals if path == deepest]
    name = _name(deepest)
    return _sentence(chosen, name or "the body"), name or None


def _path(error: Mapping[str, Any], body: object) -> Path:
    """Where an error lies, without the names of a union's alternatives."""
    source, *rest = error["loc"] or ("body",)
    if source != "body":
        return tuple(rest)
    path: list[str | int] = []
    here: Any = body
    for place, key in enumerate(rest):
        is_last = place == len(rest) - 1
        if _leads_on(here, key):
            here = here[key]
        elif not (is_last and error["type"] == "missing"):
            continue
        path.append(key)
    return tuple(path)


def _leads_on(here: object, key: str | int) -> bool:
    if isinstance(here, list):
        return isinstance(key, int) and key < len(here)
    return isinstance(here, Mapping) and key in here


def _name(path: Path) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    text = text.removeprefix(".")
    return text if len(text) <= 2 * _LONGEST_VALUE else f"{text[: 2 * _LONGEST_VALUE]}..."


def _sentence(errors: Sequence[Mapping[str, Any]], name: str) -> str:
    kinds = {error["type"]: error for error in errors}
    if "missing" in kinds:
        return f"{name} is missing"
    if "extra_forbidden" in kinds:
        return f"{name} is not a known field"
    own = kinds.get("value_error") or kinds.get("assertion_error")
    if own is not None:
        reason = str(own.get("ctx", {}).get("error") or own["msg"].removeprefix("Value error, "))
        return reason if name in reason else f"{name}: {reason}"
    ways = dict.fromkeys(_use(error) for error in errors)
    allowed = " or ".join(list(ways)[:_MOST_WAYS])
    return f"{name}{_value(errors[0].get('input'))} is not allowed; use {allowed}"


def _use(error: Mapping[str, Any]) -> str:
    describe = _USE.get(error["type"])
    if describe is not None:
        return describe(error.get("ctx", {}))
    text = str(error["msg"]).split("\n")[0].rstrip(".")
    return f"another value ({text[:1].lower()}{text[1:]})"


def _value(value: object) -> str:
    """` = value` as JSON where that is short and no container, else nothing."""
    if isinstance(value, str | int | float | None):
        if isinstance(value, str) and len(value) > _LONGEST_VALUE:
            return ""
        text = json.dumps(value, ensure_ascii=False)
        if len(text) <= _LONGEST_VALUE:
            return f" = {text}"
    return ""
