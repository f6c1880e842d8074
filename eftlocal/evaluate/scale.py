"""The EFT paper's main table: what the scale of pre-training and that of tuning give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..tables import Cell, Column, Estimate, Table
from .measures import INTERVALS, JUDGES, asked, bootstrap, judge, thinned
from .questions import Question
from .report import Claim, Figure, Line, Point, Section
from .statistics import Bootstrap, Judged, share
from .study import Setting
from .systems import System, family, greedy
from .work import Work

UP = family("large", "small-chat")
DOWN = family("small", "large-chat", "large")
FLOOR = System("small-chat (floor)", family("small-chat", "small-chat", "small-chat"), greedy())
BASE = System("large, base alone", UP, greedy(alpha=0.0))
CEILING = System("large-chat (ceiling)", family("large-chat", "large-chat", "large-chat"), greedy())
UP_SCALED = System("up-scaled, alpha 1", UP, greedy(alpha=1.0))
DYNAMIC = System("up-scaled, dynamic alpha", UP, greedy(alpha="dynamic"))
DOWN_SCALED = System("down-scaled, alpha 1", DOWN, greedy(alpha=1.0))
FUSED = (
    UP_SCALED,
    DYNAMIC,
    System("up-scaled, alpha from the grid", UP, greedy(alpha="grid")),
    System("up-scaled, one-sided", UP, greedy(alpha="one-sided")),
    System("up-scaled, joint", UP, greedy(alpha="joint")),
    System("up-scaled, alpha 1, top-p filter 0.95", UP, greedy(alpha=1.0, upscale_top_p=0.95)),
    System(
        "up-scaled, dynamic, top-p filter 0.95", UP, greedy(alpha="dynamic", upscale_top_p=0.95)
    ),
    DOWN_SCALED,
    System("down-scaled, dynamic alpha", DOWN, greedy(alpha="dynamic")),
)
SYSTEMS = (FLOOR, BASE, *FUSED, CEILING)

_FEWEST = 15
"""Subjects with fewer questions have no row of their own."""
_SATURATED = 0.95

INTRO = (
    "Four systems are one factorial table: the knowledge of a small or a large pre-training, the "
    "tuning of a small or a large model. The small tuned model is the floor, the large tuned one "
    "the ceiling; fusing makes the two others without training anything.",
    "The questions are about entities that no tuning has seen. " + JUDGES,
    "PGR is the share of the gap between floor and ceiling that fusing closes. For manners the "
    "floor is the large base alone, because the small tuned model is about as polite as the large "
    "one: it is the share of what tuning the large model itself gives. " + INTERVALS,
)

Scores = Mapping[str, Mapping[str, Judged]]
"""Measure -> title of a system -> (Q,) what was judged."""


class Scale:
    """The study; see `study.Study`."""

    def work(self, setting: Setting) -> Sequence[Work]:
        """All systems, asked all questions."""
        questions = thinned("questions.jsonl", Question, setting)
        return [asked(system, questions) for system in SYSTEMS]

    def section(self, setting: Setting) -> Section:
        """The table, its subjects, and the paper's claims."""
        questions = thinned("questions.jsonl", Question, setting)
        scores = {
            measure: {s.title: judge(s, questions, setting.store, measure) for s in SYSTEMS}
            for measure in ("factuality", "manners", "both")
        }
        draws = bootstrap(questions, setting)
        return Section(
            name="scale",
            title="Scaling pre-training against scaling tuning",
            intro=INTRO,
            command="eftlocal eval scale",
            settings={
                "questions": str(len(questions)),
                "decoding": "greedy, at most 64 tokens, no drafts",
            },
            claims=_claims(scores, draws),
            tables=(
                _table(scores, draws),
                _factorial(scores),
                _subjects(scores, questions, setting),
            ),
            figures=(_figure(scores, draws),),
        )


def _recovered(scores: Scores, draws: Bootstrap, measure: str, title: str) -> Estimate:
    """PGR of a system; the floor depends on the measure."""
    own = scores[measure]
    floor = FLOOR if measure == "factuality" else BASE
    return draws.recovered(own[title], own[floor.title], own[CEILING.title])


def _table(scores: Scores, draws: Bootstrap) -> Table:
    rows: list[tuple[Cell, ...]] = []
    fused = {system.title for system in FUSED}
    for system in SYSTEMS:
        shares = [share(scores[measure][system.title]) for measure in scores]
        gained: list[Cell] = [None, None]
        if system.title in fused:
            gained = [
                _recovered(scores, draws, measure, system.title)
                for measure in ("factuality", "manners")
            ]
        rows.append((system.title, *shares, *gained))
    columns = (
        Column("system", "system"),
        Column("factuality", "factuality", 3),
        Column("manners", "manners", 3),
        Column("both", "both", 3),
        Column("pgr_factuality", "PGR, factuality", 2),
        Column("pgr_manners", "PGR, manners", 2),
    )
    return Table("All systems", columns, tuple(rows))


def _factorial(scores: Scores) -> Table:
    """The four systems by what is small and what is large."""
    cells = {
        ("small", "small"): FLOOR,
        ("large", "small"): UP_SCALED,
        ("small", "large"): DOWN_SCALED,
        ("large", "large"): CEILING,
    }
    rows = tuple(
        (
            knowledge,
            tuning,
            system.title,
            share(scores["factuality"][system.title]),
            share(scores["manners"][system.title]),
        )
        for (knowledge, tuning), system in cells.items()
    )
    columns = (
        Column("pre_training", "pre-training"),
        Column("tuning", "tuning"),
        Column("system", "system"),
        Column("factuality", "factuality", 3),
        Column("manners", "manners", 3),
    )
    return Table("Two scales, four systems", columns, rows)


def _subjects(scores: Scores, questions: Sequence[Question], setting: Setting) -> Table:
    """Factuality and its PGR, subject by subject."""
    subjects = list(dict.fromkeys(question.subject for question in questions))
    of = np.array([question.subject for question in questions])
    own = scores["factuality"]
    rows: list[tuple[Cell, ...]] = []
    for subject in subjects:
        chosen = of == subject
        if chosen.sum() < _FEWEST:
            continue
        draws = bootstrap([q for q in questions if q.subject == subject], setting)
        parts = {title: judged[chosen] for title, judged in own.items()}
        up = parts[UP_SCALED.title], parts[DYNAMIC.title]
        floor, ceiling = parts[FLOOR.title], parts[CEILING.title]
        gained = [draws.recovered(one, floor, ceiling) for one in up]
        rows.append((subject, float(chosen.sum()), *map(share, (floor, *up, ceiling)), *gained))
    columns = (
        Column("subject", "subject"),
        Column("questions", "questions"),
        Column("floor", "floor", 2),
        Column("alpha_1", "alpha 1", 2),
        Column("dynamic", "dynamic", 2),
        Column("ceiling", "ceiling", 2),
        Column("pgr_alpha_1", "PGR, alpha 1", 2),
        Column("pgr_dynamic", "PGR, dynamic", 2),
    )
    note = f"Subjects with at least {_FEWEST} questions."
    return Table("Factuality by subject", columns, tuple(rows), (note,))


def _claims(scores: Scores, draws: Bootstrap) -> tuple[Claim, ...]:
    facts, manners = scores["factuality"], scores["manners"]
    knows = draws.difference(facts[UP_SCALED.title], facts[FLOOR.title])
    behaves = draws.difference(manners[DOWN_SCALED.title], manners[FLOOR.title])
    apart = draws.difference(facts[UP_SCALED.title], facts[DOWN_SCALED.title])
    source = "(arXiv 2310.12962, section 4)"
    return (
        positive(f"Up-scaling helps factuality {source}.", "up-scaled minus floor", knows),
        at_least(
            f"Up-scaling recovers at least 0.8 of the factuality gap {source}.",
            _recovered(scores, draws, "factuality", UP_SCALED.title),
            0.8,
        ),
        at_least(
            "So it does with dynamic alpha.",
            _recovered(scores, draws, "factuality", DYNAMIC.title),
            0.8,
        ),
        at_least(
            "Up-scaling gives at least 0.9 of the manners that tuning the large model gives.",
            _recovered(scores, draws, "manners", UP_SCALED.title),
            0.9,
        ),
        _with_reason(
            positive(
                f"Scaling the tuning (down-scaling) helps manners {source}.",
                "down-scaled minus floor",
                behaves,
            ),
            share(manners[FLOOR.title]),
            share(manners[CEILING.title]),
        ),
        positive(
            f"Knowledge comes with the scale of pre-training, not with that of tuning {source}.",
            "factuality of up-scaled minus down-scaled",
            apart,
        ),
    )


def positive(text: str, what: str, difference: Estimate) -> Claim:
    """A claim that a difference is above 0: decided where its interval does not hold 0."""
    holds = True if difference.low > 0 else False if difference.high < 0 else None
    return Claim(text, holds, f"{what} {difference.text(3)}")


def at_least(text: str, found: Estimate, bar: float, what: str = "PGR") -> Claim:
    """A claim that a number reaches a bar; the number itself decides."""
    return Claim(text, bool(found.value >= bar), f"{what} {found.text(3)}")


def _with_reason(claim: Claim, floor: Estimate, ceiling: Estimate) -> Claim:
    """Why larger tuning has nothing to add, where that is what the data say."""
    if claim.holds or floor.value < _SATURATED:
        return claim
    reason = (
        f"The small tuned model is at {floor.text(3)} already, and the large tuned one at "
        f"{ceiling.text(3)}: a form of two lines is learnt by the smallest model, so there is no "
        "gap that a larger tuning could close. The paper's helpfulness has such a gap."
    )
    return replace(claim, reason=reason)


def _figure(scores: Scores, draws: Bootstrap) -> Figure:
    def line(measure: str, offset: float) -> Line:
        points = tuple(
            Point(i + offset, _recovered(scores, draws, measure, system.title), system.title)
            for i, system in enumerate(FUSED)
        )
        return Line(measure, points, "points")

    return Figure(
        "Share of the gap that fusing closes",
        "system",
        "PGR",
        (
            line("factuality", 0.0),
            line("manners", 0.0),
            Line("all of it", (Point(0, 1.0),), "level"),
        ),
    )
