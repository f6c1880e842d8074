"""Values and entries as TOML text, such that reading it gives them again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .entries import Entry, Source

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def format_entry(entry: Entry) -> str:
    """The table of an entry, with a line end after every line.

    Its paths are written as they are: relative ones would count from the file's folder.
    """
    lines = [f"[models.{format_key(entry.name)}]"]
    lines += [f"{key} = {format_value(value)}" for key, value in _fields(entry)]
    return "\n".join(lines) + "\n"


def format_key(key: str) -> str:
    """A key, in quotes where it needs them."""
    return key if _BARE.fullmatch(key) else format_value(key)


def format_value(value: Any) -> str:
    """A value in one line; tables are inline tables."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        # JSON's escapes are TOML's too, but JSON lets this one character through.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        pairs = [f"{format_key(str(key))} = {format_value(item)}" for key, item in value.items()]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    return f"[{', '.join(map(format_value, value))}]"


def _fields(entry: Entry) -> Iterator[tuple[str, Any]]:
    """Keys and values of an entry, without those that say nothing."""
    about = ("description", "aliases", "licence", "hardware", "memory")
    yield from ((key, getattr(entry, key)) for key in about if getattr(entry, key))
    yield "base", source_table(entry.base)
    first = entry.experts[0]
    if len(entry.experts) == 1 and first.name == "tuned":
        yield "tuned", source_table(first.tuned)
        yield "reference", source_table(first.reference)
    else:
        tables = [
            {
                "name": expert.name,
                "tuned": source_table(expert.tuned),
                "reference": source_table(expert.reference),
            }
            for expert in entry.experts
        ]
        yield "experts", tables
    if entry.prompt != "shared":
        yield "prompt", entry.prompt
    if entry.why:
        yield "why", entry.why
    if entry.templates:
        files = {
            role: {"path": style} if isinstance(style, Path) else style
            for role, style in entry.templates.items()
        }
        yield "templates", files
    if entry.neutral != ("control" if entry.style("base") == "plain" else "none"):
        yield "neutral", entry.neutral
    if entry.think != "dim":
        yield "think", entry.think
    if entry.idle_timeout:
        yield "idle_timeout", entry.idle_timeout
    yield from entry.runtime.items()
    yield from entry.options.items()


def source_table(source: Source) -> dict[str, Any]:
    """A source as models.toml has it."""
    keys = ("path", "hf", "file", "quant", "evidence", "sha256", "size", "revision")
    table = {key: getattr(source, key) for key in keys if getattr(source, key) is not None}
    return table if source.scale is None else {"lora": table, "scale": source.scale}
