"""Section `gap`: how much of the speed gap between the small and the large model is recovered.

Figure of the EFT paper (arXiv 2310.12962): sampling from the fused model lies between sampling
from the small tuned model alone and from the large model alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import BackendError
from ..llama.library import lib
from ..model import FusedModel
from .floors import Record, empty_caches, one_token, read_tokens
from .report import Bars, Cell, Column, Table
from .subject import PLAIN, Subject
from .timing import interleaved

_SMALL, _LARGE = "tuned alone", "base alone"
_FUSED = {"fused, --draft off": PLAIN, "fused, --draft auto": {**PLAIN, "draft": "auto"}}


def gap(subject: Subject) -> tuple[Table, ...]:
    """Rates of both models alone, and of the fused one between them."""
    model, n_tokens = subject.model, subject.n_tokens
    roles = model.engine.ensemble.roles
    alone = {_SMALL: roles.experts[0][0], _LARGE: roles.base}
    kinds = {
        name: partial(alone_seconds, model, subject.records, index) for name, index in alone.items()
    } | {name: partial(_seconds, subject, n_tokens, options) for name, options in _FUSED.items()}
    seen = interleaved(kinds, subject.effort.rounds)
    rows: list[tuple[Cell, ...]] = []
    for name, seconds in seen.items():
        median = statistics.median(seconds)
        share = recovered(seconds, seen[_SMALL], seen[_LARGE]) if name in _FUSED else None
        percent = None if share is None else 100 * share
        rows.append((name, 1e3 * median, 1 / median, percent))
    columns = (
        Column("kind", "sampling"),
        Column("token_ms", "ms per token", 2),
        Column("tokens_per_second", "tokens/s", 1),
        Column("recovered_percent", "of the gap (%)"),
    )
    notes = (
        "Greedy, alpha 1, along the same completion. Alone: decode, read the logits, take the "
        "likeliest token.",
        "Of the gap: 0% is as slow as the base alone, 100% as fast as the tuned model alone.",
    )
    rates = tuple((name, 1 / statistics.median(seconds)) for name, seconds in seen.items())
    base_rate = 1 / statistics.median(seen[_LARGE])
    bars = Bars("Speed between the small and the large model", "tokens/s", rates, base_rate)
    return (Table("The speed gap", columns, tuple(rows), notes, bars),)


def _seconds(subject: Subject, n_tokens: int, options: dict[str, Any]) -> float:
    return subject.decode(n_tokens, **options).seconds


def recovered(
    fused: Sequence[float], small: Sequence[float], large: Sequence[float]
) -> float | None:
    """Share of the gap between the rates of two models that a third one's rate recovers.

    Args:
        fused: seconds per token.
        small: the same of the small model, in the same rounds.
        large: and of the large one.

    Returns:
        Median of (1 / fused - 1 / large) / (1 / small - 1 / large); None where the small model is
        not the faster one.
    """
    if statistics.median(small) >= statistics.median(large):
        return None
    shares = [
        (1 / f - 1 / b) / (1 / s - 1 / b)
        for f, s, b in zip(fused, small, large, strict=True)
        if s < b
    ]
    return statistics.median(shares)


def alone_seconds(model: FusedModel, records: Sequence[Record], index: int) -> float:
    """Seconds per token of one context decoding completions again, greedily, by itself.

    Each step decodes a token, reads its logits and takes the likeliest, which is not fed: the
    completion is.
    """
    seconds, n_steps, failed = 0.0, 0, 0
    decode, logits, as_array = lib.llama_decode, lib.llama_get_logits, np.ctypeslib.as_array
    for record in records:
        with empty_caches(model) as contexts:
            context, prompt = contexts[index], record.prompts[index]
            shape = (model.engine.ensemble.contexts[index].n_vocab,)
            read_tokens(context, prompt[:-1], model.runtime.batch)
            fed = (prompt[-1], *record.tokens[:-1])
            # The batches point into this array.
            array = (lib.llama_token * len(fed))(*fed)
            batches = [one_token(array, i) for i in range(len(fed))]
            start = time.perf_counter()
            for batch in batches:
                failed |= decode(context.handle, batch)
                int(as_array(logits(context.handle), shape).argmax())
            seconds += time.perf_counter() - start
            n_steps += len(batches)
    if failed:
        raise BackendError("llama_decode failed while a completion was decoded again")
    return seconds / n_steps
