"""Plans for drafting: what they cost, what they promise, and that they are the best of all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eftlocal.drafting import (
    Acceptance,
    Costs,
    Plan,
    expected_tokens,
    make_plan,
    most_rows,
    sizes_to_measure,
)

rates = st.floats(0, 1)
slopes = st.floats(0, 2)


def linear_costs(slope: float, steps: tuple[float, float, float] = (1.0, 0.1, 0.1)) -> Costs:
    """Base, tuned (the drafter) and reference whose batches of M take step * (1 + slope * M)."""
    costs = Costs.of(3)
    for context, step in enumerate(steps):
        for size in sizes_to_measure(16):
            costs.add(context, size, step * (1 + slope * (size - 1)))
    return costs


@given(rates, st.integers(1, 16))
def test_expected_tokens_are_a_sum_over_rows(rate: float, n: int) -> None:
    """Row j is reached where all drafts before it are accepted: with probability a^j."""
    assert expected_tokens(rate, n) == pytest.approx(sum(rate**j for j in range(n)))


@given(rates, slopes, st.integers(1, 16), st.integers(1, 4))
def test_no_other_n_is_faster(rate: float, slope: float, most: int, n_sequences: int) -> None:
    """The plan has at least the rate of every n, but for the margin that drafting must earn."""
    costs = linear_costs(slope)
    plan = make_plan(costs.of_rounds(1, most, n_sequences), rate)

    def tokens_per_second(n: int) -> float:
        return expected_tokens(rate, n) / costs.of_rounds(1, n, n_sequences)[-1]

    assert 1 <= plan.n <= most
    best = max(tokens_per_second(n) for n in range(1, most + 1))
    margin = 1.0 if plan.n > 1 else 1.03
    assert margin * tokens_per_second(plan.n) >= best * (1 - 1e-12)
    assert tokens_per_second(plan.n) >= tokens_per_second(1) * (1 - 1e-12)


def test_batches_that_cost_like_steps_are_not_drafted_for() -> None:
    """Where a batch of M takes M single steps, drafts can only lose, however good they are."""
    assert make_plan(linear_costs(1.0).of_rounds(1, 16), 1.0).n == 1
    assert make_plan(linear_costs(0.0).of_rounds(1, 16), 0.9).n > 4


@pytest.mark.parametrize(("slope", "rows"), [(1.01, 0), (0.9, 16)])
def test_where_not_even_sure_drafts_pay_none_are_looked_at(slope: float, rows: int) -> None:
    """A plan has prices only where drafts that are all accepted would gain something."""
    plan = make_plan(linear_costs(slope).of_rounds(1, 16), 0.3)
    assert (plan.n, len(plan.seconds)) == (1, rows)
    assert plan.goes_on(1, 1.0) == (rows > 0) and not plan.goes_on(1, 0.9)


def test_large_vocabularies_have_shorter_drafts() -> None:
    """16 rows up to 78,000 tokens, never fewer than 8."""
    assert [most_rows(v) for v in (24, 32_000, 78_000, 100_000, 151_936, 500_000)] == [
        16, 16, 16, 12, 8, 8
    ]  # fmt: skip


def test_unknown_sizes_lie_on_lines() -> None:
    """Between two known sizes, and beyond the largest; one known size is a start."""
    costs = Costs.of(1)
    costs.add(0, 1, 1.0)
    assert 1 < costs.seconds(0, 4) < 4
    costs.add(0, 4, 2.5)
    costs.add(0, 8, 4.5)
    assert costs.seconds(0, 6) == pytest.approx(3.5)
    assert costs.seconds(0, 16) == pytest.approx(8.5)
    assert costs.seconds(0, 1) == 1.0


def test_one_slow_decode_does_not_upset_a_cost() -> None:
    """A hiccup counts little, a lasting change is followed."""
    costs = Costs.of(1)
    costs.add(0, 1, 1.0)
    costs.add(0, 1, 500.0)
    assert costs.seconds(0, 1) < 1.5
    for _ in range(40):
        costs.add(0, 1, 2.0)
    assert costs.seconds(0, 1) == pytest.approx(2.0, rel=1e-3)


def test_acceptance_is_learnt_by_sureness() -> None:
    """Each range of top probabilities has a rate of its own, and the mean counts all drafts."""
    rng = np.random.default_rng(0)
    acceptance = Acceptance()
    for _ in range(4000):
        sureness = rng.uniform()
        acceptance.add(sureness, bool(rng.uniform() < sureness / 2))
    assert acceptance.rate(0.1) == pytest.approx(0.07, abs=0.03)
    assert acceptance.rate(0.9) == pytest.approx(0.45, abs=0.06)
    assert acceptance.mean == pytest.approx(0.25, abs=0.03)


def test_a_plan_gives_up_where_the_drafter_is_unsure() -> None:
    """Where rows cost the same, going on must be likelier to pay than a row of the best round."""
    costs = linear_costs(0.1)
    plan = make_plan(costs.of_rounds(1, 16), 0.9)
    row = costs.of_rounds(1, 16)[2 - 1] - costs.of_rounds(1, 16)[1 - 1]
    least = row * expected_tokens(0.9, plan.n) / costs.of_rounds(1, 16)[plan.n - 1]
    assert 0 < least < 1 < plan.n < 16
    for depth in range(1, 16):
        assert plan.goes_on(depth, 1.01 * least) and not plan.goes_on(depth, 0.99 * least)
    assert not plan.goes_on(16, 1.0)


@given(rates, st.lists(st.floats(0.01, 3), min_size=15, max_size=15), st.integers(1, 15), rates)
def test_drafts_go_on_where_any_length_pays(
    rate: float, more: list[float], depth: int, chance: float
) -> None:
    """Whatever rounds cost: exactly where some longer draft gains more time than it takes."""
    seconds = tuple(1.0 + sum(more[:i]) for i in range(16))
    token = seconds[3] / sum(rate**j for j in range(4))
    plan = Plan(4, token, rate, seconds)
    gains = [
        sum(chance * rate**j for j in range(n - depth)) * token
        - (seconds[n - 1] - seconds[depth - 1])
        for n in range(depth + 1, 17)
    ]
    assume(abs(max(gains)) > 1e-9)
    assert plan.goes_on(depth, chance) == (max(gains) > 0)


def test_blocks_are_padded_where_more_tokens_are_quicker() -> None:
    """Up to three more, to the quickest size, and only for a real gain."""
    costs = Costs([{1: 1.0, 2: 1.8, 3: 2.1, 4: 1.1, 5: 1.6, 6: 1.2, 7: 1.19, 8: 0.5}])
    assert [costs.padding(0, n, 16) for n in range(1, 9)] == [0, 2, 1, 0, 3, 2, 1, 0]
    assert costs.padding(0, 2, 1) == 0
    assert costs.padding(0, 3, 0) == 0
    assert costs.padding(0, 4, 2) == 0


def test_a_round_is_planned_with_padding() -> None:
    """Three rows cost what the padded block of four does, in several sequences, too."""
    quick_four = {1: 1.0, 2: 3.0, 3: 3.0, 4: 1.0, 6: 4.0, 7: 4.0, 8: 2.0}
    costs = Costs([dict(quick_four), dict.fromkeys(range(1, 9), 0.1)])
    assert costs.of_rounds(1, 16)[3 - 1] == pytest.approx(3 * 0.1 + 1.0)
    assert costs.of_rounds(1, 3, n_sequences=2)[-1] == pytest.approx(1.1 * (3 * 0.1 + 2.0))
    assert make_plan(costs.of_rounds(1, 4), 0.9).n == 4
