"""Random models that know the markers of <think> blocks, and seeds with which they write one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType

import eftlocal
from eftlocal.bench.random_models import Token

from .cli_helpers import files
from .conftest import LARGE, N_VOCAB, SMALL, Trio
from .gguf_models import vocabulary, write_gguf

OPEN, CLOSE = N_VOCAB - 2, N_VOCAB - 1
TOKENS = (
    *vocabulary(N_VOCAB)[:OPEN],
    Token("<think>", TokenType.USER_DEFINED),
    Token("</think>", TokenType.USER_DEFINED),
)
LETTERS = [place for place, token in enumerate(TOKENS) if token.text in ("a", "b")]
# Nothing but markers and letters is likely then, all of them about equally.
BIAS = dict.fromkeys((OPEN, CLOSE, *LETTERS), 500.0)
SAMPLING = {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "alpha": 1.0}
OPTIONS: dict[str, Any] = {"max_tokens": 12, "draft": "off", "logit_bias": BIAS, **SAMPLING}
QUESTION = "Hello"
BLOCK = re.compile(r"\s*<think>([ab]{2,})</think>([ab]{2,})")
CLOSED = re.compile(r"\s*([ab]{2,})</think>([ab]{2,})")


@dataclass(frozen=True)
class Thinker:
    """A model, and a seed with which it answers QUESTION with a block and an answer."""

    trio: Trio
    model: eftlocal.FusedModel
    seed: int

    @property
    def args(self) -> list[str]:
        """The command line of the same reply."""
        bias = (("--logit-bias", f"{token}={value}") for token, value in BIAS.items())
        numbers = {name: value for name, value in OPTIONS.items() if name != "logit_bias"}
        given = ((f"--{name.replace('_', '-')}", str(value)) for name, value in numbers.items())
        pairs = (*bias, *given, ("--seed", str(self.seed)), ("--threads", "1"))
        return [*files(self.trio), *(part for pair in pairs for part in pair)]

    @property
    def reply(self) -> eftlocal.Completion:
        """The reply by the Python API."""
        return self.model.chat(message(QUESTION), seed=self.seed, **OPTIONS)


def message(text: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def thinker(trio: Trio, model: eftlocal.FusedModel, shape: re.Pattern[str]) -> Thinker:
    """Find a seed whose reply has a shape."""
    for seed in range(2000):
        if shape.match(model.chat(message(QUESTION), seed=seed, **OPTIONS).text):
            return Thinker(trio, model, seed)
    raise AssertionError(f"no reply looks like {shape.pattern}")


def write(folder: Path, template: str) -> Trio:
    """Write three models with the markers in their vocabulary."""
    return Trio(
        write_gguf(folder / "base.gguf", LARGE, seed=1, tokens=TOKENS),
        write_gguf(folder / "tuned.gguf", SMALL, seed=2, tokens=TOKENS, chat_template=template),
        write_gguf(folder / "reference.gguf", SMALL, seed=3, tokens=TOKENS),
    )
