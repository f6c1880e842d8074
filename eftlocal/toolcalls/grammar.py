"""A Lark grammar, in llguidance's dialect, that allows nothing but calls of certain functions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from .formats import MarkerVocabulary, ToolFormat
from .shapes import shape_of

# The blanks that models were trained with; free white space invites endless blanks.
_BLANKS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_MORE = {"additionalProperties", "patternProperties", "unevaluatedProperties"}
_MORE |= {"$ref", "allOf", "anyOf", "oneOf", "not", "if"}
"""Keywords that say more about properties than `properties` does."""
_NOTES = {"title", "description", "default", "examples", "$comment"}
_NAMED = {"properties", "patternProperties", "$defs", "definitions"}
_VALUES = {"enum", "const"}
_MAX_BYTES = 32_000
_MARKER = re.compile(r"(<[^<>\s]+>|\[[A-Z_]+\])")


@dataclass(frozen=True, slots=True)
class ForcedCall:
    """What a reply has to be.

    Attributes:
        functions: name -> JSON schema of the arguments.
        format: how calls are written.
        parallel: whether there may be several.
    """

    functions: Mapping[str, Mapping[str, Any]]
    format: ToolFormat
    parallel: bool


def forced_grammar(call: ForcedCall, vocabulary: MarkerVocabulary) -> str:
    """The grammar; markers that are control tokens in the vocabulary are so in it, too.

    Raises:
        UsageError: where a schema holds what JSON cannot say, or all are too large.
    """
    shape, markers = shape_of(call.format), _Markers(vocabulary)
    start = [*markers.rule(shape.first), "call"]
    if call.parallel and shape.between is not None:
        start.append(f"({' '.join([*markers.rule(shape.between), 'call'])})*")
    start += markers.rule(shape.last)
    rules = {"start": start, "call": [" | ".join(f"call_{i}" for i in range(len(call.functions)))]}
    for place, (name, schema) in enumerate(call.functions.items()):
        head, end = markers.rule(shape.head + name + shape.tail), markers.rule(shape.end)
        rules[f"call_{place}"] = [*head, f"arguments_{place}", *end]
        rules[f"arguments_{place}"] = ["%json", _json(_closed(schema))]
    grammar = "".join(f"{name}: {' '.join(parts)}\n" for name, parts in rules.items())
    if len(grammar) > _MAX_BYTES:
        raise UsageError(
            f"the tools' parameters have more than {_MAX_BYTES} bytes, the most where tool_choice "
            "asks for a call; name one function, or give fewer tools"
        )
    return grammar


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of arguments; without other properties where it lists some and says no more.

    A model that has to write a call would otherwise be free to invent arguments.
    """
    listed, required = schema.get("properties"), schema.get("required", [])
    is_complete = (
        not _MORE & schema.keys()
        and isinstance(listed, Mapping)
        and isinstance(required, list | tuple)
        and all(name in listed for name in required if isinstance(name, str))
    )
    closing = {"additionalProperties": False} if is_complete else {}
    return {**_bare(schema), **closing, "x-guidance": _BLANKS}


def _bare(value: Any, is_names: bool = False) -> Any:
    """A schema without what only people read; `is_names` where its keys are names it gives."""
    if isinstance(value, list | tuple):
        return [_bare(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: item
        if key in _VALUES and not is_names
        else _bare(item, key in _NAMED and not is_names)
        for key, item in value.items()
        if is_names or key not in _NOTES
    }


class _Markers:
    """Splits texts into markers, which are control tokens in some models, and other text."""

    def __init__(self, vocabulary: MarkerVocabulary) -> None:
        self._vocabulary = vocabulary

    def rule(self, text: str) -> list[str]:
        """The parts of a rule that allows just this text."""
        parts: list[str] = []
        literal = ""
        for part in _MARKER.split(text):
            if self.is_token(part):
                parts += [_json(literal)] * bool(literal) + [f"<[{self._ids(part)[0]}]>"]
                literal = ""
            else:
                literal += part
        return parts + [_json(literal)] * bool(literal)

    def is_token(self, marker: str) -> bool:
        """Whether it is one control token."""
        ids = self._ids(marker)
        return len(ids) == 1 and self._vocabulary.is_control(ids[0])

    def _ids(self, text: str) -> list[int]:
        return self._vocabulary.tokenize(text, add_special=False, parse_special=True)


def _json(value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise UsageError("a tool's parameters hold a number that JSON does not have") from error
