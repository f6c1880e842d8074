"""Arguments in tags, as Qwen3-Coder writes them: <parameter=city>Oslo</parameter>."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .values import parsed


def as_json(text: str, name: str, schema: Mapping[str, Any]) -> str:
    """The value of a parameter as JSON text.

    Args:
        text: what stands between the tags; a line end on either side belongs to these.
        name: of the parameter.
        schema: of all parameters; it says whether a text such as 12 is a number.
    """
    text = text.removeprefix("\n").removesuffix("\n")
    properties = schema.get("properties")
    known = properties.get(name) if isinstance(properties, Mapping) else None
    kind = known.get("type") if isinstance(known, Mapping) else None
    value = parsed(text)
    is_null = value is None and text.strip() == "null"
    if kind == "string" or (value is None and not is_null):
        return json.dumps(text, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)
