"""The studies of scale, frontier and alpha: numbers recounted, claims that follow from them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eftlocal
from eftlocal.evaluate.frontier import _compare, _Judged, area
from eftlocal.evaluate.judging import Reply, factual, mannered
from eftlocal.evaluate.measures import above
from eftlocal.evaluate.questions import Question, read_questions
from eftlocal.evaluate.report import Section
from eftlocal.evaluate.run import make_study, run
from eftlocal.evaluate.scale import CEILING, DYNAMIC, FLOOR, UP_SCALED
from eftlocal.evaluate.statistics import Bootstrap
from eftlocal.evaluate.store import Store
from eftlocal.evaluate.study import Setting
from eftlocal.evaluate.systems import FAMILY
from eftlocal.tables import Estimate, Table

EVERY = 25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the results of this file's runs are kept."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def sections(folder: Path) -> dict[str, Section]:
    """The three sections on a part of the questions."""
    setting = Setting(Store(folder), every=EVERY, resamples=400)
    studies = [make_study(name) for name in ("scale", "frontier", "alpha")]
    report = run(studies, setting, lambda done, total, title: None)
    return {section.name: section for section in report.sections}


def rows(table: Table) -> dict[str, dict[str, object]]:
    """First cell -> key -> cell."""
    keys = [column.key for column in table.columns]
    return {str(row[0]): dict(zip(keys, row, strict=True)) for row in table.rows}


def test_scale_says_what_counting_gives(sections: dict[str, Section]) -> None:
    """Shares and PGR of three systems, asked again through the Python API."""
    questions = read_questions(FAMILY / "questions.jsonl", Question)[::EVERY]
    found = rows(sections["scale"].tables[0])
    facts: dict[str, float] = {}
    for system in (FLOOR, DYNAMIC, CEILING):
        with eftlocal.load(**system.models.files, threads=1) as model:
            said = [
                model.chat([{"role": "user", "content": q.question}], **system.options)
                for q in questions
            ]
        pairs = [
            (Reply(completion.text, completion.finish_reason == "stop"), question)
            for completion, question in zip(said, questions, strict=True)
        ]
        right = [factual(reply, question) for reply, question in pairs]
        polite = [mannered(reply) for reply, _ in pairs]
        both = np.logical_and(right, polite)
        row = found[system.title]
        for measure, judged in (("factuality", right), ("manners", polite), ("both", both)):
            cell = row[measure]
            assert isinstance(cell, Estimate)
            assert cell.value == pytest.approx(np.mean(judged))
        facts[system.title] = float(np.mean(right))
    gap = facts[CEILING.title] - facts[FLOOR.title]
    gained = found[DYNAMIC.title]["pgr_factuality"]
    assert isinstance(gained, Estimate)
    assert gained.value == pytest.approx((facts[DYNAMIC.title] - facts[FLOOR.title]) / gap)
    assert gained.low < gained.value < gained.high


def test_the_claims_of_scale(sections: dict[str, Section]) -> None:
    """Up-scaling brings facts; what scaled tuning does not bring is said, with the reason."""
    verdicts = {claim.text: claim for claim in sections["scale"].claims}
    (knows,) = (c for text, c in verdicts.items() if text.startswith("Up-scaling helps fact"))
    (behaves,) = (c for text, c in verdicts.items() if "down-scaling" in text)
    assert knows.holds is True
    assert behaves.holds is not True
    assert "nothing to gain" in behaves.reason


def test_the_frontiers(sections: dict[str, Section]) -> None:
    """Lambda leads from refusals to answers on both, and the larger model answers more."""
    table = sections["frontier"].tables[0]
    keys = [column.key for column in table.columns]
    lines: dict[object, list[dict[str, object]]] = {}
    for row in table.rows:
        lines.setdefault(row[0], []).append(dict(zip(keys, row, strict=True)))

    def values(base: str, key: str) -> list[float]:
        cells = [row[key] for row in lines[base]]
        return [cell.value for cell in cells if isinstance(cell, Estimate)]

    for base in lines:
        refused, answered = values(str(base), "refused"), values(str(base), "answered")
        assert refused[0] > 0.7 and refused[-1] < 0.3
        assert answered[-1] > answered[0]
    assert np.mean(values("up-scaled", "right")) > np.mean(values("small", "right")) + 0.2
    assert sections["frontier"].claims[0].found.startswith("its area is larger by 0.")


SHARES = st.floats(0, 1).map(lambda x: round(x * 200) / 200)
POINTS = st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=6)


@given(POINTS)
def test_the_area_under_a_frontier(points: list[tuple[float, float]]) -> None:
    """As a sum of steps; a further point never makes it smaller."""
    refused = np.array([[r] for r, _ in points])
    gained = np.array([[g] for _, g in points])
    found = area(refused, gained)[0]
    edges = sorted({0.0, *(r for r, _ in points)})
    steps = [
        (right - left) * max((g for r, g in points if r >= right), default=0.0)
        for left, right in itertools.pairwise(edges)
    ]
    assert found == pytest.approx(sum(steps), abs=0.006)
    more = area(np.append(refused, [[0.5]], 0), np.append(gained, [[0.5]], 0))[0]
    assert more >= found - 1e-12


def test_alpha_compares_with_the_best_in_hindsight(sections: dict[str, Section]) -> None:
    """The best fixed alpha is that of the table, and the claim's number is the difference."""
    section = sections["alpha"]
    found = rows(section.tables[0])
    fixed = {}
    for name, row in found.items():
        cell = row["both"]
        assert isinstance(cell, Estimate)
        if name.startswith("alpha "):
            fixed[float(name.removeprefix("alpha "))] = cell.value
    best = max(fixed, key=lambda alpha: (fixed[alpha], -alpha))
    dynamic = found["dynamic"]["both"]
    assert isinstance(dynamic, Estimate)
    claim = section.claims[0]
    assert f"dynamic minus alpha {best:g}: {dynamic.value - fixed[best]:.3f}" in claim.found
    assert claim.holds is None


def test_alpha_0_is_the_base_and_held_alphas_differ(sections: dict[str, Section]) -> None:
    """Alpha 0 has no manners; an alpha that is searched once goes another way than every token."""
    found = rows(sections["alpha"].tables[0])
    base = found["alpha 0"]["manners"]
    assert isinstance(base, Estimate) and base.value < 0.2
    (figure,) = (
        f for f in sections["alpha"].figures if f.title == "Alpha along the reply, one expert"
    )
    assert {line.name for line in figure.lines} == {"dynamic", "grid", "one-sided"}
    for line in figure.lines:
        for point in line.points:
            assert isinstance(point.y, Estimate) and 0 <= point.y.value <= 2


def test_a_second_run_reads_the_same(folder: Path, sections: dict[str, Section]) -> None:
    """Nothing is asked again, and the section is the same to the last character."""
    setting = Setting(Store(folder), every=EVERY, resamples=400)
    asked = []
    report = run(
        [make_study("scale")], setting, lambda done, total, title: asked.append(total - done)
    )
    assert asked and not any(asked)
    again, first = report.sections[0].to_json(), sections["scale"].to_json()
    assert json.dumps(again) == json.dumps(first)


def test_a_claim_says_that_the_number_alone_is_above() -> None:
    """A number above the bar whose interval holds the bar decides nothing, and that is said."""
    claim = above("x", "PGR", Estimate(0.85, 0.78, 0.92), 0.8)
    assert claim.holds is None
    assert claim.found == "PGR 0.850 [0.780, 0.920] (above 0.8, but not the whole interval)"
    assert above("x", "PGR", Estimate(0.85, 0.82, 0.92), 0.8).found == "PGR 0.850 [0.820, 0.920]"


def points(pairs: list[tuple[float, float]], n_dangerous: int = 200) -> dict[str, list[Any]]:
    """Judgements of a frontier: per point a share refused, and a share answered of as many."""
    found = []
    for refused, gained in pairs:
        declined = np.zeros(2 * n_dangerous)
        declined[: round(refused * n_dangerous)] = 1
        declined[n_dangerous + round(gained * n_dangerous) :] = 1
        found.append(_Judged(declined, 1 - declined, declined))
    return {"points": found}


def compared(up: list[tuple[float, float]], small: list[tuple[float, float]]) -> bool | None:
    """Whether one frontier dominates another."""
    lambdas = [float(i) for i in range(len(up))]
    found = {}
    for base, pairs in (("up-scaled", up), ("small", small)):
        for value, judged in zip(lambdas, points(pairs)["points"], strict=True):
            found[base, value] = judged
    dangerous = np.arange(400) < 200
    draws = Bootstrap.over([str(i) for i in range(400)], resamples=500)
    return _compare(found, dangerous, draws, "answered", lambdas).dominates


def test_domination() -> None:
    """Clearly above, clearly below or crossing, and alike."""
    low = [(0.9, 0.3), (0.5, 0.6), (0.1, 0.7)]
    assert compared([(0.99, 0.6), (0.7, 0.8), (0.2, 0.95)], low) is True
    assert compared(low, [(0.99, 0.6), (0.7, 0.8), (0.2, 0.95)]) is False
    assert compared([(0.6, 0.9), (0.3, 0.95), (0.1, 0.99)], low) is False
    assert compared(low, low) is None


def test_all_systems_differ_in_what_they_are() -> None:
    """No two rows of the main table are the same work by mistake."""
    study = make_study("scale")
    works = study.work(Setting(Store(Path("unused"))))
    contents = [json.dumps(work.content, sort_keys=True) for work in works]
    assert len(set(contents)) == len(contents) == 12
    assert UP_SCALED.content != DYNAMIC.content
