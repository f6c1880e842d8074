"""Replies with what every token came from, as a piece of work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ... import Completion, FusedModel
from ...batch import run_batch
from ...diagnostics import ModelTrace, Trace
from ...text import TextStream
from ..answering import Conversation
from ..store import Record, digest
from ..systems import System
from ..work import Loader

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
class Traced:
    """Traced replies of a system, one per conversation.

    A record has "tokens": the fields of `Token` in order, each.

    Attributes:
        system: what answers.
        conversations: what is asked.
    """

    system: System
    conversations: Sequence[Conversation]

    @property
    def title(self) -> str:
        """The system's."""
        return f"{self.system.title}, traced"

    @property
    def items(self) -> Sequence[str]:
        """A name per conversation."""
        return [digest(list(map(dict, one))) for one in self.conversations]

    @property
    def content(self) -> Record:
        """The system's."""
        return {"kind": "traced", **self.system.content}

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[tuple[int, Record]]:
        """Ask what has not been asked yet.

        Raises:
            EftlocalError: for the first conversation that cannot be answered.
        """
        model = loader.get(self.system.models)
        options: Mapping[str, Any] = {**self.system.options, "trace": True}
        jobs = [partial(model.prepare_chat, self.conversations[i], **options) for i in missing]
        for number, outcome in run_batch(model, jobs):
            if not isinstance(outcome, Completion):
                raise outcome
            yield missing[number], {"tokens": _tokens(model, outcome)}


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
