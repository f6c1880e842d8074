"""The top-p filter of the up-scaling weights against a filter that sorts in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.alpha import AlphaSettings, search_alpha
from eftlocal.distributions import Array64
from eftlocal.fusion import FusionSettings, fuse

from .reference_alpha import Goal, Row, filtered_base, log_softmax
from .rows import (
    FINITE,
    Case,
    base_is_reference,
    cases,
    flat,
    make_case,
    many,
    ordinary,
    peaked,
    related,
    seeds,
    zipf,
)

TOP_P = (1e-9, 0.01, 0.3, 0.8, 0.95, 0.999, 1.0)
ALPHAS = (0.0, 0.4, 1.0, 2.0, -0.7)
# Rows without equal probabilities, where the smallest set is unique.
DISTINCT = (ordinary, related, peaked, zipf)
SURE = 1e-6
"""Sums of probability nearer to p than this may fall on either side in float32."""


def weights_of(seed: int, experts: int) -> tuple[float, ...]:
    """Weights of either sign that sum to anything."""
    rng = np.random.default_rng(seed)
    return tuple(float(w) for w in rng.choice([0.5, 1.0, 0.25, -0.5, 2.0], experts))


def wanted_logprobs(row: Row, alpha: float, weights: tuple[float, ...], base: Array64) -> Array64:
    """Log F in float64 over a base that is filtered already."""
    delta = np.asarray(weights) @ (row.tuned - row.reference)
    return log_softmax(base + alpha * delta)


def assert_filtered(case: Case, setting: FusionSettings, weights: tuple[float, ...]) -> None:
    """Equal to the sorting filter; a sum that is p up to rounding may count either way."""
    assert isinstance(setting.alpha, float)
    fused = fuse(*case, setting)
    for logprobs, row in zip(fused.logprobs, case.exact(), strict=True):
        base, margin = filtered_base(row, weights, setting.upscale_top_p)
        choices = [base]
        unsure = np.flatnonzero(np.abs(margin) < SURE)
        if len(unsure) == 1:
            choices.append(base.copy())
            share = np.abs(weights) / np.abs(weights).sum()
            other = share @ row.reference if margin[unsure[0]] > 0 else row.base
            choices[1][unsure] = other[unsure]
        close = [
            np.allclose(logprobs, wanted_logprobs(row, setting.alpha, weights, choice), 1e-6, 3e-5)
            for choice in choices
        ]
        assert any(close) or len(unsure) > 1


@settings(many, max_examples=100)
@given(cases(DISTINCT), st.sampled_from(TOP_P), st.sampled_from(ALPHAS))
def test_one_expert(case: Case, top_p: float, alpha: float) -> None:
    """Outside the tuned model's top-p set the reference takes the base's place."""
    assert_filtered(case, FusionSettings(alpha, upscale_top_p=top_p), (1.0,))


@settings(many, max_examples=100)
@given(cases(DISTINCT, experts=(1, 3)), st.sampled_from(TOP_P), st.sampled_from(ALPHAS), seeds)
def test_weighted_experts(case: Case, top_p: float, alpha: float, seed: int) -> None:
    """The mixed tuned model defines the set, the mixed reference stands in for the base."""
    weights = weights_of(seed, len(case.tuned))
    assert_filtered(case, FusionSettings(alpha, weights, upscale_top_p=top_p), weights)


@pytest.mark.parametrize("experts", [2, 3])
def test_experts_without_weights_count_alike(experts: int) -> None:
    """A fixed alpha without weights is the filter with 1/E for everyone."""
    case = make_case(DISTINCT, 5, 24, experts)
    assert_filtered(case, FusionSettings(0.8, None, upscale_top_p=0.7), (1 / experts,) * experts)


@many
@given(cases(FINITE, experts=(1, 3)), st.sampled_from(TOP_P), st.sampled_from(ALPHAS))
def test_no_token_is_lost(case: Case, top_p: float, alpha: float) -> None:
    """Any row: every token keeps a finite log-prob, and they sum to one."""
    logprobs = fuse(*case, FusionSettings(alpha, upscale_top_p=top_p)).logprobs
    assert np.isfinite(logprobs).all()
    total = np.exp(logprobs, dtype=np.float64).sum(axis=-1)
    np.testing.assert_allclose(total, 1, rtol=0, atol=2e-5)


@many
@given(cases((ordinary, related, zipf), max_rows=1), st.sampled_from(TOP_P[:-1]))
def test_the_definition_token_by_token(case: Case, top_p: float) -> None:
    """At alpha 1 log F - log T is one constant outside the set; the set is the smallest one."""
    logprobs = fuse(*case, FusionSettings(1.0, upscale_top_p=top_p)).logprobs[0].astype(np.float64)
    (row,) = case.exact()
    tuned, ratio = row.tuned[0], row.base - row.reference[0]
    shift = logprobs - tuned
    # Tokens are outside from the least likely upwards; P/Q of 1 gives them the same shift.
    order = np.argsort(tuned, kind="stable")
    outside = np.zeros(len(tuned), bool)
    for token in order:
        if abs(shift[token] - shift[order[0]]) > 1e-4:
            break
        outside[token] = True
    inside_mass = np.exp(tuned[~outside]).sum()
    if not outside.all() and np.abs(ratio).min() > 1e-3:
        distance = np.abs((shift - ratio)[~outside] - (shift - ratio)[~outside][0])
        assert distance.max() < 1e-4
        if outside.sum() > 1:
            assert inside_mass >= top_p - SURE
            assert inside_mass - np.exp(tuned[~outside]).min() < top_p + SURE


def test_equal_probabilities() -> None:
    """Of tokens with one probability exactly as many are inside as are needed."""
    base = np.log(np.array([[0.4, 0.1, 0.3, 0.2]], np.float32))
    level = np.zeros((1, 1, 4), np.float32)
    for top_p, inside in ((0.2, 1), (0.26, 2), (0.6, 3), (0.9, 4)):
        fused = fuse(base, level, level, FusionSettings(1.0, upscale_top_p=top_p))
        kept = ~np.isclose(fused.logits[0] - fused.logits[0].max(), 0, atol=1e-6)
        flat_level = np.log(0.25)
        candidates = [
            np.where(np.isin(np.arange(4), chosen), base[0], flat_level)
            for chosen in _subsets(4, inside)
        ]
        assert any(np.allclose(fused.logprobs[0], log_softmax(c), atol=1e-5) for c in candidates)
        assert kept.any()


def _subsets(n: int, size: int) -> list[tuple[int, ...]]:
    """All sets of `size` of n tokens."""
    found: list[tuple[int, ...]] = [()]
    for _ in range(size):
        found = [(*s, i) for s in found for i in range(s[-1] + 1 if s else 0, n)]
    return found


def test_one_is_off() -> None:
    """A p of 1 gives bit by bit what there is without a filter."""
    case = make_case((ordinary, zipf, flat, peaked), 2, 100, experts=2)
    for alpha in ALPHAS:
        plain = fuse(*case, FusionSettings(alpha))
        off = fuse(*case, FusionSettings(alpha, upscale_top_p=1.0))
        np.testing.assert_array_equal(off.logits, plain.logits)


def test_a_tiny_p_keeps_only_the_top_token() -> None:
    """At alpha 1 the tuned model comes out, but for its favourite."""
    case = make_case((ordinary,), 4, 24)
    (row,) = case.exact()
    logprobs = fuse(*case, FusionSettings(1.0, upscale_top_p=1e-9)).logprobs[0]
    rest = np.arange(24) != row.tuned[0].argmax()
    shift = (logprobs - row.tuned[0])[rest]
    np.testing.assert_allclose(shift, shift[0], atol=1e-5)
    assert abs(logprobs[~rest][0] - row.tuned[0][~rest][0] - shift[0]) > 1e-3


def test_a_base_that_is_the_reference_needs_no_filter() -> None:
    """P = Q: the filter replaces equals by equals, up to constants of the logits."""
    case = make_case((base_is_reference,) * 3, 3, 24)
    filtered = fuse(*case, FusionSettings(1.0, upscale_top_p=0.5))
    for logprobs, row in zip(filtered.logprobs, case.exact(), strict=True):
        np.testing.assert_allclose(logprobs, row.tuned[0], atol=1e-5)


@many
@given(
    cases(DISTINCT, experts=(1, 3)),
    st.sampled_from(TOP_P),
    st.sampled_from(["dynamic", "one-sided", "grid", "joint"]),
    st.booleans(),
)
def test_a_search_sees_the_filtered_base(
    case: Case, top_p: float, mode: str, weighted: bool
) -> None:
    """The filtered, normalised base takes P's place in the loss."""
    weights = weights_of(3, len(case.tuned)) if weighted else None
    share = weights or (1 / len(case.tuned),) * len(case.tuned)
    fused = fuse(*case, FusionSettings(mode, weights, upscale_top_p=top_p))
    for i, row in enumerate(case.exact()):
        base, margin = filtered_base(row, share, top_p)
        if np.abs(margin).min() < SURE:
            continue
        seen = Row(log_softmax(base), row.tuned, row.reference)
        goal = Goal(seen, mode == "one-sided", weights)
        arrays = (seen.base[None], seen.tuned[:, None], seen.reference[:, None])
        found = search_alpha(*arrays, AlphaSettings(mode, weights=weights))
        reached, wanted = goal.loss(fused.alpha[i]), goal.loss(found.alpha[0])
        assert reached == pytest.approx(wanted, rel=2e-6, abs=2e-6)
        delta = fused.alpha[i] @ (row.tuned - row.reference)
        np.testing.assert_allclose(fused.logprobs[i], log_softmax(base + delta), 1e-6, 3e-5)


@many
@given(cases(DISTINCT, experts=(1, 2)), st.sampled_from([0.5, 1.0]), st.sampled_from(ALPHAS))
def test_neutral_ids(case: Case, top_p: float, alpha: float) -> None:
    """Given ids count as outside the set, whatever the tuned model says; also without a filter."""
    experts = len(case.tuned)
    neutral = np.array([0, case.base.shape[1] - 1])
    fused = fuse(*case, FusionSettings(alpha, upscale_top_p=top_p), neutral=neutral)
    for logprobs, row in zip(fused.logprobs, case.exact(), strict=True):
        base, margin = filtered_base(row, (1 / experts,) * experts, top_p)
        base[neutral] = row.reference.mean(axis=0)[neutral]
        if np.abs(margin).min() > SURE:
            wanted = wanted_logprobs(row, alpha, (1 / experts,) * experts, base)
            np.testing.assert_allclose(logprobs, wanted, 1e-6, 3e-5)


@pytest.mark.parametrize("alpha", [0.7, "dynamic"])
def test_a_row_does_not_see_the_others(alpha: float | str) -> None:
    """Rows filtered together or one by one are equal bit by bit."""
    setting = FusionSettings(alpha, upscale_top_p=0.8)
    for n_vocab in (5, 24, 1000):
        case = make_case(FINITE, 6, n_vocab)
        together = fuse(*case, setting)
        for i in range(len(FINITE)):
            alone = fuse(*case.row(i), setting)
            np.testing.assert_array_equal(alone.logits[0], together.logits[i])
            assert alone.log_z[0] == together.log_z[i]


def test_a_large_vocabulary() -> None:
    """152,064 tokens, many of them far in the tail."""
    case = make_case((zipf,), 3, 152_064)
    (row,) = case.exact()
    base, margin = filtered_base(row, (1.0,), 0.95)
    fused = fuse(*case, FusionSettings(1.0, upscale_top_p=0.95))
    sure = np.abs(margin) > 1e-4
    wanted = log_softmax(base + row.tuned[0] - row.reference[0])
    # A few tokens at the border may change sides, and move the normalisation by their mass.
    np.testing.assert_allclose(fused.logprobs[0][sure], wanted[sure], rtol=1e-6, atol=1e-3)
    assert sure.mean() > 0.5


def test_a_set_that_reaches_far_down() -> None:
    """One sure token, and a p that takes in half of the mass of thousands of hopeless ones."""
    tuned = -18 - 1e-4 * np.arange(4_099)
    tuned[0] = 0
    other = np.linspace(-1, 1, 4_099)
    case = Case(
        *(x.astype(np.float32) for x in (other[None], tuned[None, None], -other[None, None]))
    )
    (row,) = case.exact()
    top_p = 1 - 0.5 * float(np.exp(row.tuned[0, 1:]).sum())
    base, margin = filtered_base(row, (1.0,), top_p)
    wanted = log_softmax(base + row.tuned[0] - row.reference[0])
    sure = np.abs(margin) > 1e-6
    fused = fuse(*case, FusionSettings(1.0, upscale_top_p=top_p))
    np.testing.assert_allclose(fused.logprobs[0][sure], wanted[sure], rtol=1e-6, atol=1e-5)
    assert 1000 < (margin[sure] > 0).sum() < 3000


@pytest.mark.parametrize("alpha", [0.7, "dynamic"])
@pytest.mark.parametrize("top_p", [1e-9, 0.5])
def test_what_the_base_excludes_stays_excluded(alpha: float | str, top_p: float) -> None:
    """-inf of the base outlasts the filter; a token that only the reference excludes is kept."""
    case = make_case((ordinary,), 8, 24)
    case.base[0, 3] = case.reference[0, 0, 5] = -np.inf
    logprobs = fuse(*case, FusionSettings(alpha, upscale_top_p=top_p)).logprobs[0]
    assert np.flatnonzero(np.isneginf(logprobs)).tolist() == [3]
    assert np.isfinite(logprobs[np.arange(24) != 3]).all()
    assert np.exp(logprobs, dtype=np.float64).sum() == pytest.approx(1, abs=1e-5)
