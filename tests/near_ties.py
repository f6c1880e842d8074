"""Whether two runs of one request part only where rounding decides.

llama.cpp's logits depend a little on what else is in a batch, so a request that runs beside others
may take another token where two are about as good. Such a place is looked for, not assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

import eftlocal
from eftlocal.sampling import Noise, sample
from eftlocal.stream import Prepared

ROUNDING = 0.1
"""What rounding moves a fused log-probability of atlas by, at most; seen: 0.06."""


def assert_same_but_for_near_ties(
    model: eftlocal.FusedModel, prepared: Prepared, tokens: Sequence[int]
) -> bool:
    """Run a request alone on `model` and compare; its top_k must be 1 to 20, or greedy.

    Returns:
        Whether the tokens are equal; otherwise they part at a near-tie.
    """
    options = prepared.request.options.updated({"top_logprobs": 20, "draft": "off"})
    request = replace(prepared.request, options=options)
    events = list(model.start(replace(prepared, request=request)))
    plain = [event.token for event in events]
    if plain == list(tokens):
        return True
    place = next(i for i, pair in enumerate(zip(plain, tokens, strict=False)) if len({*pair}) > 1)
    row = np.full(model.n_vocab, -np.inf, np.float32)
    for token, logprob in events[place].top:
        row[token] = logprob
    noise = Noise(options.seed, request.choice, place)
    winners = set()
    for shift in np.linspace(-ROUNDING, ROUNDING, 9):
        moved = row.copy()
        moved[plain[place]] += np.float32(shift)
        winners.add(sample(moved, options, noise))
    assert {plain[place], tokens[place]} <= winners, f"token {place}: {plain} is not {list(tokens)}"
    return False
