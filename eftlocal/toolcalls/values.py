"""JSON values from outside: how deep they are, and arguments that come as text or as an object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 64
"""Deepest nesting of tools and arguments; real schemas have about ten levels."""


def is_deep(value: object, limit: int = MAX_DEPTH) -> bool:
    """Whether tables and lists are nested deeper than `limit`; recurses nowhere itself."""
    level: list[object] = [value]
    for _ in range(limit + 1):
        inner: list[object] = []
        for item in level:
            if isinstance(item, Mapping):
                inner.extend(item.values())
            elif isinstance(item, list | tuple):
                inner.extend(item)
        if not inner:
            return False
        level = inner
    return True


def parsed(text: str) -> Any:
    """What a JSON text says; None where it is no JSON or too deep."""
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return None if is_deep(value) else value


def as_object(arguments: object) -> object:
    """A call's arguments as templates want them: an object where the text is one, else as given."""
    if not isinstance(arguments, str):
        return arguments
    if not arguments.strip():
        return {}
    value = parsed(arguments)
    return value if isinstance(value, dict) else arguments


def as_text(arguments: object) -> str:
    """A call's arguments as JSON text."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
