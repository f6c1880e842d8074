"""When a claim holds: verdicts by intervals, and those of drafting."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from eftlocal.evaluate.speculation.findings import Drawn, Predicted
from eftlocal.evaluate.speculation.tables import claims
from eftlocal.evaluate.verdicts import all_hold, at_least, below, within
from eftlocal.tables import Estimate

NUMBER = Estimate(0.5, 0.4, 0.6)
UNKNOWN = Estimate(0.5, math.nan, math.nan)


def test_the_whole_interval_decides() -> None:
    """On one side of the bar: yes or no; around it, or without an interval: nothing."""
    assert [below(NUMBER, bar) for bar in (0.7, 0.5, 0.3)] == [True, None, False]
    assert [at_least(NUMBER, bar) for bar in (0.4, 0.5, 0.7)] == [True, None, False]
    bars = ((0.3, 0.7), (0.45, 0.9), (0.1, 0.5), (0.7, 0.9), (0.1, 0.3))
    assert [within(NUMBER, *pair) for pair in bars] == [True, None, None, False, False]
    assert [below(UNKNOWN, 9), at_least(UNKNOWN, 0), within(UNKNOWN, 0, 9)] == [None] * 3


def test_one_is_enough_to_say_no() -> None:
    """All must hold; nothing at all says nothing."""
    assert all_hold([True, True]) is True
    assert all_hold([True, None]) is None
    assert all_hold([None, False, True]) is False
    assert all_hold([]) is None


@pytest.mark.parametrize(
    ("tests", "holds", "found"),
    [
        ([(0.5, 1e-4), (0.3, 1e-4)], True, "2 of 2 tests are informative"),
        ([(0.5, 1e-4), (0.3, 0.5)], True, "1 of 2 tests"),
        ([(0.5, 1e-4), (0.3, 0.5), (0.3, 0.02)], None, "1 of 3 tests"),
        ([(0.5, 0.3), (0.6, 0.2)], None, "0 of 2 tests"),
        ([(0.5, 1e-4), (0.006, 1e-4)], True, "0.006 (0.012 after Bonferroni)"),
        ([(0.5, 1e-4), (0.004, 1e-4)], False, "0.004 (0.008 after Bonferroni)"),
        # As if the drafter's own draws were kept.
        ([(1e-4, 0.5), (1e-4, 0.4)], False, "0 of 2 tests"),
    ],
)
def test_draws_that_cannot_tell_say_nothing(
    tests: list[tuple[float, float]], holds: bool | None, found: str
) -> None:
    """Only tests that tell the drafter's distribution apart speak for the fused one."""
    drawn = [Drawn("a", 1.0, "coupled", 800, 9, p, control) for p, control in tests]
    claim = claims([], [], drawn)[2]
    assert claim.holds is holds
    assert found in claim.found
    assert claims([], [], [])[2].holds is None


def predicted(rule: str, found: Estimate) -> Predicted:
    """Nine drafts, accepted that much more often than either formula says."""
    return Predicted(1.0, rule, 9, NUMBER, NUMBER, NUMBER, found, found, 0.5)


@pytest.mark.parametrize(
    ("found", "near", "least"),
    [
        (Estimate(0.01, -0.02, 0.04), True, None),
        (Estimate(0.02, 0.0, 0.04), True, True),
        (Estimate(0.01, -0.2, 0.2), None, None),
        (Estimate(0.2, 0.1, 0.3), False, True),
        (Estimate(-0.2, -0.3, -0.1), False, False),
        (Estimate(0.0, math.nan, math.nan), None, None),
    ],
)
def test_acceptance_is_decided_by_intervals(
    found: Estimate, near: bool | None, least: bool | None
) -> None:
    """Few data, or a large p-value, are no reason to say that something holds."""
    rejection, coupled = (predicted(rule, found) for rule in ("rejection", "coupled"))
    assert [claim.holds for claim in claims([], [rejection, coupled], [])[3:]] == [near, least]
    far = replace(coupled, above_least=Estimate(-0.5, -0.6, -0.4))
    assert claims([], [coupled, far], [])[4].holds is False
