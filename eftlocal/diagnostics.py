"""What happened at one token: which model wanted what, and how far apart they are. Pure NumPy.

Shapes: V vocabulary, E experts; a row is (V,) raw logits. Logarithms are natural (nats).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .distributions import Array, Array64, log_softmax64

Ids = npt.NDArray[np.intp]

N_TOP = 20
"""How many likeliest tokens of each model a trace keeps."""

ORIGINS: Mapping[str, str] = {
    "agreement": "base and tuned model would have chosen it, too",
    "base": "the base changed what the tuned model would have said",
    "delta": "the delta changed what the base would have said",
    "fusion": "neither base nor tuned model would have chosen it",
    "alone": "one of the models spoke alone, and base or tuned model would have chosen otherwise",
    "sampling": "sampling took another token than the likeliest of the fused distribution",
}
"""Where a token comes from. Where several experts have a part in it, agreement needs all of their
tuned models, and delta at least one. Where one model speaks alone, it is agreement, alone or
sampling."""

# Log-probs are kept to 1e-6, and fused in float32.
_ROUNDING = 1e-4


@dataclass(frozen=True, slots=True)
class ModelTrace:
    """What one model, or the fused distribution, says about the next token.

    Attributes:
        top: the id of its likeliest token (the lowest of equals).
        top_probability: of that token.
        probability: of the token that was chosen.
        logprobs: of the trace's `ids`, rounded to 1e-6; -inf where the token is excluded.
    """

    top: int
    top_probability: float
    probability: float
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """The distributions that one token came from, before sampler settings and temperature.

    P = base, F = fused, T_i and Q_i = tuned and reference of expert i. Sums run over the whole
    vocabulary, in float64.

    Attributes:
        alpha: (E) what each delta was multiplied with.
        total_variation: (E) half of sum |F - T_i|, 0 to 1: the EFT paper's measure of what
            up-scaling changes (arXiv 2310.12962, section 4.2).
        kl_fused_base, kl_base_fused: KL(F || P) and KL(P || F); they may be infinite.
        kl_tuned_reference, kl_reference_tuned: (E) KL(T_i || Q_i) and KL(Q_i || T_i), what dynamic
            alpha compares the former with (arXiv 2406.15480, equation 6).
        origin: where the token comes from, a key of `ORIGINS`.
        ids: tokens that are among the `n_top` likeliest of at least one model, ascending.
        n_top: how many of each model's likeliest tokens are in `ids`.
        base, fused: their views.
        tuned, reference: (E) theirs.
    """

    alpha: tuple[float, ...]
    total_variation: tuple[float, ...]
    kl_fused_base: float
    kl_base_fused: float
    kl_tuned_reference: tuple[float, ...]
    kl_reference_tuned: tuple[float, ...]
    origin: str
    ids: tuple[int, ...]
    n_top: int
    base: ModelTrace
    fused: ModelTrace
    tuned: tuple[ModelTrace, ...]
    reference: tuple[ModelTrace, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Saved tokens in the order of another alpha.

    Attributes:
        ids: all ids of the trace, likeliest first, ties by id.
        is_certain: whether no token outside the trace can be likelier than the first.
    """

    ids: tuple[int, ...]
    is_certain: bool


def diagnose(
    base: Array,
    tuned: Sequence[Array],
    reference: Sequence[Array],
    fused: Array,
    alpha: tuple[float, ...],
    token: int,
    n_top: int = N_TOP,
    alone: bool = False,
) -> Trace:
    """Describe where a token came from.

    Args:
        base: (V,) logits; tokens that a model excludes are -inf, here and below.
        tuned: E arrays (V,).
        reference: E arrays (V,).
        fused: (V,) logits of the fused distribution, whatever made it (filters included).
        alpha: (E) what each delta was multiplied with.
        token: the id that was chosen.
        n_top: how many of each model's likeliest tokens are kept.
        alone: whether `fused` is the distribution of one model, see `GenerationOptions.part`.
    """
    p, f = log_softmax64(base), log_softmax64(fused)
    t = [log_softmax64(row) for row in tuned]
    q = [log_softmax64(row) for row in reference]
    ids = np.unique(np.concatenate([_likeliest(row, n_top) for row in (p, f, *t, *q)]))
    views = [_view(row, token, ids) for row in (p, f, *t, *q)]
    n = len(t)
    tuned_views = tuple(views[2 : 2 + n])
    return Trace(
        alpha=tuple(float(value) for value in alpha),
        total_variation=tuple(_total_variation(f, row) for row in t),
        kl_fused_base=_kl(f, p),
        kl_base_fused=_kl(p, f),
        kl_tuned_reference=tuple(map(_kl, t, q)),
        kl_reference_tuned=tuple(map(_kl, q, t)),
        origin=_origin(token, views[0], views[1], tuned_views, None if alone else alpha),
        ids=tuple(ids.tolist()),
        n_top=n_top,
        base=views[0],
        fused=views[1],
        tuned=tuned_views,
        reference=tuple(views[2 + n :]),
    )


def _likeliest(logprobs: Array64, n: int) -> Ids:
    """The ids of the n largest entries, without those that are excluded."""
    first = max(len(logprobs) - n, 0)
    ids = np.argpartition(logprobs, first)[first:]
    top = logprobs.argmax()
    if top not in ids:  # of more than n equal tokens, greedy choice takes this one
        ids[0] = top
    return ids[logprobs[ids] > -np.inf]


def _view(logprobs: Array64, token: int, ids: Ids) -> ModelTrace:
    top = int(logprobs.argmax())
    probabilities = np.exp(logprobs[[top, token]])
    kept = np.round(logprobs[ids], 6) + 0.0  # no negative zeros
    return ModelTrace(top, float(probabilities[0]), float(probabilities[1]), tuple(kept.tolist()))


def _total_variation(p: Array64, q: Array64) -> float:
    return min(1.0, float(np.abs(np.exp(p) - np.exp(q)).sum()) / 2)


def _kl(p: Array64, q: Array64) -> float:
    """KL(P || Q) of log-probs; infinite where Q excludes what P does not."""
    weights = np.exp(p)
    inside = weights > 0
    return max(0.0, float((weights[inside] * (p[inside] - q[inside])).sum()))


def _origin(
    token: int,
    base: ModelTrace,
    fused: ModelTrace,
    tuned: Sequence[ModelTrace],
    alpha: Sequence[float] | None,
) -> str:
    """The key of `ORIGINS`; without alphas one part of the models spoke alone."""
    if token != fused.top:
        return "sampling"
    if alpha is None:
        agrees = all(view.top == token for view in (base, *tuned))
        return "agreement" if agrees else "alone"
    active = [view for view, value in zip(tuned, alpha, strict=True) if value] or tuned
    wanted = [view.top == token for view in active]
    if base.top == token:
        return "agreement" if all(wanted) else "base"
    return "delta" if any(wanted) else "fusion"


def top_at(trace: Trace, alpha: Sequence[float]) -> Ranking:
    """Rank the saved tokens as another alpha would: F' = F exp(sum_i (alpha'_i - alpha_i) delta_i).

    It starts from the fused distribution, not from the base, so that filters that do not depend on
    alpha stay in force. Tokens that fusing excluded stay excluded, and those without a finite delta
    keep their place. What saved tokens cannot tell is
    whether one outside of them would have come first. That is ruled out only for r times the saved
    alpha, 0 <= r <= 1: log F' is then, but for a constant, a mean of what the base (or, where it is
    filtered, the reference) and the fused distribution give, and both are bounded outside of their
    own likeliest tokens.

    Args:
        trace: a saved trace.
        alpha: (E) what each delta is to be multiplied with.
    """
    delta = np.zeros((len(trace.tuned), len(trace.ids)))
    for row, t, q in zip(delta, trace.tuned, trace.reference, strict=True):
        kept = np.isfinite(t.logprobs) & np.isfinite(q.logprobs)
        np.subtract(t.logprobs, q.logprobs, out=row, where=kept)
    saved, wanted = np.array(trace.alpha), np.array(alpha, dtype=np.float64)
    fused = np.array(trace.fused.logprobs)
    scores = fused + ((wanted - saved)[:, None] * delta).sum(axis=0)
    for value, t in zip(alpha, trace.tuned, strict=True):
        if value > 0:
            scores[np.isneginf(t.logprobs)] = -np.inf
    order = np.argsort(-scores, kind="stable")
    with np.errstate(invalid="ignore"):
        shift = fused - (saved[:, None] * delta).sum(axis=0) - np.array(trace.base.logprobs)
    bound = _bound_outside(trace, shift[np.isfinite(shift)], _share(saved, wanted))
    ids = tuple(trace.ids[i] for i in order)
    return Ranking(ids, bool(scores[order[0]] > bound + _ROUNDING))


def _share(saved: Array64, wanted: Array64) -> float | None:
    """The r with wanted = r * saved; None where there is none from 0 to 1."""
    if np.array_equal(saved, wanted):
        return 1.0
    place = int(np.abs(saved).argmax())
    if saved[place] == 0:
        return None
    share = float(wanted[place] / saved[place])
    return share if 0 <= share <= 1 and np.allclose(wanted, share * saved) else None


def _bound_outside(trace: Trace, shift: Array64, share: float | None) -> float:
    """What no token outside the trace exceeds at share * alpha; infinite where that is unknown.

    Args:
        trace: the trace.
        shift: log F - sum_i alpha_i delta_i - log P of tokens; a constant if nothing is filtered.
        share: r of `top_at`.
    """
    fused = _last_kept(trace.fused, trace.n_top)
    if share == 1:
        return fused
    if share is None or not len(shift) or float(np.ptp(shift)) > _ROUNDING:
        return float("inf")
    outside = max(_last_kept(view, trace.n_top) for view in (trace.base, *trace.reference))
    unfused = float(shift.mean()) + outside
    return (1 - share) * unfused + share * fused if share else unfused


def _last_kept(view: ModelTrace, n_top: int) -> float:
    """What no token outside the trace exceeds in a model's own log-probs."""
    return sorted(view.logprobs, reverse=True)[:n_top][-1]
