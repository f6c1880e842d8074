"""The search of one alpha per row reaches what brute force in float64 reaches, on any row."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.alpha import Alpha, AlphaSettings, search_alpha
from eftlocal.distributions import Array64
from eftlocal.errors import BackendError

from .reference_alpha import Goal, Row, local_minima, paper_loop
from .rows import (
    FINITE,
    Case,
    Kind,
    base_is_reference,
    cases,
    disjoint,
    flat,
    heavy,
    integers,
    make_case,
    many,
    masked,
    no_delta,
    ordinary,
    related,
    seeds,
    slight,
    zipf,
)

TOLERANCE = 1e-6
MODES = ("dynamic", "one-sided")
WIDE_RANGES = ((-0.93, 1.61), (-3.03, 5.0))
RANGES = ((0.0, 2.0), (0.0, 2.0), *WIDE_RANGES, (0.5, 3.0), (-2.0, -0.25), (0.3, 0.4))
# Minima at 0.777 (loss 89.70) and 1.468 (loss 92.01).
TWO_MINIMA = ((0.0, -12.0, -5.0), (-13.0, 0.0, -9.0), (0.0, -2.0, -1.0))


def close(loss: float, best: float) -> bool:
    """Whether a loss is as good as the best one, as far as the search promises."""
    return loss <= best + TOLERANCE * max(1.0, best)


def single(p: tuple[float, ...], t: tuple[float, ...], q: tuple[float, ...]) -> Case:
    """One row and one expert from three lists of logits."""
    base, tuned, reference = (np.array([x], np.float32) for x in (p, t, q))
    return Case(base, tuned[None], reference[None])


def assert_optimal(case: Case, found: Alpha, goals: list[Goal], low: float, high: float) -> None:
    """Every row's alphas lie in range, reach the minimum and have the loss that is reported."""
    assert found.alpha.shape == (len(case.base), len(case.tuned))
    assert found.loss.shape == (len(case.base),)
    assert found.alpha.dtype == found.loss.dtype == np.float64
    for alpha, loss, goal in zip(found.alpha, found.loss, goals, strict=True):
        assert np.isfinite(alpha).all()
        reached, best = goal.loss(alpha), goal.minimum(low, high)
        assert close(reached, best), (alpha, reached, best)
        assert loss == pytest.approx(reached, rel=1e-5, abs=1e-5)


@settings(many, max_examples=80)
@given(cases(), st.sampled_from(MODES), st.sampled_from(RANGES))
def test_reaches_the_minimum(case: Case, mode: str, span: tuple[float, float]) -> None:
    """One expert, any row, any range: no alpha is better than the one found."""
    found = search_alpha(*case, AlphaSettings(mode, *span))
    assert ((span[0] <= found.alpha) & (found.alpha <= span[1])).all()
    goals = [Goal(row, mode == "one-sided") for row in case.exact()]
    assert_optimal(case, found, goals, *span)


@pytest.mark.parametrize("span", [(0.0, 2.0), *WIDE_RANGES])
@pytest.mark.parametrize("kind", [heavy, slight, integers])
def test_sharp_turns_and_small_targets(kind: Kind, span: tuple[float, float]) -> None:
    """Rows whose minima lie close to 0, or between sudden turns of the curves."""
    for seed in range(8):
        case = make_case((kind,), seed, 24)
        found = search_alpha(*case, AlphaSettings("dynamic", *span))
        assert_optimal(case, found, [Goal(row) for row in case.exact()], *span)


@settings(many, max_examples=40)
@given(cases(experts=(2, 3)), st.sampled_from(MODES), st.sampled_from(RANGES))
def test_one_of_several_experts(case: Case, mode: str, span: tuple[float, float]) -> None:
    """Without weights at most one expert is active, and no other one reaches a lower loss."""
    found = search_alpha(*case, AlphaSettings(mode, *span))
    assert ((found.alpha != 0).sum(axis=1) <= 1).all()
    assert (((span[0] <= found.alpha) & (found.alpha <= span[1])) | (found.alpha == 0)).all()
    goals = [Goal(row, mode == "one-sided") for row in case.exact()]
    assert_optimal(case, found, goals, *span)


@settings(many, max_examples=40)
@given(cases(experts=(1, 3)), st.sampled_from((*MODES, "joint")), st.sampled_from(RANGES), seeds)
def test_weights_make_one_delta(
    case: Case, mode: str, span: tuple[float, float], seed: int
) -> None:
    """With weights one alpha multiplies them all; targets are averaged by size of weight."""
    rng = np.random.default_rng(seed)
    weights = tuple(float(w) for w in rng.choice([0.3, 0.7, 1.0, -0.5, 2.0], len(case.tuned)))
    found = search_alpha(*case, AlphaSettings(mode, *span, weights))
    alpha = found.alpha / weights
    np.testing.assert_allclose(alpha, alpha[:, :1] * np.ones(len(weights)), rtol=1e-12)
    assert ((span[0] - 1e-12 <= alpha) & (alpha <= span[1] + 1e-12)).all()
    goals = [Goal(row, mode == "one-sided", weights) for row in case.exact()]
    assert_optimal(case, found, goals, *span)


@pytest.mark.parametrize("mode", [*MODES, "grid", "joint"])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.25, 0.0)])
def test_an_expert_without_weight_does_not_count(mode: str, weights: tuple[float, float]) -> None:
    """A weight of 0 leaves what the search finds for the other expert alone."""
    case = make_case((ordinary, zipf, integers, related), 3, 24, experts=2)
    both = search_alpha(*case, AlphaSettings(mode, weights=weights))
    first = Case(case.base, case.tuned[:1], case.reference[:1])
    alone = search_alpha(*first, AlphaSettings(mode, weights=weights[:1]))
    np.testing.assert_allclose(both.alpha[:, :1], alone.alpha, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(both.alpha[:, 1], 0)
    np.testing.assert_allclose(both.loss, alone.loss, rtol=1e-9, atol=1e-9)


def test_the_lower_of_two_minima() -> None:
    """A row with minima at 0.777 (loss 89.70) and 1.468 (92.01); a range may hold one of them."""
    case = single(*TWO_MINIMA)
    (row,) = case.exact()
    np.testing.assert_allclose(local_minima(Goal(row)), [0.777, 1.468], atol=1e-3)
    found = search_alpha(*case, AlphaSettings("dynamic"))
    assert found.alpha.item() == pytest.approx(0.777, abs=1e-3)
    assert found.loss.item() == pytest.approx(89.70, abs=5e-3)
    found = search_alpha(*case, AlphaSettings("dynamic", 1.2, 2.0))
    assert found.alpha.item() == pytest.approx(1.468, abs=1e-3)
    assert found.loss.item() == pytest.approx(92.01, abs=5e-3)


def several_minima(wanted: int) -> list[Case]:
    """Rows of three to five tokens with more than one local minimum, from a random search."""
    rng = np.random.default_rng(5)
    kept: list[Case] = []
    while len(kept) < wanted:
        size = int(rng.integers(3, 6))
        p, t, q = (tuple(float(x) for x in row) for row in rng.integers(-14, 1, (3, size)))
        case = single(p, t, q)
        if len(local_minima(Goal(next(case.exact())), 401)) > 1:
            kept.append(case)
    return kept


def test_rows_with_several_minima() -> None:
    """The lowest of the minima is found, also where the next one is nearly as low."""
    found_second = 0
    for case in several_minima(60):
        goal = Goal(next(case.exact()))
        found = search_alpha(*case, AlphaSettings("dynamic"))
        best = goal.minimum()
        assert close(goal.loss(found.alpha[0]), best)
        found_second += found.alpha.item() > local_minima(goal, 401)[0] + 0.1
    assert found_second > 3


@settings(many, max_examples=100)
@given(cases(experts=(1, 3), max_rows=4))
def test_grid_is_the_papers_loop(case: Case) -> None:
    """The 21 points, running minimum and all; another choice only where losses are equal."""
    found = search_alpha(*case, AlphaSettings("grid", 0.7, 0.9))
    for i, row in enumerate(case.exact()):
        expert, step, losses = paper_loop(row.base, row.tuned, row.reference)
        best = losses[expert, step]
        equal = losses <= best + 1e-9 * max(1.0, best)
        allowed = [k / 10 * np.eye(len(losses))[e] for e, k in np.argwhere(equal)]
        assert any((found.alpha[i] == alpha).all() for alpha in allowed)
        assert found.loss[i] == pytest.approx(best, rel=1e-5, abs=1e-5)
        if equal.sum() == 1:
            assert found.alpha[i, expert] == step / 10


def test_grid_takes_the_first_of_equal_losses() -> None:
    """Without a delta all 21 points are equal: alpha 0, as in the paper's loop."""
    case = make_case((no_delta,), 1, 24)
    rows = Case(case.base, case.tuned, case.tuned)
    assert search_alpha(*rows, AlphaSettings("grid")).alpha.item() == 0.0


@many
@given(cases(experts=(1, 3)))
def test_dynamic_is_never_worse_than_grid(case: Case) -> None:
    """The exact search includes the paper's points."""
    dynamic, grid = (search_alpha(*case, AlphaSettings(mode)) for mode in ("dynamic", "grid"))
    for row, exact, coarse in zip(case.exact(), dynamic.alpha, grid.alpha, strict=True):
        assert close(Goal(row).loss(exact), Goal(row).loss(coarse))


@pytest.mark.parametrize("span", [(0.0, 2.0), (-1.0, 0.5), (1.25, 3.0)])
@pytest.mark.parametrize("mode", [*MODES, "joint"])
def test_ties_take_the_alpha_nearest_one(mode: str, span: tuple[float, float]) -> None:
    """Without a delta every alpha is as good, also where tuned and reference differ by 1e-6."""
    nearest = min(max(1.0, span[0]), span[1])
    for seed in range(5):
        case = make_case((no_delta,) * 3, seed, 24)
        found = search_alpha(*case, AlphaSettings(mode, *span))
        np.testing.assert_array_equal(found.alpha, nearest)
        np.testing.assert_allclose(found.loss, 0, atol=1e-12)
        nearly = case.tuned.astype(np.float64)
        nearly[..., 0] += 1e-6
        found = search_alpha(
            case.base.astype(np.float64), nearly, case.reference, AlphaSettings(mode, *span)
        )
        np.testing.assert_array_equal(found.alpha, nearest)


@pytest.mark.parametrize("span", [(0.0, 2.0), (-1.0, 0.5)])
@pytest.mark.parametrize("mode", MODES)
def test_a_base_that_nothing_moves(mode: str, span: tuple[float, float]) -> None:
    """Where the base is so sure that no alpha changes it, all losses are equal: nearest 1."""
    case = single((0.0, -500.0, -600.0), (1.0, 2.0, 3.0), (1.5, 1.0, 3.5))
    found = search_alpha(*case, AlphaSettings(mode, *span))
    assert found.alpha.item() == min(1.0, span[1])


@pytest.mark.parametrize("mode", ["dynamic", "one-sided", "grid", "joint"])
@pytest.mark.parametrize("n_vocab", [3, 24, 1000, 32_000])
def test_a_base_that_is_the_reference(mode: str, n_vocab: int) -> None:
    """P = Q gives alpha 1 and loss 0, whatever constants the logits carry."""
    case = make_case((base_is_reference,) * 4, 7, n_vocab)
    found = search_alpha(*case, AlphaSettings(mode))
    np.testing.assert_allclose(found.alpha, 1, atol=1e-3)
    np.testing.assert_allclose(found.loss, 0, atol=1e-6)


def test_a_base_that_is_the_reference_with_a_small_delta() -> None:
    """P = Q gives alpha 1 also where all losses in range are below the tolerance."""
    base = make_case((flat,) * 3, 2, 24).base.astype(np.float64)
    tuned = base + 0.01 * np.random.default_rng(3).normal(size=base.shape)
    for mode in MODES:
        found = search_alpha(base, [tuned], [base], AlphaSettings(mode))
        np.testing.assert_allclose(found.alpha, 1, atol=1e-3)


@pytest.mark.parametrize("mode", ["dynamic", "one-sided", "grid", "joint"])
@pytest.mark.parametrize("experts", [1, 3])
def test_a_row_does_not_see_the_others(mode: str, experts: int) -> None:
    """Rows searched together, one by one, or out of wider arrays are equal bit by bit."""
    kinds = (ordinary, zipf, integers, masked, disjoint, no_delta, related)
    for seed, n_vocab in enumerate((2, 7, 24, 1000) if experts == 1 else (7, 24)):
        case = make_case(kinds, seed, n_vocab, experts)
        together = search_alpha(*case, AlphaSettings(mode))
        wide = np.zeros((*case.base.shape[:1], n_vocab + 3), np.float32)
        wide[:, :n_vocab] = case.base
        sliced = search_alpha(wide[:, :n_vocab], case.tuned, case.reference, AlphaSettings(mode))
        np.testing.assert_array_equal(sliced.alpha, together.alpha)
        for i in range(len(kinds)):
            alone = search_alpha(*case.row(i), AlphaSettings(mode))
            np.testing.assert_array_equal(alone.alpha[0], together.alpha[i])
            assert alone.loss[0] == together.loss[i]


@many
@given(cases(FINITE, experts=(1, 2)), st.sampled_from((*MODES, "joint")))
def test_precision_and_constants_do_not_matter(case: Case, mode: str) -> None:
    """float64, log-probs instead of logits: the same loss; and inputs are not written."""
    before = [array.copy() for array in case]
    found = search_alpha(*case, AlphaSettings(mode))
    for array, copy in zip(case, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    wide: list[Array64] = [array.astype(np.float64) for array in case]
    normalised = [a - np.log(np.exp(a - a.max(-1, keepdims=True)).sum(-1, keepdims=True))
                  - a.max(-1, keepdims=True) for a in wide]  # fmt: skip
    for arrays in (wide, normalised):
        other = search_alpha(arrays[0], arrays[1], arrays[2], AlphaSettings(mode))
        np.testing.assert_allclose(other.loss, found.loss, rtol=1e-5, atol=1e-5)


@many
@given(cases((masked,), experts=(1, 2)), st.sampled_from((*MODES, "grid", "joint")))
def test_excluded_tokens_are_left_out(case: Case, mode: str) -> None:
    """What any model excludes is as if it were not in the vocabulary."""
    row = case.row(0)
    keep = np.isfinite(np.concatenate([row.base[None], row.tuned, row.reference])).all((0, 1))
    kept = Case(row.base[:, keep], row.tuned[..., keep], row.reference[..., keep])
    short = search_alpha(*kept, AlphaSettings(mode))
    found = search_alpha(*row, AlphaSettings(mode))
    np.testing.assert_allclose(found.loss, short.loss, rtol=1e-5, atol=1e-5)
    goal = Goal(next(row.exact()))
    assert goal.loss(found.alpha[0]) == pytest.approx(goal.loss(short.alpha[0]), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("mode", ["dynamic", "one-sided", "grid", "joint"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_no_number_is_an_error(mode: str, place: int) -> None:
    """NaN in one row of any model is a damaged model; it never becomes an alpha."""
    case = make_case((ordinary, related), 9, 24, experts=2)
    case[place][..., -1, 3] = math.nan
    with pytest.raises(BackendError, match="not numbers"):
        search_alpha(*case, AlphaSettings(mode))


def test_no_row_at_all() -> None:
    """Nothing in, nothing out."""
    case = make_case((ordinary,), 1, 24)
    found = search_alpha(
        case.base[:0], case.tuned[:, :0], case.reference[:, :0], AlphaSettings("dynamic")
    )
    assert found.alpha.shape == (0, 1)
    assert found.loss.shape == (0,)


def test_the_reference_itself() -> None:
    """Brute force against formulas that need no search: f = alpha m - A, and the two targets."""
    case = make_case((ordinary,), 3, 24)
    (row,) = case.exact()
    delta = row.tuned[0] - row.reference[0]
    weights = np.exp(row.base + 0.7 * delta)
    mean = (weights * delta).sum() / weights.sum()
    log_z = math.log(weights.sum())
    f, g = row.divergences(np.array([[0.7]]))
    assert f[0] == pytest.approx(0.7 * mean - log_z)
    assert g[0] == pytest.approx(log_z - 0.7 * (np.exp(row.base) * delta).sum())
    tuned_as_base = Row(row.reference[0], row.tuned, row.reference)
    f, g = tuned_as_base.divergences(np.array([[1.0]]))
    np.testing.assert_allclose([f[0], g[0]], np.array(row.targets)[:, 0])
