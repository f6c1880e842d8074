"""Random models whose vocabulary and chat template have tools, and a tool with few answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from gguf import TokenType

from eftlocal.bench.random_models import Token

from .conftest import LARGE, N_VOCAB, SMALL, Trio
from .gguf_models import vocabulary, write_gguf

THINK, THINK_END, CALL_MARK, CALL_END = range(N_VOCAB - 4, N_VOCAB)
TOKENS = (
    *vocabulary(N_VOCAB)[:THINK],
    Token("<think>", TokenType.USER_DEFINED),
    Token("</think>", TokenType.USER_DEFINED),
    Token("<tool_call>", TokenType.CONTROL),
    Token("</tool_call>", TokenType.CONTROL),
)
CITIES = ["Oslo", "Rome"]
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": CITIES}, "now": {"$ref": "#/$defs/yes"}},
    "required": ["city", "now"],
    "$defs": {"yes": {"type": "boolean"}},
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
TIME = {"type": "function", "function": {"name": "time", "description": "Tells the time."}}
TOOLS = [WEATHER, TIME]
NAMED = {"type": "function", "function": {"name": "weather"}}
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
OPTIONS: dict[str, Any] = {"max_tokens": 300, "temperature": 1.5, "alpha": 1.0}


def write(folder: Path, template: str) -> Trio:
    """Write three models that know the markers of calls as control tokens."""
    large, small = (replace(shape, context_length=4096) for shape in (LARGE, SMALL))
    return Trio(
        write_gguf(folder / "base.gguf", large, seed=1, tokens=TOKENS),
        write_gguf(folder / "tuned.gguf", small, seed=2, tokens=TOKENS, chat_template=template),
        write_gguf(folder / "reference.gguf", small, seed=3, tokens=TOKENS),
    )


def is_right(name: str, arguments: Any) -> bool:
    """Whether a call is what the tools' schemas allow."""
    if name == "time":
        return bool(arguments == {})
    city, now = arguments.get("city"), arguments.get("now")
    return name == "weather" and city in CITIES and isinstance(now, bool) and len(arguments) == 2
