"""Verdicts as arrays: scores of replies, and outcomes of pairs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...tables import Estimate
from ..statistics import RESAMPLES, Bootstrap, share
from .asks import Replies, all_asks, is_same, pair_asks, score_ask
from .reading import Verdict, Verdicts
from .roles import Role

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Judge:
    """One who gave verdicts.

    Attributes:
        title: what tables call it.
        verdicts: by the keys of asks.
        refused: keys of the asks that the judge did not take.
    """

    title: str
    verdicts: Verdicts
    refused: Collection[str] = ()


@dataclass(frozen=True)
class Contest:
    """What was asked and replied.

    Attributes:
        replies: of all systems; the first one is compared with the others.
        roles: in which judges were asked.
        pairs: whether they were asked to compare.
        seed, resamples: of bootstrap draws.
    """

    replies: Replies
    roles: Sequence[Role]
    pairs: bool = False
    seed: int = 0
    resamples: int = field(default=RESAMPLES)

    @property
    def titles(self) -> list[str]:
        """The systems', in order."""
        return list(self.replies)

    @property
    def clusters(self) -> Array:
        """(X,) a number per exchange: turns of one prompt stand or fall together."""
        first = self.replies[self.titles[0]]
        keys = {one.prompt.key: number for number, one in enumerate(first)}
        return np.array([keys[one.prompt.key] for one in first], dtype=np.float64)

    @property
    def categories(self) -> NDArray[np.str_]:
        """(X,) the category of each exchange's prompt."""
        return np.array([one.prompt.category for one in self.replies[self.titles[0]]], dtype=str)

    def draws(self, chosen: NDArray[np.bool_]) -> Bootstrap:
        """Bootstrap draws over the prompts of some exchanges."""
        return self.draws_over(self.clusters[chosen])

    def draws_over(self, clusters: Array) -> Bootstrap:
        """Bootstrap draws over questions that belong to these clusters."""
        names = [str(int(cluster)) for cluster in clusters]
        return Bootstrap.over(names, self.seed, self.resamples)

    def scores(self, judge: Judge, title: str, role: Role) -> Array:
        """(X,) a judge's numbers for a system; NaN where there is no verdict."""
        asks = [score_ask(title, exchange, role) for exchange in self.replies[title]]
        found = [_value(judge.verdicts.get(ask.key)) if ask else None for ask in asks]
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    def mean(self, values: Array, among: NDArray[np.bool_] | None = None) -> Estimate:
        """The mean of what is not NaN; NaN of nothing, and the interval where one prompt is all."""
        chosen = np.isfinite(values) if among is None else np.isfinite(values) & among
        if len(np.unique(self.clusters[chosen])) < 2:
            value = float(values[chosen].mean()) if chosen.any() else np.nan
            return Estimate(value, np.nan, np.nan)
        return self.draws(chosen).mean(values[chosen])

    def share(self, values: Array) -> Estimate:
        """The mean of ones and zeros that are not NaN; see `prompt_share`."""
        chosen = np.isfinite(values)
        return prompt_share(values[chosen], self.clusters[chosen])

    def recovered(self, fused: Array, floor: Array, ceiling: Array) -> Estimate:
        """PGR on the exchanges that all three have a score for."""
        chosen = np.isfinite(fused) & np.isfinite(floor) & np.isfinite(ceiling)
        if not chosen.any():
            return Estimate(np.nan, np.nan, np.nan)
        return self.draws(chosen).recovered(fused[chosen], floor[chosen], ceiling[chosen])

    def pair_outcomes(self, judge: Judge, title: str, role: Role) -> Pairs:
        """The first system against another one."""
        names = (self.titles[0], title)
        found = [
            _outcome(judge, pair_asks(names, pair, role), is_same(pair))
            for pair in zip(self.replies[names[0]], self.replies[title], strict=True)
        ]
        rows = np.array(found, dtype=np.float64).reshape(len(found), 3)
        return Pairs(rows[:, 0], rows[:, 1], rows[:, 2])

    def n_asked(self, judge: Judge) -> tuple[int, int, int]:
        """How many questions there are, how many without a verdict, and how many refused ones."""
        asks = all_asks(self.replies, self.roles, self.pairs)
        n_missing = sum(judge.verdicts.get(ask.key) is None for ask in asks)
        return len(asks), n_missing, sum(ask.key in judge.refused for ask in asks)


@dataclass(frozen=True)
class Pairs:
    """Comparisons of two systems, (X,) each; NaN where a verdict is missing.

    Attributes:
        outcome: 1 where the first system won in both orders, -1 where the other did, else 0.
        inconsistent: 1 where the orders led to different outcomes; NaN where nothing was asked
            because both replies are the same.
        shown_first: of the two verdicts, the share for the reply that was shown first, among those
            that are no tie; NaN where both are.
    """

    outcome: Array
    inconsistent: Array
    shown_first: Array


def prompt_share(values: Array, clusters: Array) -> Estimate:
    """The mean of ones and zeros, with Wilson's interval for as many draws as there are prompts.

    Turns of one prompt count as one draw, as if they said the same; unlike a bootstrap's, the
    interval has a width where all are equal. NaN of nothing.
    """
    if not len(values):
        return share(values)
    return share(np.full(len(np.unique(clusters)), values.mean()))


def _value(verdict: Verdict | None) -> float | None:
    return None if verdict is None else float(verdict.value)


_SIDES = {"A": 1, "tie": 0, "B": -1}


def _outcome(judge: Judge, asks: object, same: bool) -> tuple[float, float, float]:
    """Outcome, inconsistency and the share for what is shown first, of one pair."""
    if not isinstance(asks, tuple):
        return (0.0 if same else np.nan), np.nan, np.nan
    verdicts = [judge.verdicts.get(ask.key) for ask in asks]
    sides = [_SIDES[str(verdict.value)] for verdict in verdicts if verdict is not None]
    if len(sides) < 2:
        return np.nan, np.nan, np.nan
    straight, swapped = sides[0], -sides[1]
    decided = [side > 0 for side in sides if side]
    return (
        float(straight if straight == swapped else 0),
        float(straight != swapped),
        float(np.mean(decided)) if decided else np.nan,
    )
