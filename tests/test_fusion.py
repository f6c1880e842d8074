"""Fusion equals its formula in float64, for ordinary, huge and excluded (-inf) logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.distributions import Array, Array64, log_sum_exp
from eftlocal.errors import BackendError
from eftlocal.fusion import FusionSettings, fuse

INF = math.inf
seeds = st.integers(0, 2**32 - 1)
many = settings(deadline=None, derandomize=True, max_examples=60)


class Case(NamedTuple):
    """What `fuse` takes: base (R, V), tuned and reference (E, R, V), settings."""

    base: Array
    tuned: Array
    reference: Array
    settings: FusionSettings


def draw(seed: int, max_rows: int = 3, max_vocab: int = 24) -> Case:
    """Rows as language models have them: a spread of some nats; one to three experts."""
    rng = np.random.default_rng(seed)
    n_rows, n_vocab = int(rng.integers(1, max_rows + 1)), int(rng.integers(2, max_vocab + 1))
    experts = int(rng.integers(1, 4))
    base, *others = (
        np.clip(3 * rng.normal(size=(2 * experts + 1, n_rows, n_vocab)), -12, 12)
    ).astype(np.float32)
    weights = tuple(float(w) for w in rng.dirichlet(np.ones(experts)))
    alpha = float(rng.choice([0.0, 0.3, 1.0, 2.0, -0.7]))
    tuned, reference = np.array(others[:experts]), np.array(others[experts:])
    return Case(base, tuned, reference, FusionSettings(alpha, weights))


def exclude(case: Case, seed: int, share: float = 0.25) -> Case:
    """The same with -inf strewn over all arrays, but never over the whole of a base's row."""
    rng = np.random.default_rng(seed)
    base, tuned, reference = (
        np.where(rng.random(a.shape) < share, np.float32(-INF), a) for a in case[:3]
    )
    base[:, 0] = case.base[:, 0]
    return Case(base, tuned, reference, case.settings)


def multipliers(setting: FusionSettings, experts: int) -> tuple[float, ...]:
    """What each expert's delta is multiplied with, for a fixed alpha."""
    assert isinstance(setting.alpha, float)
    weights = setting.weights or (1 / experts,) * experts
    return tuple(setting.alpha * weight for weight in weights)


def exact_row(base: Array, tuned: Array, reference: Array, setting: FusionSettings) -> Array64:
    """(V,) log F by the rules of `fuse`, token by token in float64; NaN where none is left."""
    totals = []
    for v, start in enumerate(base.tolist()):
        total = start
        for t, q, multiplier in zip(
            tuned, reference, multipliers(setting, len(tuned)), strict=True
        ):
            if multiplier == 0 or q[v] == -INF:
                continue
            if t[v] > -INF:
                total += multiplier * (float(t[v]) - float(q[v]))
            elif multiplier > 0:
                total = -INF
        totals.append(total)
    top = max(totals)
    if top == -INF:
        return np.full(len(totals), np.nan)
    log_z = top + math.log(math.fsum(math.exp(total - top) for total in totals))
    row: Array64 = np.array(totals) - log_z
    return row


def exact(case: Case) -> Array64:
    """(R, V) log F in float64."""
    base, tuned, reference, setting = case
    return np.array(
        [exact_row(base[i], tuned[:, i], reference[:, i], setting) for i in range(len(base))]
    )


def assert_close(logprobs: Array, wanted: Array64, tolerance: float = 1e-5) -> None:
    """Equal log-probs; those far too low ever to matter need only be as hopeless."""
    hopeless = wanted < -1e4
    assert (logprobs[hopeless] < -0.9e4).all()
    np.testing.assert_allclose(logprobs[~hopeless], wanted[~hopeless], rtol=1e-7, atol=tolerance)


@many
@given(seeds)
def test_equals_the_formula_in_float64(seed: int) -> None:
    """One to three weighted experts, any alpha: within 1e-5 of float64, and alpha is reported."""
    case = draw(seed)
    fused = fuse(*case)
    assert fused.logits.dtype == fused.logprobs.dtype == np.float32
    assert_close(fused.logprobs, exact(case))
    assert fused.alpha.shape == (len(case.base), len(case.tuned))
    np.testing.assert_array_equal(
        fused.alpha, [multipliers(case.settings, len(case.tuned))] * len(case.base)
    )


def test_a_large_vocabulary_is_as_exact() -> None:
    """152,064 tokens: within 1e-5 of float64."""
    rng = np.random.default_rng(1)
    base, tuned, reference = (2.5 * rng.normal(size=(3, 1, 152_064))).astype(np.float32)
    total = base + 1.3 * (tuned.astype(np.float64) - reference)
    wanted = total - np.log(np.exp(total).sum(axis=-1, keepdims=True))
    fused = fuse(base, [tuned], [reference], FusionSettings(1.3))
    np.testing.assert_allclose(fused.logprobs, wanted, rtol=0, atol=1e-5)


@many
@given(seeds)
def test_sums_to_one(seed: int) -> None:
    """The probabilities of every row sum to 1."""
    total = np.exp(fuse(*draw(seed)).logprobs, dtype=np.float64).sum(axis=-1)
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-5)


@many
@given(seeds)
def test_constants_of_a_row_do_not_matter(seed: int) -> None:
    """Adding a number to any row of any model changes nothing (numbers that add exactly)."""
    rng = np.random.default_rng(seed)
    base, tuned, reference, setting = draw(seed)
    setting = FusionSettings(float(rng.choice([0.5, 1.0, 2.0, -1.0])), (0.5,) * len(tuned))
    grid: list[Array] = [np.round(64 * a) / np.float32(64) for a in (base, tuned, reference)]
    shifts = [rng.integers(-1000, 1001, (*a.shape[:-1], 1)).astype(np.float32) for a in grid]
    moved = [a + shift for a, shift in zip(grid, shifts, strict=True)]
    before, after = (fuse(a[0], a[1], a[2], setting).logprobs for a in (grid, moved))
    np.testing.assert_allclose(after, before, rtol=0, atol=3e-6)


@many
@given(seeds)
def test_alpha_zero_is_the_base(seed: int) -> None:
    """Without a multiplier the base's logits come out bit by bit."""
    case = exclude(draw(seed), seed)
    for weights in (case.settings.weights, None):
        fused = fuse(*case[:3], FusionSettings(0.0, weights))
        np.testing.assert_array_equal(fused.logits, case.base)


@many
@given(seeds)
def test_a_base_that_is_the_reference_gives_the_tuned_model(seed: int) -> None:
    """P = Q and alpha = 1: F = T."""
    _, tuned, reference, _ = draw(seed)
    fused = fuse(reference[0], tuned[:1], reference[:1], FusionSettings(1.0))
    wanted = tuned[0] - np.log(np.exp(tuned[0].astype(np.float64)).sum(axis=-1, keepdims=True))
    assert_close(fused.logprobs, wanted)


@many
@given(seeds, st.floats(0, 1))
def test_a_split_expert_is_one_expert(seed: int, share: float) -> None:
    """The same expert twice, with weights (share, 1 - share), is that expert."""
    base, tuned, reference, setting = draw(seed)
    pair = FusionSettings(setting.alpha, (share, 1 - share))
    twice = fuse(base, tuned[[0, 0]], reference[[0, 0]], pair)
    once = fuse(base, tuned[:1], reference[:1], FusionSettings(setting.alpha))
    np.testing.assert_allclose(twice.logprobs, once.logprobs, rtol=0, atol=2e-5)


@settings(many, max_examples=150)
@given(seeds, st.sampled_from([0.03, 0.3, 0.7]), st.booleans())
def test_excluded_tokens(seed: int, share: float, negative_weight: bool) -> None:
    """-inf anywhere follows the rules of `fuse`, or leaves nothing, which is an error."""
    case = exclude(draw(seed), seed, share)
    if negative_weight:
        weights = (-0.5, *(case.settings.weights or ())[1:])
        case = case._replace(settings=FusionSettings(case.settings.alpha, weights))
    wanted = exact(case)
    if np.isnan(wanted).any():
        with pytest.raises(BackendError, match="exclude every token"):
            fuse(*case)
    else:
        logprobs = fuse(*case).logprobs
        np.testing.assert_array_equal(np.isneginf(logprobs), np.isneginf(wanted))
        assert_close(logprobs, wanted)


RULES: dict[str, tuple[float, float, float, float, float]] = {
    "base excludes": (-INF, 0, 0, 1, -INF),
    "base and tuned exclude": (-INF, -INF, 0, 1, -INF),
    "base and reference exclude": (-INF, 0, -INF, 1, -INF),
    "all exclude": (-INF, -INF, -INF, 1, -INF),
    "tuned excludes": (2, -INF, 0, 1, -INF),
    "tuned excludes, negative alpha": (2, -INF, 0, -1, 2),
    "reference excludes": (2, 0, -INF, 1, 2),
    "reference excludes, negative alpha": (2, 0, -INF, -1, 2),
    "tuned and reference exclude": (2, -INF, -INF, 1, 2),
}


@pytest.mark.parametrize(
    ("base", "tuned", "reference", "alpha", "wanted"), RULES.values(), ids=RULES
)
def test_rules_of_exclusion(
    base: float, tuned: float, reference: float, alpha: float, wanted: float
) -> None:
    """Each rule on one token beside another with logit 1 and no delta."""
    rows = [np.array([[value, 1.0]], np.float32) for value in (base, tuned, reference)]
    fused = fuse(rows[0], [rows[1]], [rows[2]], FusionSettings(alpha))
    log_z = math.log(math.exp(wanted) + math.e)
    np.testing.assert_allclose(fused.logprobs, [[wanted - log_z, 1 - log_z]], atol=1e-6)


@many
@given(seeds, st.sampled_from([2.0**7, 2.0**20, 2.0**100, 2.0**118]))
def test_huge_logits(seed: int, scale: float) -> None:
    """Logits up to 1e36 neither overflow nor warn (multiples that add exactly)."""
    base, tuned, reference, setting = draw(seed)
    assert isinstance(setting.alpha, float)
    setting = FusionSettings(float(np.sign(setting.alpha)), (1.0,) * len(tuned))
    huge = [np.round(a) * np.float32(scale) for a in (base, tuned, reference)]
    case = Case(huge[0], huge[1], huge[2], setting)
    assert_close(fuse(*case).logprobs, exact(case))


def test_deltas_beyond_float32() -> None:
    """A delta that overflows float32 in both directions still gives a distribution."""
    most = float(np.finfo(np.float32).max)
    base = np.zeros((1, 3), np.float32)
    tuned = np.array([[[most, -most, 0]]], np.float32)
    fused = fuse(base, tuned, -tuned, FusionSettings(2.0))
    np.testing.assert_array_equal(np.exp(fused.logprobs), [[1, 0, 0]])
    assert np.isfinite(fused.log_z).all()


@pytest.mark.parametrize("place", ["base", "tuned", "reference"])
@pytest.mark.parametrize(("value", "wanted"), [(math.nan, "not numbers"), (INF, "infinite")])
def test_what_is_no_number_is_an_error(place: str, value: float, wanted: str) -> None:
    """One NaN or +inf in one row of any model is a damaged model, not a distribution."""
    case = draw(9)
    rows = getattr(case, place).copy()
    rows[..., -1, 1] = value
    if place == "reference" and value == INF:
        case.tuned[..., -1, 1] = INF  # alone it would only exclude the token
    setting = FusionSettings(1.0, (1.0,) * len(case.tuned))
    with pytest.raises(BackendError, match=wanted):
        fuse(*case._replace(**{place: rows}, settings=setting))


def test_an_exclusion_does_not_hide_a_broken_number() -> None:
    """NaN is an error also where the reference excludes the token, so that no delta is taken."""
    base = np.zeros((1, 2), np.float32)
    tuned = np.array([[math.nan, 0]], np.float32)
    reference = np.array([[-INF, 0]], np.float32)
    with pytest.raises(BackendError, match="not numbers"):
        fuse(base, [tuned], [reference], FusionSettings(1.0))


def test_a_row_without_tokens_is_an_error() -> None:
    """A base that excludes everything leaves nothing to choose from."""
    row = np.full((1, 4), -INF, np.float32)
    for alpha in (0.0, 1.0):
        with pytest.raises(BackendError, match="exclude every token"):
            fuse(row, [row], [row], FusionSettings(alpha))


def mixed_rows(seed: int, n_rows: int, n_vocab: int) -> Case:
    """Ordinary rows between rows with exclusions, rows beyond exp's range and huge rows."""
    rng = np.random.default_rng(seed)
    arrays = (3 * rng.normal(size=(3, n_rows, n_vocab))).astype(np.float32)
    kinds = rng.integers(0, 4, n_rows)
    arrays[0, kinds == 1, ::3] = -INF
    arrays[2, kinds == 1, 1::3] = -INF
    arrays[0, kinds == 2] += 200
    arrays[:, kinds == 3] *= np.float32(1e37)
    return Case(arrays[0], arrays[1:2], arrays[2:], FusionSettings(float(rng.choice([0.7, -0.7]))))


@many
@given(seeds)
def test_out_holds_the_result_and_inputs_stay(seed: int) -> None:
    """With `out` nothing new is returned, also by the careful path; inputs are not written."""
    case = mixed_rows(seed, n_rows=4, n_vocab=24)
    before = [a.copy() for a in case[:3]]
    out = np.full(case.base.shape, np.nan, np.float32)
    fused = fuse(*case, out=out)
    assert fused.logits is out
    np.testing.assert_array_equal(out, fuse(*case).logits)
    for array, copy in zip(case[:3], before, strict=True):
        np.testing.assert_array_equal(array, copy)


@many
@given(seeds, st.integers(1, 9), st.sampled_from([2, 7, 24, 1000, 4099]))
def test_a_row_does_not_see_the_others(seed: int, n_rows: int, n_vocab: int) -> None:
    """Rows computed together, one by one, or out of a wider array are equal bit by bit."""
    base, tuned, reference, setting = mixed_rows(seed, n_rows, n_vocab)
    together = fuse(base, tuned, reference, setting)
    wide = np.zeros((n_rows, n_vocab + 3), np.float32)
    wide[:, :n_vocab] = base
    sliced = fuse(wide[:, :n_vocab], tuned, reference, setting)
    np.testing.assert_array_equal(sliced.logits, together.logits)
    np.testing.assert_array_equal(sliced.log_z, together.log_z)
    for i in range(n_rows):
        row = slice(i, i + 1)
        alone = fuse(base[row], tuned[:, row], reference[:, row], setting)
        np.testing.assert_array_equal(alone.logits[0], together.logits[i])
        assert alone.log_z[0] == together.log_z[i]


LOGITS: dict[str, Sequence[float]] = {
    "ordinary": (1.0, 2.0, 3.0),
    "beyond exp of float32": (1000.0, 1000.0, 999.0),
    "far below zero": (-1000.0, -1001.0, -INF),
    "one token": (-INF, 5.0, -INF),
    "no token": (-INF, -INF, -INF),
}


@pytest.mark.parametrize("row", LOGITS.values(), ids=LOGITS)
def test_log_sum_exp(row: Sequence[float]) -> None:
    """The definition, shifted by the largest logit."""
    top = max(max(row), -1e9)
    total = sum(math.exp(x - top) for x in row)
    wanted = top + math.log(total) if total else -INF
    assert log_sum_exp(np.array([row], np.float32))[0] == pytest.approx(wanted, abs=1e-6)
