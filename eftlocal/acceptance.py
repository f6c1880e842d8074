"""Rejection sampling of drafted tokens: the most acceptance that is possible. Pure NumPy.

"Fast Inference from Transformers via Speculative Decoding" (arXiv 2211.17192, algorithm 1). With
D the drafter's and F the fused distribution, both after the sampler's filters and temperature, a
token drawn from D is kept with probability min(1, F / D); else one is drawn from (F - D)+,
normalised. What comes out has distribution F, and is the draft with probability 1 - TV(F, D).

The draft, the decision and the second draw each have a stream of noise of their own: a decision
that shared the draft's noise would not be independent of the draft. Where every row is decided
so, the last of a round too, a token is a function of the seed and the tokens before it: the text
is the same however far is drafted, and nothing that this depends on can bias it.

Shapes: V vocabulary; a row of logits and a distribution are (V,) float32.
"""

from __future__ import annotations

import numpy as np

from .distributions import Array
from .options import Sampler
from .sampling import COLDEST, Ids, Noise, sample, survivors

ACCEPTANCE, RESIDUAL = 1, 2
"""Streams of noise of the decision and of the second draw; the draft has stream 0."""


def warped(logits: Array, sampler: Sampler) -> Array:
    """What `sampling.sample` draws from: (V,) probabilities after filters and temperature.

    Args:
        logits: (V,) row after `sampling.adjust`.
        sampler: the settings; temperature 0 puts everything on the first of the largest.
    """
    top = int(logits.argmax())
    probabilities = np.zeros_like(logits)
    if sampler.temperature == 0:
        probabilities[top] = 1
        return probabilities
    ids = survivors(logits, sampler)
    values = logits if ids is None else logits[ids]
    with np.errstate(over="ignore"):
        scaled = (values - logits[top]) * np.float32(1 / max(sampler.temperature, COLDEST))
    weights: Array = np.exp(scaled)
    weights /= float(weights.sum(dtype=np.float64))
    if ids is None:
        return weights
    probabilities[ids] = weights
    return probabilities


def kept_share(drafted: Array, fused: Array, token: int) -> float:
    """min(1, F / D) of a token: how often it is kept where it was drafted.

    A token with D = 0 is never drafted; the limit is taken, so that rounding does no harm.
    """
    wanted, proposed = float(fused[token]), float(drafted[token])
    return wanted / proposed if wanted < proposed else float(wanted > 0)


def residual(drafted: Array, fused: Array) -> tuple[Ids, Array]:
    """(F - D)+ of two distributions, not normalised: K ids and weights, (K,) each, all above 0.

    Where rounding leaves no excess the two are one, and the result is F.
    """
    ids = np.flatnonzero(fused > drafted)
    if len(ids):
        return ids, fused[ids] - drafted[ids]
    ids = np.flatnonzero(fused)
    return ids, fused[ids]


def accept(
    draft: Array, fused: Array, token: int | None, sampler: Sampler, noise: Noise
) -> tuple[int, bool]:
    """Decide one row: keep the drafted token, or draw one that makes up for what D lacks.

    Args:
        draft: (V,) row of the drafter after `sampling.adjust`.
        fused: (V,) fused row after `sampling.adjust`.
        token: what `sampling.sample` drew from `draft` with `noise`, or None: it is drawn here.
        sampler: the settings of both rows.
        noise: of this completion index, stream 0.

    Returns:
        The decided token, and whether it is the draft, kept.
    """
    if sampler.temperature == 0:
        best = int(fused.argmax())
        return best, best == (int(draft.argmax()) if token is None else token)
    if token is None:
        token = sample(draft, sampler, noise)
    drafted, wanted = warped(draft, sampler), warped(fused, sampler)
    if noise.on(ACCEPTANCE).uniform() < kept_share(drafted, wanted, token):
        return token, True
    ids, weights = residual(drafted, wanted)
    reached = np.cumsum(weights, dtype=np.float64)
    place = np.searchsorted(reached, noise.on(RESIDUAL).uniform() * reached[-1])
    return int(ids[place]), False
