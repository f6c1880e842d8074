"""Traces against float64 sums that are written out token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eftlocal.diagnostics import ORIGINS, Trace, diagnose, top_at
from eftlocal.distributions import Array, Array64
from eftlocal.fusion import FusionSettings, fuse

from .rows import FINITE, Case, cases, many, related

EDGE = -math.inf
alphas = st.sampled_from((0.0, 0.3, 1.0, 1.7, 2.0, -0.5))


def probabilities(logits: Sequence[float]) -> list[float]:
    """Softmax, one token after the other."""
    top = max(float(x) for x in logits)
    weights = [math.exp(float(x) - top) for x in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def divergence(p: Sequence[float], q: Sequence[float]) -> float:
    """KL of logits: sum of p log(p / q), one token after the other."""
    shift_p = max(p) + math.log(math.fsum(math.exp(x - max(p)) for x in p))
    shift_q = max(q) + math.log(math.fsum(math.exp(x - max(q)) for x in q))
    terms = []
    for weight, x, y in zip(probabilities(p), p, q, strict=True):
        if weight > 0:
            terms.append(math.inf if y == EDGE else weight * ((x - shift_p) - (y - shift_q)))
    return math.inf if math.inf in terms else math.fsum(terms)


def fused_row(case: Case, alpha: Sequence[float]) -> list[float]:
    """The first row as fusion gives it, each delta multiplied with its alpha."""
    row = fuse(case.base, case.tuned, case.reference, FusionSettings(1.0, tuple(alpha)))
    return [float(x) for x in row.logits[0]]


def traced(case: Case, alpha: Sequence[float], token: int | None = None, n_top: int = 20) -> Trace:
    """The trace of the first row; the token is greedy where none is given."""
    fused = np.array(fused_row(case, alpha), np.float32)
    token = int(fused.argmax()) if token is None else token
    experts = [row[0] for row in case.tuned], [row[0] for row in case.reference]
    return diagnose(case.base[0], *experts, fused, tuple(alpha), token, n_top)


def floats(row: Array) -> list[float]:
    """A row as Python's floats."""
    return [float(x) for x in row]


def close(value: float, expected: float) -> bool:
    """Equal up to the rounding of long sums."""
    return value == expected or abs(value - expected) < 1e-9 * max(1, abs(expected))


@many
@given(cases(experts=(1, 3), max_rows=1), alphas, st.integers(0, 10**6))
def test_numbers_are_those_of_the_definitions(case: Case, alpha: float, pick: int) -> None:
    """Total variation, divergences and probabilities equal sums over the whole vocabulary."""
    multipliers = [alpha / (i + 1) for i in range(len(case.tuned))]
    token = pick % case.base.shape[1]
    trace = traced(case, multipliers, token)
    base, fused = floats(case.base[0]), fused_row(case, multipliers)
    assert close(trace.kl_fused_base, max(0, divergence(fused, base)))
    assert close(trace.kl_base_fused, max(0, divergence(base, fused)))
    for i in range(len(case.tuned)):
        tuned, reference = floats(case.tuned[i, 0]), floats(case.reference[i, 0])
        pairs = zip(probabilities(fused), probabilities(tuned), strict=True)
        assert close(trace.total_variation[i], math.fsum(abs(f - t) for f, t in pairs) / 2)
        assert close(trace.kl_tuned_reference[i], max(0, divergence(tuned, reference)))
        assert close(trace.kl_reference_tuned[i], max(0, divergence(reference, tuned)))
        assert close(trace.tuned[i].probability, probabilities(tuned)[token])
        assert close(trace.reference[i].top_probability, max(probabilities(reference)))
    assert close(trace.base.probability, probabilities(base)[token])
    assert base[trace.base.top] == max(base)
    assert trace.fused.top == fused.index(max(fused))
    assert trace.alpha == tuple(multipliers)


@many
@given(cases(experts=(1, 2), max_rows=1), alphas)
def test_every_number_has_its_range(case: Case, alpha: float) -> None:
    """Excluded tokens give no NaN; variation lies in [0, 1], divergences are not negative."""
    trace = traced(case, [alpha] * len(case.tuned))
    assert all(0 <= value <= 1 for value in trace.total_variation)
    divergences = (
        trace.kl_fused_base,
        trace.kl_base_fused,
        *trace.kl_tuned_reference,
        *trace.kl_reference_tuned,
    )
    assert all(value >= 0 for value in divergences)
    for view in (trace.base, trace.fused, *trace.tuned, *trace.reference):
        assert 0 <= view.probability <= view.top_probability + 1e-12 <= 1 + 2e-12
        assert not any(math.isnan(value) for value in view.logprobs)


def test_divergence_from_what_excludes_a_token_is_infinite() -> None:
    """Where only the base excludes a token that the fused distribution has, KL(F || P) is inf."""
    rows = [np.array(row, np.float32) for row in ([EDGE, 1, 0], [2, 1, 0], [1, 1, 0], [1, 1, 0])]
    trace = diagnose(rows[0], [rows[1]], [rows[2]], rows[3], (1.0,), 0)
    assert trace.kl_fused_base == math.inf
    assert math.isfinite(trace.kl_base_fused)


@many
@given(cases(experts=(1, 1), max_rows=1, kinds=FINITE))
def test_total_variation_is_zero_exactly_for_equals(case: Case) -> None:
    """It is 0 where fused is tuned, so for P = Q and alpha 1 too, and above 0 for others."""
    base, tuned = case.base[0], case.tuned[0, 0]
    same = diagnose(base, [tuned], [base], tuned, (1.0,), 0)
    assert same.total_variation == (0.0,)
    one = Case(case.reference[0], case.tuned, case.reference)
    assert traced(one, [1.0]).total_variation[0] < 1e-4
    other = tuned.copy()
    other[0] += 5
    moved = diagnose(base, [tuned], [base], other, (1.0,), 0).total_variation[0]
    p, q = probabilities(floats(other)), probabilities(floats(tuned))
    assert (moved > 0) == (p != q)


@many
@given(cases(experts=(1, 2), max_rows=1), st.sampled_from((1, 3, 20)))
def test_ids_hold_the_likeliest_of_every_model(case: Case, n_top: int) -> None:
    """Each model's likeliest ids are kept, with the log-probs of all models for all of them."""
    trace = traced(case, [1.0] * len(case.tuned), n_top=n_top)
    rows = [case.base[0], *case.tuned[:, 0], *case.reference[:, 0]]
    views = [trace.base, *trace.tuned, *trace.reference]
    assert list(trace.ids) == sorted(set(trace.ids))
    for row, view in zip(rows, views, strict=True):
        exact = np.log(np.maximum(probabilities(floats(row)), 1e-300))
        outside = np.delete(row, trace.ids)
        kept = sorted((row[i] for i in trace.ids), reverse=True)[:n_top]
        assert view.top in trace.ids
        assert not len(outside) or outside.max() <= kept[-1]
        for i, value in zip(trace.ids, view.logprobs, strict=True):
            assert value == EDGE or exact[i] < -600 or abs(value - exact[i]) < 1e-5
            assert (value == EDGE) == (row[i] == EDGE)


# Each row: base, tuned, fused and the token; three tokens, the likeliest being given.
STORIES = {
    "agreement": (1, 1, 1, 1),
    "base": (1, 2, 1, 1),
    "delta": (2, 1, 1, 1),
    "fusion": (2, 0, 1, 1),
    "sampling": (2, 2, 2, 1),
}


def peak(place: int) -> Array:
    """Three tokens, one of them likely."""
    return np.array([3 if i == place else 0 for i in range(3)], np.float32)


@pytest.mark.parametrize("origin", STORIES)
def test_origin_names_who_changed_the_token(origin: str) -> None:
    """The word follows from whose likeliest token was chosen."""
    base, tuned, fused, token = STORIES[origin]
    trace = diagnose(peak(base), [peak(tuned)], [peak(0)], peak(fused), (1.0,), token)
    assert trace.origin == origin


def test_origin_of_one_model_alone() -> None:
    """Nobody has changed what it says: base and tuned models would have said it, too, or not."""
    assert {*STORIES, "alone"} == {*ORIGINS}
    experts = [peak(1), peak(2)], [peak(0), peak(0)]
    origins = [
        diagnose(peak(base), *small, peak(1), (0.0,) * len(small[0]), token, alone=True).origin
        for base, small, token in [
            (1, ([peak(1)], [peak(0)]), 1), (1, ([peak(2)], [peak(0)]), 1),
            (2, ([peak(1)], [peak(0)]), 1), (2, ([peak(0)], [peak(1)]), 1),
            (1, experts, 1), (1, experts, 2),
        ]
    ]  # fmt: skip
    assert origins == ["agreement", "alone", "alone", "alone", "alone", "sampling"]


def test_origin_asks_the_experts_that_have_a_part_in_it() -> None:
    """An expert whose alpha is 0 has no say; where all are 0, every one has."""
    experts = [peak(1), peak(2)], [peak(0), peak(0)]
    origins = [
        diagnose(peak(base), *experts, peak(1), alpha, 1).origin
        for base, alpha in [
            (1, (1.0, 0.0)), (1, (0.0, 1.0)), (1, (1.0, 1.0)), (2, (0.5, 0.5)),
            (2, (0.0, 1.0)), (1, (0.0, 0.0)),
        ]
    ]  # fmt: skip
    assert origins == ["agreement", "base", "base", "delta", "fusion", "base"]


@many
@given(cases(kinds=FINITE, experts=(1, 3), max_rows=1, sizes=(24, 100, 1000)), alphas, alphas)
def test_saved_tokens_rank_as_the_full_vocabulary_does(case: Case, old: float, new: float) -> None:
    """At another alpha saved tokens have the order of fusing anew, and certainty is never wrong."""
    n = len(case.tuned)
    trace = traced(case, [old / n] * n, n_top=5)
    ranking = top_at(trace, [new / n] * n)
    again = fused_row(case, [new / n] * n)
    assert sorted(ranking.ids) == list(trace.ids)
    saved = [again[i] for i in ranking.ids]
    slack = 1e-4 * max(1.0, *(abs(x) for x in saved))
    assert all(x >= y - slack for x, y in pairwise(saved))
    if ranking.is_certain:
        assert saved[0] >= max(again) - slack


@many
@given(cases(experts=(1, 1), max_rows=1, kinds=(related,), sizes=(1000,)))
def test_the_saved_alpha_is_certain(case: Case) -> None:
    """At its own alpha a trace knows the likeliest token; beyond it nothing is certain."""
    trace = traced(case, [1.0])
    ranking = top_at(trace, [1.0])
    assert ranking.is_certain
    assert ranking.ids[0] == trace.fused.top
    assert not top_at(trace, [1.5]).is_certain
    assert not top_at(trace, [-0.5]).is_certain


def test_weaker_alphas_are_often_certain() -> None:
    """Between 0 and the saved alpha the bounds of base and fused tokens usually decide."""
    rng = np.random.default_rng(0)
    known = 0
    for _ in range(50):
        rows = (6 * rng.normal(size=1000) + rng.normal(size=(3, 1000))).astype(np.float32)
        case = Case(rows[:1], rows[1:2, None], rows[2:, None])
        trace = traced(case, [1.0])
        ranking = top_at(trace, [0.5])
        if ranking.is_certain:
            known += 1
            again = fused_row(case, [0.5])
            assert again[ranking.ids[0]] == max(again)
    assert known > 25


def log_softmax(*logits: float) -> Array64:
    """Log-probs of a few tokens."""
    return np.array(logits) - math.log(math.fsum(map(math.exp, logits)))


def trace_of(p: Array64, q: Array64, delta: Array64, start: Array64, n_top: int) -> Trace:
    """The trace at alpha 1 where `start` takes the base's part."""
    rows = [row.astype(np.float32) for row in (p, q + delta, q, start + delta)]
    return diagnose(rows[0], [rows[1]], [rows[2]], rows[3], (1.0,), 0, n_top)


def test_a_token_that_is_nowhere_first_may_win_between() -> None:
    """The third token is second at alpha 0 and at alpha 1, not saved, and first at 0.5."""
    p, q = log_softmax(0, -4, -1), log_softmax(0, -1, -5)
    delta = np.array([-4.0, 4.0, 0.0])
    assert (p + delta / 2).argmax() == 2
    trace = trace_of(p, q, delta, p, n_top=1)
    assert trace.ids == (0, 1)
    assert not top_at(trace, [0.5]).is_certain


def test_a_filter_may_act_on_tokens_that_are_not_saved() -> None:
    """The last token is not saved, and the reference takes the base's part for it alone."""
    p, q = log_softmax(0, -4, -9, -20), log_softmax(0, -3, -0.1, -0.5)
    delta = np.array([-4.0, 4.0, 8.1, -0.5])
    start = np.array([*p[:3], q[3]])
    assert (start + delta / 2).argmax() == 3
    trace = trace_of(p, q, delta, start, n_top=2)
    assert trace.ids == (0, 1, 2)
    assert not top_at(trace, [0.5]).is_certain


def test_filters_stay_in_force() -> None:
    """A base that was replaced for some tokens stays replaced, and bounds know of it."""
    rng = np.random.default_rng(1)
    base, tuned, reference = (3 * rng.normal(size=(3, 200))).astype(np.float32)
    filtered = np.where(np.arange(200) % 2, base, reference)
    trace = diagnose(base, [tuned], [reference], filtered + tuned - reference, (1.0,), 0)
    for alpha in (0.0, 0.4, 1.0, 1.5):
        ranking = top_at(trace, [alpha])
        again = filtered + alpha * (tuned - reference)
        best = max(trace.ids, key=lambda i: float(again[i]))
        assert ranking.ids[0] == best
        assert ranking.is_certain == (alpha == 1.0)


def test_tokens_that_fusing_excluded_stay_excluded() -> None:
    """Nothing is known of them, so another alpha ranks them last; the tuned model excludes, too."""
    rows = np.array([[5, 1, 0], [EDGE, 1, 0], [1, 1, 0]], np.float32)
    fused = np.array([EDGE, 1, 0], np.float32)
    trace = diagnose(rows[0], [rows[1]], [rows[2]], fused, (1.0,), 1)
    assert top_at(trace, [0.0]).ids == (1, 2, 0)
    trace = diagnose(rows[0], [rows[1]], [rows[2]], rows[0], (0.0,), 0)
    assert top_at(trace, [-0.5]).ids[0] == 0
    assert top_at(trace, [0.5]).ids == (1, 2, 0)
