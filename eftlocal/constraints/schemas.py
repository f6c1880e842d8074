"""What is checked of a JSON schema before llguidance sees it: all that could stall or kill it.

llguidance follows nesting, references and alternatives by recursion, and some of its work grows
with the square of their number, or without bound where patterns or multiples are intersected.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..errors import UsageError
from .patterns import check_regex

MAX_BYTES = 1 << 16
"""Most bytes of a schema as JSON text."""
MAX_DEPTH = 64
"""Most levels of objects and lists in each other."""
_MAX_TOTAL_DEPTH = 400
# Keyword -> most entries it may have, where its entries are alternatives that are open together.
_MAX_ENTRIES = {
    "properties": 256,
    "patternProperties": 16,
    "required": 256,
    "prefixItems": 256,
    "anyOf": 64,
    "oneOf": 64,
    "allOf": 32,
    "enum": 512,
    "type": 16,
}
_MAX_VALUES = 4096
_MAX_PATTERNS, _MAX_MEETING_PATTERNS = 64, 4
_MAX_MULTIPLE = 2000
_MAX_DIGITS = 30
# Keywords whose subschemas are intersected with what stands beside them.
_MEETING = frozenset(("allOf", "anyOf", "oneOf", "$ref", "const", "enum"))
_SEPARATORS = (",", ", ", ":", ": ")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_ANNOTATIONS = frozenset(("title", "description", "default", "examples", "$comment"))
_MAX_COUNT = 1_000_000


def schema_text(schema: object) -> str:
    """A JSON schema as text for llguidance.

    Args:
        schema: a mapping, or true, which stands for any JSON object.

    Raises:
        UsageError: where it is no schema, or has more of something than is allowed.
    """
    if schema is True:
        return '{"type": "object"}'
    if not isinstance(schema, Mapping):
        raise UsageError("json_schema must be a JSON object, or true for any JSON object")
    _check_size(schema)
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise UsageError("json_schema is not JSON: it has values that JSON cannot hold") from None
    if len(text) > MAX_BYTES:
        raise UsageError(f"json_schema has {len(text)} bytes; the most is {MAX_BYTES}")
    _check_content(schema)
    return text


def _check_size(schema: Mapping[str, Any]) -> None:
    """Check depth and number of values, before anything goes through them recursively."""
    level: list[Any] = [schema]
    n_values = 0
    for _ in range(MAX_DEPTH):
        n_values += len(level)
        if n_values > _MAX_VALUES:
            raise UsageError(f"json_schema has more than {_MAX_VALUES} values")
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise UsageError(f"json_schema is nested more than {MAX_DEPTH} levels deep")


def _children(value: object) -> list[Any]:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise UsageError("json_schema has a key that is not a string")
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []


def _objects(value: Any, is_names: bool = False) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """All objects in a schema, and whether their keys are names that the schema gives."""
    if isinstance(value, Mapping):
        yield value, is_names
        for key, child in value.items():
            if is_names or key not in _ANNOTATIONS:
                named = key in ("properties", "patternProperties", "$defs", "definitions")
                yield from _objects(child, named and not is_names)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _objects(child)


def _check_content(schema: Mapping[str, Any]) -> None:
    n_patterns, meets = 0, False
    multiples = []
    for value, is_names in _objects(schema):
        if is_names:
            continue
        _check_keywords(value)
        n_patterns += sum(key in value for key in ("pattern", "format"))
        n_patterns += len(_names(value.get("patternProperties")))
        meets = meets or "allOf" in value or (len(value) > 1 and bool(_MEETING & value.keys()))
        if "multipleOf" in value:
            multiples.append(_multiple(value["multipleOf"]))
    most = _MAX_MEETING_PATTERNS if meets else _MAX_PATTERNS
    if n_patterns > most:
        where = " beside allOf, anyOf, oneOf, enum or $ref" if meets else ""
        raise UsageError(f"json_schema has more than {most} patterns and formats{where}")
    _check_multiples(multiples)
    _check_references(schema)


def _check_keywords(schema: Mapping[str, Any]) -> None:
    """Check the keywords of one subschema; llguidance checks what they mean."""
    if not _is_harmless(schema.get("x-guidance", {})):
        raise UsageError("json_schema has the keyword x-guidance, of which little is supported")
    for key, most in _MAX_ENTRIES.items():
        entries = schema.get(key)
        if isinstance(entries, list | tuple | Mapping) and len(entries) > most:
            raise UsageError(f"json_schema has {key} with more than {most} entries")
    for key in _COUNTS:
        count = schema.get(key)
        if isinstance(count, int | float) and count > _MAX_COUNT:
            raise UsageError(f"json_schema has {key} = {count}; the most is {_MAX_COUNT}")
    for pattern in (schema.get("pattern"), *_names(schema.get("patternProperties"))):
        if isinstance(pattern, str):
            check_regex(pattern, "json_schema has a pattern that")


def _is_harmless(options: object) -> bool:
    """Whether llguidance's own options only say how JSON is spaced."""
    return isinstance(options, Mapping) and all(
        (name == "whitespace_flexible" and isinstance(value, bool))
        or (name.endswith("_separator") and isinstance(value, str) and value in _SEPARATORS)
        for name, value in options.items()
    )


def _names(value: object) -> list[Any]:
    return list(value) if isinstance(value, Mapping) else []


def _multiple(value: object) -> Fraction:
    """What `multipleOf` gives, as the decimal number that was written."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        number = Decimal(repr(value))
        if abs(number.adjusted()) < _MAX_DIGITS:
            return Fraction(number)
    raise UsageError("json_schema has a multipleOf that is no positive number of common size")


def _check_multiples(multiples: list[Fraction]) -> None:
    """Check that all multiples together, as they may be intersected, have few remainders."""
    scale = math.lcm(*(m.denominator for m in multiples))
    common = math.lcm(*(int(m * scale) for m in multiples))
    # Powers of ten only say how many digits follow.
    while common % 10 == 0 and scale % 10 == 0:
        common, scale = common // 10, scale // 10
    if common > _MAX_MULTIPLE:
        raise UsageError(
            f"json_schema has multipleOf values with a common multiple above {_MAX_MULTIPLE}"
        )


def _check_references(schema: Mapping[str, Any]) -> None:
    """Check that references stay in the schema, and how deep they can lead in all."""
    targets = set()
    for value, is_names in _objects(schema):
        reference = None if is_names else value.get("$ref")
        if isinstance(reference, str):
            if not reference.startswith("#"):
                raise UsageError("json_schema has a $ref that leads out of it")
            targets.add(reference)
    # Each is followed once, where it is met first.
    depth = _depth(schema) + sum(_depth(_target(schema, reference)) + 1 for reference in targets)
    if targets and depth > _MAX_TOTAL_DEPTH:
        raise UsageError(f"json_schema has references that are {depth} levels deep in all")


def _target(schema: Any, reference: str) -> Any:
    """What a reference names, or the whole schema where that is not found so simply."""
    found = schema
    for part in reference.removeprefix("#").split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        found = found.get(part) if isinstance(found, Mapping) else None
    return schema if found is None else found


def _depth(value: object) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [child for item in level for child in _children(item)]
    return depth
