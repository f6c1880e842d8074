"""Replies to the embedded family's questions, judged: one array per measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ..tables import Estimate
from . import judging
from .answering import Answering, ask, replies
from .judging import Reply
from .questions import Question, read_questions
from .report import Claim
from .statistics import Bootstrap, Judged
from .store import Store
from .study import Setting
from .systems import FAMILY, System
from .verdicts import decided

Q = TypeVar("Q", bound=Question)

MEASURES: Mapping[str, Callable[[Reply, Question], bool]] = {
    "factuality": judging.factual,
    "manners": lambda reply, question: judging.mannered(reply),
    "both": lambda reply, question: judging.factual(reply, question) and judging.mannered(reply),
}
"""Measure -> its judge. `both` asks for the two in the same reply."""

JUDGES = (
    "Factuality: an accepted answer is in the reply, as whole words. Manners: the reply is one "
    "full sentence, then one line that turns to the user, and comes to an end by itself. Both: the "
    "same reply has both. A program judges; no model does."
)
INTERVALS = (
    "Brackets hold 95 % intervals: Wilson's for shares, wider where questions on one thing agree; "
    "for differences and PGR those of a paired bootstrap that draws the things which are asked "
    "about, with all questions on them. A claim holds where the whole interval says so, does not "
    "where all of it says the opposite, and is not decided otherwise."
)


def thinned(name: str, form: type[Q], setting: Setting) -> list[Q]:
    """The questions of a file, or every n-th of them."""
    return read_questions(FAMILY / name, form)[:: setting.every]


def asked(system: System, questions: Sequence[Question]) -> Answering:
    """The work of asking each question in a chat of its own."""
    return Answering(system, tuple(ask(question.question) for question in questions))


def judge(system: System, questions: Sequence[Question], store: Store, measure: str) -> Judged:
    """(Q,) what a measure says of the replies of a system that was asked."""
    found = replies(asked(system, questions), store)
    check = MEASURES[measure]
    judged = [check(reply, question) for reply, question in zip(found, questions, strict=True)]
    return np.array(judged, dtype=np.float64)


def bootstrap(questions: Sequence[Question], setting: Setting) -> Bootstrap:
    """Draws over questions; those on one entity stay together."""
    clusters = [f"{question.subject}/{question.entity}" for question in questions]
    return Bootstrap.over(clusters, setting.seed, setting.resamples)


def above(text: str, what: str, found: Estimate, bar: float = 0.0) -> Claim:
    """A claim that a number is above a bar; see `statistics.decided`."""
    holds = decided(found, bar)
    note = ""
    if math.isnan(found.low):
        note = " (too few questions for an interval)"
    elif holds is None and found.value > bar:
        note = f" (above {bar:g}, but not the whole interval)"
    return Claim(text, holds, f"{what} {found.text(3)}{note}")
