"""The forms in which models write tool calls, and which of them a chat template shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class MarkerVocabulary(Protocol):
    """What this package needs of a vocabulary."""

    eog: frozenset[int]

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of a text."""

    def is_control(self, token: int) -> bool:
        """Whether the token is a marker, not text."""


@dataclass(frozen=True, slots=True)
class Syntax:
    """One form of calls in a text.

    After `opens` comes either JSON, {"name": ..., "arguments": {...}} once or several times, also
    as a list; or, where `separator` is given, the name, the separator, and the arguments.

    Attributes:
        name: for messages and tests.
        opens: markers that begin calls, the usual one first.
        closes: markers that end them; they vanish from the text behind a call.
        separator: what stands between a name and its arguments; "" where JSON has the name.
    """

    name: str
    opens: tuple[str, ...]
    closes: tuple[str, ...] = ()
    separator: str = ""


CALL_ID = "[CALL_ID]"
"""Stands between a name and an id in calls of newer Mistral models."""
# Full-width bars and lower blocks, as DeepSeek's tokenizer spells its markers.
_CALL, _CALLS, _SEPARATOR = "tool\u2581call\u2581", "tool\u2581calls\u2581", "tool\u2581sep"


def _deepseek(name: str) -> str:
    return f"<\uff5c{name}\uff5c>"


HERMES = Syntax("hermes", ("<tool_call>",), ("</tool_call>",))
LLAMA = Syntax("llama", ("<|python_tag|>",))
MISTRAL = Syntax("mistral", ("[TOOL_CALLS]",), separator="[ARGS]")
FUNCTION = Syntax("function", ("<function=",), ("</function>",), separator=">")
PHI = Syntax("phi", ("<|tool_call|>",), ("<|/tool_call|>",))
DEEPSEEK = Syntax(
    "deepseek",
    (_deepseek(f"{_CALLS}begin") + _deepseek(f"{_CALL}begin"), _deepseek(f"{_CALL}begin")),
    (_deepseek(f"{_CALL}end"), _deepseek(f"{_CALLS}end")),
    separator=_deepseek(_SEPARATOR),
)
SYNTAXES = (HERMES, LLAMA, MISTRAL, FUNCTION, PHI, DEEPSEEK)


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How one model writes calls.

    A reply that is a JSON object {"name": ..., "arguments": {...}} with the name of a tool is
    always a call, too: small models forget markers.

    Attributes:
        syntaxes: the forms with markers, the usual one first.
        key: of the arguments in JSON, "arguments" or "parameters"; both are read.
        short_ids: ids are nine letters and digits, which Mistral's templates insist on.
        fenced: DeepSeek V3's form, in which arguments stand between ``` lines.
        tagged_arguments: newer Mistral models' form, in which [ARGS] stands before arguments.
    """

    syntaxes: tuple[Syntax, ...] = ()
    key: str = "arguments"
    short_ids: bool = False
    fenced: bool = False
    tagged_arguments: bool = False

    @classmethod
    def of_template(cls, source: str) -> ToolFormat:
        """What a chat template's source shows; none of the markers leaves JSON without markers."""
        found = tuple(syntax for syntax in SYNTAXES if syntax.opens[-1] in source)
        plain = source.replace("\\", "")
        has_other_key = '"parameters"' in plain and '"arguments"' not in plain
        return cls(
            syntaxes=found,
            key="parameters" if has_other_key else "arguments",
            short_ids=MISTRAL in found,
            fenced="```json" in source,
            tagged_arguments="[ARGS]" in source,
        )

    @property
    def opens(self) -> dict[str, Syntax]:
        """Opening marker -> its form."""
        return {marker: syntax for syntax in self.syntaxes for marker in syntax.opens}

    @property
    def closes(self) -> tuple[str, ...]:
        """All closing markers."""
        return tuple(marker for syntax in self.syntaxes for marker in syntax.closes)

    def control_tokens(self, vocabulary: MarkerVocabulary) -> frozenset[int]:
        """Ids of markers that are control tokens: in the usual text they are empty."""
        separators = (syntax.separator for syntax in self.syntaxes if len(syntax.separator) > 1)
        found: set[int] = set()
        more = (CALL_ID,) if MISTRAL in self.syntaxes else ()
        for marker in (*self.opens, *self.closes, *separators, *more):
            ids = vocabulary.tokenize(marker, add_special=False, parse_special=True)
            found.update(token for token in ids if vocabulary.is_control(token))
        return frozenset(found - vocabulary.eog)
