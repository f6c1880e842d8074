"""Replies with what every token came from, as a piece of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ... import Completion, FusedModel
from ...diagnostics import ModelTrace, Trace
from ...text import TextStream
from ..answering import Answering
from ..store import Record

Top = tuple[str, float]
"""A likeliest token's text and its probability."""


@dataclass(frozen=True)
class Token:
    """One token of a traced reply.

    Attributes:
        id: its id.
        text: what it adds to the reply; "" for one that ends it.
        variation: total variation of the fused distribution and the tuned model's, 0 to 1; with
            several experts that of the one with the largest multiplier.
        alpha: that multiplier.
        origin: a key of `diagnostics.ORIGINS`.
        base, tuned, fused: the likeliest tokens of each.
    """

    id: int
    text: str
    variation: float
    alpha: float
    origin: str
    base: Top
    tuned: Top
    fused: Top


@dataclass(frozen=True)
class Traced(Answering):
    """Traced replies of a system, one per conversation.

    A record has "tokens": the fields of `Token` in order, each.
    """

    @property
    def title(self) -> str:
        """The system's."""
        return f"{self.system.title}, traced"

    @property
    def content(self) -> Record:
        """The system's."""
        return {"kind": "traced", **self.system.content}

    @property
    def options(self) -> Mapping[str, Any]:
        """The system's, with traces."""
        return {**self.system.options, "trace": True}

    def record(self, model: FusedModel, completion: Completion) -> Record:
        """What is kept of a reply."""
        return {"tokens": _tokens(model, completion)}


def _tokens(model: FusedModel, completion: Completion) -> list[list[Any]]:
    text = TextStream(())
    last = len(completion.tokens) - 1
    found = []
    for place, (token, trace) in enumerate(zip(completion.tokens, completion.traces, strict=True)):
        piece = b"" if token in model.engine.eog else model.vocabulary.piece(token)
        shown = text.feed(piece, final=place == last)
        expert = _leading(trace)
        views = trace.base, trace.tuned[expert], trace.fused
        tops = [_top(model, view) for view in views]
        variation, alpha = trace.total_variation[expert], trace.alpha[expert]
        found.append([token, shown, variation, alpha, trace.origin, *tops])
    return found


def _leading(trace: Trace) -> int:
    """The expert with the largest multiplier; of equals the first."""
    return max(range(len(trace.alpha)), key=lambda i: abs(trace.alpha[i]))


def _top(model: FusedModel, view: ModelTrace) -> Top:
    return model.token_text(view.top), view.top_probability


def read_tokens(record: Record) -> tuple[Token, ...]:
    """The tokens of a record."""
    return tuple(
        Token(*values[:5], *((text, share) for text, share in values[5:]))
        for values in record["tokens"]
    )
