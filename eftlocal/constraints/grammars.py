"""Constraints as texts in llguidance's own form of Lark grammars."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..errors import UsageError
from .patterns import check_nesting, check_regex
from .schemas import schema_text

MAX_GRAMMAR, MAX_GBNF = 1 << 16, 1 << 15
"""Most bytes of a grammar; GBNF takes long to read."""
_MAX_RULES = 400
# Outside of texts and regexes. What is intersected or optional costs much more than its length.
_MAX_SIGNS = {"|": 4000, "*+?": 500, "&": 4}
# A mask says which tokens a text may go on with, not which one a tokenizer would take.
_OPTIONS = '\n%llguidance {"no_forcing": true}\n'
# Some models never stop writing white space where JSON allows it: one space, or a line's indent.
_SPACE = r" |\r?\n[ \t]{0,40}"
_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"')
_REGEX = re.compile(r"/(?:\\.|[^/\\\n])+/")
_GBNF_RULE = re.compile(r"^[ \t]*[\w-]+\s*::=", re.MULTILINE)
_LARK_RULE = re.compile(r"^[ \t]*[?!]?[\w.-]+\s*(?:\[[^\]\n]*\])?\s*:", re.MULTILINE)
_UNSUPPORTED = re.compile(r"\[[^\]\n]*\b(max_tokens|temperature)\b")


def lark_of(json_schema: object, regex: str | None, grammar: str | None) -> str | None:
    """The Lark grammar of the one constraint that is given; None where none is.

    Args:
        json_schema: a mapping, or true for any JSON object.
        regex: the whole text must match it.
        grammar: Lark as llguidance reads it, or llama.cpp's GBNF.

    Raises:
        UsageError: where it is too large or too deep, or GBNF that cannot be read.
    """
    if json_schema is not None:
        options = {"x-guidance": {"whitespace_pattern": _SPACE}}
        schema = json.loads(schema_text(json_schema)) | options
        return f"start: %json {json.dumps(schema)}{_OPTIONS}"
    if regex is not None:
        return f"start: /{_regex_literal(regex)}/{_OPTIONS}"
    if grammar is not None:
        return _checked_grammar(grammar) + _OPTIONS
    return None


def _regex_literal(regex: str) -> str:
    import llguidance

    if not regex:
        raise UsageError("the regex is empty")
    check_regex(regex, "the regex")
    return llguidance.regex_to_lark(regex, "d")


def _checked_grammar(grammar: str) -> str:
    n_bytes = len(grammar.encode("utf-8", "replace"))
    if n_bytes > MAX_GRAMMAR:
        raise UsageError(f"the grammar has more than {MAX_GRAMMAR} bytes")
    is_gbnf = _GBNF_RULE.search(grammar) is not None
    if is_gbnf and n_bytes > MAX_GBNF:
        raise UsageError(f"the grammar has more than {MAX_GBNF} bytes")
    bare = _STRING.sub('""', grammar)
    check_nesting(bare, "the grammar")
    n_rules = len((_GBNF_RULE if is_gbnf else _LARK_RULE).findall(bare))
    if n_rules > _MAX_RULES:
        raise UsageError(f"the grammar has {n_rules} rules; the most is {_MAX_RULES}")
    if not is_gbnf:
        for literal in _REGEX.finditer(bare):
            check_regex(literal[0], "a regex in the grammar")
    _check_signs(bare if is_gbnf else _REGEX.sub("", bare))
    if is_gbnf:
        return _lark_of_gbnf(grammar)
    found = _UNSUPPORTED.search(bare)
    if found:
        raise UsageError(f"the grammar has {found[1]}, which is an option here")
    for place in re.finditer(r"%json\b\s*", grammar):
        schema_text(_json_at(grammar, place.end()))
    return grammar


def _check_signs(text: str) -> None:
    for signs, most in _MAX_SIGNS.items():
        if sum(map(text.count, signs)) > most:
            raise UsageError(f"the grammar has more than {most} of {' '.join(signs)}")


def _json_at(text: str, start: int) -> Mapping[str, Any]:
    try:
        schema, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        raise UsageError("the grammar has %json without a JSON schema after it") from None
    if not isinstance(schema, Mapping):
        raise UsageError("the grammar has %json without a JSON schema after it")
    return schema


def _lark_of_gbnf(grammar: str) -> str:
    from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

    try:
        return gbnf_to_lark(grammar)
    except GbnfToLarkError as error:
        raise UsageError(f"the grammar is no GBNF that can be read: {error}") from None
    except Exception as error:
        # The converter raises plain exceptions, and others where a text ends in the middle.
        reason = str(error) if type(error) is Exception else "it ends too early"
        raise UsageError(f"the grammar is no GBNF that can be read: {reason}") from None
