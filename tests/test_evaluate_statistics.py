"""Intervals against SciPy's, and what clusters and pairs mean for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from eftlocal.evaluate.statistics import Bootstrap, Judged, share
from eftlocal.evaluate.verdicts import decided
from eftlocal.tables import Estimate

N = 300


def coins(seed: int, *chances: float) -> list[Judged]:
    """Judgements (N,) with these shares of ones, dependent on each other question by question."""
    hardness = np.random.default_rng(seed).random(N)
    noise = np.random.default_rng(seed + 1).normal(0, 0.1, (len(chances), N))
    return [(hardness + noise[i] < c).astype(float) for i, c in enumerate(chances)]


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_shares_have_wilsons_interval(counts: tuple[int, int]) -> None:
    """SciPy's is the same, at the ends too."""
    k, n = counts
    found = share(np.array([1.0] * k + [0.0] * (n - k)))
    expected = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    assert found.value == pytest.approx(k / n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.low <= found.value <= found.high


def test_nothing_has_no_share() -> None:
    """Without questions there is no number."""
    assert math.isnan(share(np.array([])).value)
    assert share(np.array([])).text() == "-"


def test_intervals_are_those_of_scipy() -> None:
    """Mean, paired difference and PGR, where every question is a cluster of its own."""
    fused, floor, ceiling = coins(3, 0.8, 0.3, 0.9)
    draws = Bootstrap.over([str(i) for i in range(N)], resamples=8000)
    found = {
        "mean": draws.mean(fused),
        "difference": draws.difference(fused, floor),
        "recovered": draws.recovered(fused, floor, ceiling),
    }
    statistics: dict[str, Callable[..., Any]] = {
        "mean": lambda a, b, c, axis=-1: a.mean(axis),
        "difference": lambda a, b, c, axis=-1: a.mean(axis) - b.mean(axis),
        "recovered": lambda a, b, c, axis=-1: (
            (a.mean(axis) - b.mean(axis)) / (c.mean(axis) - b.mean(axis))
        ),
    }
    for name, statistic in statistics.items():
        expected = scipy.stats.bootstrap(
            (fused, floor, ceiling),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=8000,
            method="percentile",
            rng=np.random.default_rng(5),
        ).confidence_interval
        width = expected.high - expected.low
        assert found[name].value == pytest.approx(statistic(fused, floor, ceiling))
        assert found[name].low == pytest.approx(expected.low, abs=0.08 * width), name
        assert found[name].high == pytest.approx(expected.high, abs=0.08 * width), name


def test_pairs_are_narrower() -> None:
    """Two systems that fail at the same questions differ for sure."""
    one, other = coins(4, 0.6, 0.5)
    draws = Bootstrap.over([str(i) for i in range(N)])
    paired = draws.difference(one, other)
    shuffled = draws.difference(one, np.random.default_rng(0).permutation(other))
    assert paired.high - paired.low < 0.7 * (shuffled.high - shuffled.low)


def test_clusters_are_wider() -> None:
    """Four equal questions on one thing say no more than one."""
    (judged,) = coins(5, 0.5)
    names = [str(i) for i in range(N)]
    alone = Bootstrap.over(names).mean(judged)
    repeated = Bootstrap.over(names * 4).mean(np.tile(judged, 4))
    taken_as_new = Bootstrap.over([str(i) for i in range(4 * N)]).mean(np.tile(judged, 4))
    width = alone.high - alone.low
    assert repeated.high - repeated.low == pytest.approx(width, rel=0.1)
    assert taken_as_new.high - taken_as_new.low == pytest.approx(width / 2, rel=0.1)


def test_a_seed_gives_one_interval() -> None:
    """The same numbers every time, others with another seed."""
    (judged,) = coins(6, 0.4)
    names = [str(i % 50) for i in range(N)]
    assert Bootstrap.over(names).mean(judged) == Bootstrap.over(names).mean(judged)
    assert Bootstrap.over(names, seed=1).mean(judged) != Bootstrap.over(names).mean(judged)


def test_no_gap_has_no_pgr() -> None:
    """Floor and ceiling that are equal leave nothing to recover."""
    (judged,) = coins(7, 0.4)
    found = Bootstrap.over([str(i) for i in range(N)]).recovered(judged, judged, judged)
    assert math.isnan(found.value) and found.to_json()["value"] is None


def test_shares_are_wider_where_clusters_agree() -> None:
    """Four equal questions on one thing count as one; independent ones as four."""
    (judged,) = coins(8, 0.3)
    things = np.repeat(np.arange(N), 4)
    alone, equal = share(judged), share(np.repeat(judged, 4), things)
    assert (equal.low, equal.high) == pytest.approx((alone.low, alone.high), abs=0.002)
    independent = np.random.default_rng(1).permutation(np.repeat(judged, 4))
    found, expected = share(independent, things), share(independent)
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.06)
    assert found.high - found.low >= expected.high - expected.low
    draws = Bootstrap.over(list(map(str, things)))
    drawn = draws.mean(np.repeat(judged, 4))
    assert draws.share(np.repeat(judged, 4)) == equal
    assert (equal.low, equal.high) == pytest.approx((drawn.low, drawn.high), abs=0.01)


def test_what_was_never_seen_to_vary_has_no_interval() -> None:
    """Draws of equal questions, or of few clusters, say nothing about others."""
    same = Bootstrap.over([str(i) for i in range(40)]).mean(np.ones(40))
    assert same.value == 1 and math.isnan(same.low) and same.text(3) == "1.000"
    few = Bootstrap.over(["a", "b", "c"] * 10).mean(np.arange(30.0))
    assert few.value == 14.5 and math.isnan(few.high)
    assert decided(same, 0.5) is None


def test_one_rule_decides_all_claims() -> None:
    """The whole interval above, the whole of it below, or neither."""
    assert decided(Estimate(0.1, 0.05, 0.2)) is True
    assert decided(Estimate(-0.1, -0.2, -0.05)) is False
    assert decided(Estimate(0.1, -0.05, 0.2)) is None
    assert decided(Estimate(0.85, 0.78, 0.92), 0.8) is None
    assert decided(Estimate(math.nan, math.nan, math.nan)) is None
