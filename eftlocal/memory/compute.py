"""How much llama.cpp reserves for the intermediate results of one decode.

Its allocator reserves what the worst batch needs at the same time. For a transformer that is the
largest of three moments: attention, the feed-forward part of a layer, and the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from .sizes import Sizes

_FLOAT, _HALF = 4, 2


@dataclass(frozen=True, slots=True)
class Batch:
    """What a context is made for.

    Attributes:
        n_tokens: of the longest batch.
        n_rows: of logits.
        n_cells: of one KV cache that a batch looks at.
        flash: whether attention is computed without its matrix of scores.
    """

    n_tokens: int
    n_rows: int
    n_cells: int
    flash: bool = True


def compute_bytes(sizes: Sizes, batch: Batch) -> int:
    """Bytes of the buffer for intermediate results; how many are needed at a time was measured.

    The measurements: llama.cpp of llama-cpp-python 0.3.36 on a CPU, random Llamas of widths 64 to
    1536 and 2,048 to 151,936 tokens; within 2 % of what it reports, small models within 4 %.
    """
    n = batch.n_tokens
    queries, keys, values = sizes.n_rows
    attention = 3 * sizes.n_embd + 2 * queries + keys + values
    # The last layer computes the wanted rows only. Before it, two layers and more leave gaps.
    gaps = 2 if sizes.n_layers > 2 else 0
    feed_forward = (2 + gaps) * sizes.n_embd + 3 * sizes.n_ff
    if batch.flash:
        layer = _HALF * batch.n_cells * n + _FLOAT * n * max(attention, feed_forward)
    else:
        scores = _FLOAT * n * batch.n_cells * (1 + sizes.n_heads)
        layer = max(scores + _FLOAT * n * attention, _FLOAT * n * feed_forward)
    rows = (sizes.n_vocab + 2 * sizes.n_embd) * batch.n_rows + sizes.n_embd * n
    return max(layer, _FLOAT * rows)
