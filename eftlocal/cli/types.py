"""Types of option values that click does not have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from ..errors import EftlocalError

# More than any constraint may have; what is beyond is not read.
_LARGEST_TEXT = 1 << 20

if TYPE_CHECKING:
    # Newer versions of click know what a type converts; older ones have no brackets.
    ParamType = click.ParamType[Any, Any]
else:
    ParamType = click.ParamType


class WordOrCount(ParamType):
    """One of a few words, or an integer."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.name = "|".join((*words, "N"))

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int:
        """Return the word, or the integer that the text stands for."""
        if value in self.words or isinstance(value, int):
            return value  # type: ignore[no-any-return]
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is not {', '.join(self.words)} or an integer", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the words."""
        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]


class WordOrNumber(ParamType):
    """One of a few words, or a number."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.name = "X|WORD"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | float:
        """Return the word, or the number that the text stands for."""
        if value in self.words or isinstance(value, float):
            return value  # type: ignore[no-any-return]
        try:
            return float(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither a number nor one of {', '.join(self.words)}", param, ctx
            )

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the words."""
        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]


class ExpertWeight(ParamType):
    """`NAME=W`: the name of an expert and the weight of its delta."""

    name = "NAME=W"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        """Return (name, weight)."""
        if isinstance(value, tuple):
            return value
        name, _, weight = value.partition("=")
        try:
            return name, float(weight)
        except ValueError:
            self.fail(f"{value!r} is not an expert and a number, such as math=0.5", param, ctx)


class TokenBias(ParamType):
    """`ID=BIAS`: a token id and the number added to its logit."""

    name = "ID=BIAS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        """Return (token id, bias)."""
        if isinstance(value, tuple):
            return value
        token, _, bias = value.partition("=")
        try:
            return int(token), float(bias)
        except ValueError:
            self.fail(f"{value!r} is not a token id and a number, such as 42=-1.5", param, ctx)


class StopText(ParamType):
    """A stop string; from the environment it is one string, however many words it has."""

    name = "TEXT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text itself."""
        return str(value)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Keep the variable whole where click would split it at blanks."""
        return [rv]


class SchemaFile(ParamType):
    """A JSON schema: a file, JSON text that begins with {, or true for any JSON object."""

    name = "FILE|JSON"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any] | bool:
        """Return the schema."""
        if isinstance(value, dict | bool) or value == "true":
            return value if isinstance(value, dict) else bool(value)
        is_text = value.lstrip().startswith("{")
        text = value if is_text else _content(self, value, param, ctx)
        try:
            schema = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
            where = "the schema" if is_text else value
            self.fail(f"{where} is no JSON: {reason}", param, ctx)
        if not isinstance(schema, dict):
            self.fail(f"{value} holds no JSON schema: it must be an object", param, ctx)
        return schema


class GrammarFile(ParamType):
    """A file with a grammar; several lines are the grammar itself, as in saved options."""

    name = "FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the grammar."""
        text = str(value)
        return text if "\n" in text or "::=" in text else _content(self, text, param, ctx)


def _content(
    kind: ParamType, path: str, param: click.Parameter | None, ctx: click.Context | None
) -> str:
    """The text of a file of moderate size."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(_LARGEST_TEXT)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        kind.fail(f"{path} cannot be read: {reason}", param, ctx)


class EntryName(ParamType):
    """The name of a model entry; the shell completes it from models.toml."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name; whether it exists is found out when it is loaded."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the names of entries, with their descriptions."""
        from ..registry import load_registry

        # Of `eftlocal models` the option may stand before the command's name, too.
        outer = ctx.parent.params if ctx.parent else {}
        models = ctx.params.get("models") or outer.get("models")
        try:
            entries = load_registry(Path(models) if models else None).entries
        except EftlocalError:
            return []
        return [
            CompletionItem(name, help=entry.description)
            for name, entry in entries.items()
            if name.startswith(incomplete)
        ]
