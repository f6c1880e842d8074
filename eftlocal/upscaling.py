"""The top-p filter of up-scaling weights: where the ratio P / Q counts. Pure NumPy.

EFT (arXiv 2310.12962, section on top-p filtering of up-scaling weights): let S be the smallest set
of tokens whose probability under T sums to at least p; outside S the ratio P / Q is set to 1, so
that F ∝ T there at alpha = 1. For any alpha that is l_Q in the place of l_P outside S: no token is
excluded. Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .distributions import Array, log_sum_exp, weighted_sum
from .options import Sampler
from .sampling import Ids, survivors


def upscaled_base(
    base: Array,
    tuned: Sequence[Array] | Array,
    reference: Sequence[Array] | Array,
    weights: Sequence[float],
    top_p: float,
    neutral: Ids | None = None,
) -> Array:
    """(R, V) log-probs that take P's place: l_P where up-scaling counts, else l_Q.

    Several experts are taken together: l_Q is the mean of theirs by the size of their weights, and
    S is the top-p set of T ∝ exp(l_Q + sum_i w_i (l_Ti - l_Qi)).

    Args:
        base: (R, V) logits.
        tuned: E arrays (R, V) of logits.
        reference: E arrays (R, V) of logits.
        weights: one per expert.
        top_p: in (0, 1]; at 1 only `neutral` tokens are changed.
        neutral: ids whose ratio P / Q is 1 whatever T says.
    """
    sizes = np.abs(weights) if any(weights) else np.ones(len(weights))
    sizes = sizes / sizes.sum()
    one = len(weights) == 1 and weights[0] == 1
    with np.errstate(invalid="ignore"):
        log_q = [q - log_sum_exp(q).astype(np.float32)[:, None] for q in reference]
        mean = log_q[0] if len(log_q) == 1 else weighted_sum(log_q, sizes)
        result = base - log_sum_exp(base).astype(np.float32)[:, None]
        mixed = tuned[0]
        if not one:
            deltas = [t - q for t, q in zip(tuned, reference, strict=True)]
            mixed = mean + weighted_sum(deltas, weights)
    nucleus = Sampler(top_p=top_p)
    for row, (own, other) in enumerate(zip(result, mean, strict=True)):
        outside = np.zeros(len(own), bool)
        if top_p < 1:
            likely = np.nan_to_num(mixed[row], nan=-np.inf)
            # What is not a number is reported where it is fused.
            if np.isfinite(likely.max()):
                outside[:] = True
                outside[survivors(likely, nucleus)] = False
        if neutral is not None:
            outside[neutral] = True
        # What either model excludes has no ratio; excluded by the base it stays excluded.
        outside &= np.isfinite(other) & (own > -np.inf)
        np.copyto(own, other, where=outside)
    return result
