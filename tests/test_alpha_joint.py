"""The joint search over several experts: as low as brute force, and nearest the even split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.alpha import AlphaSettings, search_alpha

from .reference_alpha import Goal, Row, joint_minimum
from .rows import (
    FINITE,
    Case,
    base_is_reference,
    cases,
    disjoint,
    integers,
    make_case,
    many,
    no_delta,
    ordinary,
    peaked,
    related,
    zipf,
)
from .test_alpha import close

JOINT = AlphaSettings("joint")
ROWS = (ordinary, related, related, peaked, zipf, base_is_reference, integers)
SMALL = (3, 5, 12, 24)
NEAR = 1e-3


@settings(many, max_examples=20)
@given(
    cases(ROWS, experts=(2, 3), sizes=SMALL, max_rows=1),
    st.sampled_from([(0.0, 2.0), (0.0, 2.0), (-1.0, 1.0), (0.2, 0.5)]),
)
def test_reaches_the_minimum(case: Case, span: tuple[float, float]) -> None:
    """No point of the box has a lower loss."""
    found = search_alpha(*case, AlphaSettings("joint", *span))
    assert ((span[0] <= found.alpha) & (found.alpha <= span[1])).all()
    goal = Goal(next(case.exact()))
    brute, reached = joint_minimum(goal, *span), goal.loss(found.alpha[0])
    assert close(reached, brute.loss), (found.alpha, reached, brute)
    assert found.loss[0] == pytest.approx(reached, rel=1e-5, abs=1e-5)


# Rows where a search that stops at the first minimiser ends elsewhere: kind, seed, vocabulary.
CURVED = (
    (zipf, 4, 24),
    (ordinary, 10, 24),
    (ordinary, 40, 12),
    (ordinary, 89, 12),
    (related, 106, 24),
)


@pytest.mark.parametrize(
    "case",
    [
        *(
            make_case((kind,), seed, (5, 12, 24)[seed % 3], experts)
            for kind in (ordinary, related, zipf)
            for experts in (2, 3)
            for seed in range(5)
        ),
        *(make_case((kind,), seed, n_vocab, 3) for kind, seed, n_vocab in CURVED),
    ],
)
def test_is_the_minimiser_nearest_the_even_split(case: Case) -> None:
    """No equally good point is nearer to (1/E, ..., 1/E)."""
    found = search_alpha(*case, JOINT)
    goal = Goal(next(case.exact()))
    brute, reached = joint_minimum(goal), goal.loss(found.alpha[0])
    distance = float(np.linalg.norm(found.alpha[0] - 1 / len(case.tuned)))
    if brute.loss <= reached + 1e-9 * max(1.0, reached):
        assert distance <= brute.distance + NEAR, (found.alpha, brute)


@many
@given(cases(FINITE, experts=(2, 3), sizes=(2, 3, 8, 24, 100)))
def test_includes_every_simpler_choice(case: Case) -> None:
    """Never above one active expert (searched or on the grid), nor above the static 1/E."""
    joint = search_alpha(*case, JOINT)
    simpler = [search_alpha(*case, AlphaSettings(mode)).alpha for mode in ("dynamic", "grid")]
    simpler.append(np.full_like(joint.alpha, 1 / len(case.tuned)))
    for i, row in enumerate(case.exact()):
        goal = Goal(row)
        assert np.isfinite(joint.alpha[i]).all()
        for other in simpler:
            assert close(goal.loss(joint.alpha[i]), goal.loss(other[i]))


def test_one_expert_is_the_single_search() -> None:
    """With one expert there is nothing to be joint about."""
    case = make_case((ordinary, related, zipf, integers, no_delta, disjoint), 3, 24)
    joint, single = search_alpha(*case, JOINT), search_alpha(*case, AlphaSettings("dynamic"))
    np.testing.assert_allclose(joint.alpha, single.alpha, rtol=0, atol=1e-6)
    np.testing.assert_allclose(joint.loss, single.loss, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("experts", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_equal_experts_share_alike(experts: int, seed: int) -> None:
    """The same expert several times: equal alphas, though only their sum matters."""
    case = make_case((ordinary, related, zipf, peaked), seed, 24)
    same = [0] * experts
    found = search_alpha(case.base, case.tuned[same], case.reference[same], JOINT)
    np.testing.assert_allclose(found.alpha, found.alpha[:, :1] * np.ones(experts), atol=NEAR)


def test_equal_experts_beyond_the_box_of_one() -> None:
    """Three equal experts reach a total of 6, where one would end at 2."""
    case = make_case((related,), 2, 24)
    reference = case.reference
    tuned = reference + np.float32(0.2) * (case.tuned - reference)
    base = case.base / np.float32(4)
    one = search_alpha(base, tuned, reference, JOINT)
    three = search_alpha(base, tuned[[0] * 3], reference[[0] * 3], JOINT)
    row = Row.of(base[0], tuned[[0] * 3, 0], reference[[0] * 3, 0])
    assert close(Goal(row).loss(three.alpha[0]), 3 * one.loss[0])


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_experts_does_not_matter(seed: int) -> None:
    """Permuted experts get permuted alphas, where one minimiser is nearest."""
    case = make_case((ordinary, related, peaked), seed, 24, experts=3)
    order = np.random.default_rng(seed).permutation(3)
    found = search_alpha(*case, JOINT)
    other = search_alpha(case.base, case.tuned[order], case.reference[order], JOINT)
    np.testing.assert_allclose(other.loss, found.loss, rtol=1e-6, atol=1e-6)
    near, far = (np.linalg.norm(a.alpha - 1 / 3, axis=1) for a in (found, other))
    np.testing.assert_allclose(far, near, rtol=0, atol=NEAR)


def test_is_deterministic() -> None:
    """Twice the same search, twice the same bits."""
    case = make_case((ordinary, related, zipf, integers), 8, 24, experts=3)
    first, second = search_alpha(*case, JOINT), search_alpha(*case, JOINT)
    np.testing.assert_array_equal(first.alpha, second.alpha)
    np.testing.assert_array_equal(first.loss, second.loss)


@pytest.mark.parametrize("experts", [2, 3])
def test_without_deltas_it_is_the_even_split(experts: int) -> None:
    """T = Q for all experts: every vector is as good, (1/E, ..., 1/E) is nearest."""
    case = make_case((no_delta, no_delta), 4, 24, experts)
    found = search_alpha(*case, JOINT)
    np.testing.assert_array_equal(found.alpha, 1 / experts)
    found = search_alpha(*case, AlphaSettings("joint", 0.75, 1.5))
    np.testing.assert_array_equal(found.alpha, 0.75)


def test_an_expert_without_a_delta_stays_at_the_even_split() -> None:
    """Its alpha changes nothing, so the nearest minimiser keeps it at 1/E."""
    case = make_case((ordinary, related, zipf), 6, 24, experts=2)
    tuned = case.tuned.copy()
    tuned[1] = case.reference[1]
    found = search_alpha(case.base, tuned, case.reference, JOINT)
    np.testing.assert_allclose(found.alpha[:, 1], 0.5, atol=NEAR)


def test_four_experts() -> None:
    """More than three experts: never above the simpler choices."""
    case = make_case((ordinary, related, zipf), 1, 24, experts=4)
    joint, dynamic = search_alpha(*case, JOINT), search_alpha(*case, AlphaSettings("dynamic"))
    assert joint.alpha.shape == (3, 4)
    for i, row in enumerate(case.exact()):
        goal = Goal(row)
        reached = goal.loss(joint.alpha[i])
        assert close(reached, goal.loss(dynamic.alpha[i]))
        assert close(reached, goal.loss(np.full(4, 0.25)))


def test_a_wide_row() -> None:
    """32,000 tokens and two experts: as low as brute force over the box."""
    case = make_case((zipf,), 2, 4_099, experts=2)
    found = search_alpha(*case, JOINT)
    (row,) = case.exact()
    goal = Goal(row)
    axis = np.linspace(0, 2, 21)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    assert close(goal.loss(found.alpha[0]), float(goal.losses(grid).min()))
