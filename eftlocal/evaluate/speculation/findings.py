"""What the study of speculation found out, put together from its records."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...tables import Estimate
from ..statistics import Bootstrap
from ..store import Record
from ..study import Setting
from .drafts import PLAIN
from .draws import Partition, counted, multinomial_p

Gap = float | None
Alpha = float | str


def mode(alpha: Alpha) -> str:
    """A mode of alpha in a table."""
    return alpha if isinstance(alpha, str) else f"{alpha:g}"


def _sums(records: Sequence[Record], value: Callable[[Record], float]) -> NDArray[np.float64]:
    return np.array([value(record) for record in records], np.float64)


@dataclass(frozen=True)
class Fared:
    """How drafts of one kind fared.

    Attributes:
        alpha, temperature, rule, n: the kind.
        replies: how many.
        equal: of them, those with the tokens of the plain reply.
        shift: by how many nats log-probs differ from the plain reply's at most.
        gaps: of the others, by how much the plain reply preferred its token; None is unknown.
        accepted: share of drafts.
        tokens: per round.
    """

    alpha: Alpha
    temperature: float
    rule: str
    n: int
    replies: int
    equal: int
    shift: float
    gaps: tuple[Gap, ...]
    accepted: Estimate
    tokens: Estimate

    @classmethod
    def of(
        cls, kind: tuple[Alpha, float, str, int], records: Sequence[Record], again: Bootstrap
    ) -> Fared:
        """From records of `drafts.Drafted`."""
        own = [record[kind[2]][str(kind[3])] for record in records]
        differences = [one["difference"] for one in own if one["difference"] is not None]

        def ratio(above: str, below: str) -> Estimate:
            sums = (_sums(own, lambda one, key=key: one[key]) for key in (above, below))  # type: ignore[misc]
            return again.estimate(lambda a, b: a / b, *sums)

        return cls(
            *kind,
            replies=len(own),
            equal=len(own) - len(differences),
            shift=max(one["shift"] for one in own),
            gaps=tuple(difference["gap"] for difference in differences),
            accepted=ratio("accepted", "drafted"),
            tokens=ratio("tokens", "rounds"),
        )


@dataclass(frozen=True)
class Predicted:
    """Acceptance of single drafts beside what total variation says.

    Attributes:
        alpha, rule: the kind.
        rows: how many drafts.
        measured: share accepted.
        most, least: mean of 1 - TV, and of (1 - TV) / (1 + TV), on the same rows.
        above_most, above_least: how much larger the share is.
        p: of the difference from `most`, two-sided; the sum of what was accepted less what was
            expected is a martingale, nearly normal.
    """

    alpha: Alpha
    rule: str
    rows: int
    measured: Estimate
    most: Estimate
    least: Estimate
    above_most: Estimate
    above_least: Estimate
    p: float

    @classmethod
    def of(cls, alpha: Alpha, rule: str, records: Sequence[Record], again: Bootstrap) -> Predicted:
        """From records of `drafts.Checked`."""
        rows = [np.array(record["rows"], np.float64).reshape(-1, 2) for record in records]
        count = np.array([len(own) for own in rows], np.float64)
        agreed = np.array([own[:, 1].sum() for own in rows])
        most = np.array([(1 - own[:, 0]).sum() for own in rows])
        least = np.array([((1 - own[:, 0]) / (1 + own[:, 0])).sum() for own in rows])
        variance = sum(float((own[:, 0] * (1 - own[:, 0])).sum()) for own in rows)
        p = math.nan
        if variance:
            off = abs(float((agreed - most).sum())) / math.sqrt(variance)
            p = math.erfc(off / math.sqrt(2))

        def mean(values: NDArray[np.float64]) -> Estimate:
            return again.estimate(lambda a, b: a / b, values, count)

        return cls(
            alpha,
            rule,
            int(count.sum()),
            mean(agreed),
            mean(most),
            mean(least),
            mean(agreed - most),
            mean(agreed - least),
            p,
        )


@dataclass(frozen=True)
class Drawn:
    """First tokens against the exact distribution.

    Attributes:
        prompt, alpha, rule: what was drawn.
        draws: how many.
        cells: among how many cells.
        p: against the fused distribution.
        control: against the drafter's.
    """

    prompt: str
    alpha: Alpha
    rule: str
    draws: int
    cells: int
    p: float
    control: float

    @classmethod
    def of(
        cls, kind: tuple[str, Alpha, str], trees: Sequence[Record], records: Sequence[Record]
    ) -> Drawn:
        """From the records of `draws.Tree` and `draws.Draws`."""
        draws = [draw for record in records for draw in record["draws"]]
        counts, fused, drafter = counted(Partition.of(trees[0]), draws)
        tested = multinomial_p(counts, fused), multinomial_p(counts, drafter)
        return cls(*kind, len(draws), len(counts), *tested)


@dataclass(frozen=True)
class Timed:
    """How much quicker drafting was, by draft: median over replies of plain time / drafted."""

    alpha: Alpha
    temperature: float
    rule: str
    quicker: dict[str, Estimate]

    @classmethod
    def of(
        cls, kind: tuple[Alpha, float, str], records: Sequence[Record], setting: Setting
    ) -> Timed:
        """From records of `drafts.Turns`."""
        rng = np.random.default_rng(setting.seed)
        places = rng.integers(len(records), size=(setting.resamples, len(records)))
        quicker = {}
        for draft in records[0]:
            if draft == PLAIN:
                continue
            ratios = np.array([record[PLAIN] / record[draft] for record in records])
            low, high = np.quantile(np.median(ratios[places], axis=1), (0.025, 0.975))
            quicker[draft] = Estimate(float(np.median(ratios)), float(low), float(high))
        return cls(*kind, quicker)
