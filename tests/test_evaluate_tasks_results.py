"""Intervals of the harness's metrics, and where there is none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval")

from eftlocal.evaluate.parts import Part
from eftlocal.evaluate.systems import Models, System
from eftlocal.evaluate.tasks.results import FEWEST_DOCUMENTS, Aggregate, Measured, tables
from eftlocal.tables import Estimate, Table


def mean(values: list[Any]) -> float:
    """The harness's aggregate of this name."""
    return float(np.mean(values))


def perplexity(values: list[Any]) -> float:
    """One that is no mean."""
    return math.exp(-mean(values))


def measured(role: str, values: list[float], aggregate: Aggregate) -> Measured:
    """A system with these values of documents."""
    samples = [{"doc_id": i, "filter": "none", "m": value} for i, value in enumerate(values)]
    results = {
        "results": {"task": {"m,none": aggregate(values)}},
        "samples": {"task": samples},
        "group_subtasks": {},
        "n-samples": {"task": {"effective": len(values)}},
        "n-shot": {"task": 0},
    }
    return Measured(Part(role, System(role, Models())), results, {}, {})


def table(values: dict[str, list[float]], aggregate: Aggregate = mean) -> Table:
    """The table of these systems' values."""
    systems = [measured(role, own, aggregate) for role, own in values.items()]
    (found,), members = tables(systems, {"task": {"m": aggregate}}, 0)
    assert not members
    return found


def estimates(found: Table) -> tuple[Estimate, Estimate]:
    """Score and PGR of the first system."""
    score, pgr = found.rows[0][1:]
    assert isinstance(score, Estimate) and isinstance(pgr, Estimate)
    return score, pgr


def alternating(n_documents: int, every: int) -> list[float]:
    """One of every so many documents is right."""
    return [float(i % every == 0) for i in range(n_documents)]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_shares_without_spread_have_an_interval(value: float) -> None:
    """Of n documents none, or all, may be right by chance: Wilson's z^2 / (n + z^2) is left."""
    (row,) = table({"fused": [value] * 24}).rows
    score = row[1]
    assert isinstance(score, Estimate) and score.value == value
    width = 1.959963984540054**2 / (24 + 1.959963984540054**2)
    assert score.high - score.low == pytest.approx(width)


@pytest.mark.parametrize("aggregate", [mean, perplexity])
def test_pgr_of_few_documents_has_no_interval(aggregate: Aggregate) -> None:
    """The value is there, its interval only with enough documents."""
    for n_documents in (FEWEST_DOCUMENTS - 2, FEWEST_DOCUMENTS + 40):
        values = {
            "fused": alternating(n_documents, 3),
            "tuned": [0.0] * n_documents,
            "ceiling": alternating(n_documents, 2),
        }
        score, pgr = estimates(table(values, aggregate))
        assert score.value == aggregate(values["fused"])
        assert math.isnan(score.low) == (n_documents < FEWEST_DOCUMENTS and aggregate != mean)
        one, low, high = (aggregate(own) for own in values.values())
        assert pgr.value == pytest.approx((one - low) / (high - low))
        if n_documents < FEWEST_DOCUMENTS:
            assert math.isnan(pgr.low) and math.isnan(pgr.high)
        else:
            assert pgr.low < pgr.value < pgr.high


@pytest.mark.parametrize("aggregate", [mean, perplexity])
def test_draws_that_agree_are_no_interval(aggregate: Aggregate) -> None:
    """Where all documents say the same, drawing them again shows nothing."""
    values = {"fused": [0.3] * 30, "tuned": [0.1] * 30, "ceiling": [0.9] * 30}
    score, pgr = estimates(table(values, aggregate))
    one, low, high = (aggregate(own) for own in values.values())
    assert score.value == pytest.approx(one)
    assert pgr.value == pytest.approx((one - low) / (high - low))
    assert all(math.isnan(x) for x in (score.low, score.high, pgr.low, pgr.high))
