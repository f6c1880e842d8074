"""What the harness found, as tables with intervals: per task one row per system."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...tables import Cell, Column, Estimate, Table
from ..parts import Part
from ..statistics import RESAMPLES, Bootstrap
from .local import ATLAS

Aggregate = Callable[[list[Any]], float]

# Draws are a matrix: of many documents fewer are taken, so that it fits in memory.
_MOST_CELLS = 20_000_000
_FEWEST = 400
FEWEST_DOCUMENTS = 20
"""With fewer, draws of a ratio or of a perplexity say little: these have no interval then."""

_QUANTILES = (0.025, 0.975)
_Z = 1.96


@dataclass(frozen=True)
class Measured:
    """A system and what the harness found out about it.

    Attributes:
        part: the system.
        results: what `lm_eval.evaluate` returns.
        content: what its answers depend on beside the prompt.
        changes: how often its requests had to be changed; see `chat.Changes`.
    """

    part: Part
    results: Mapping[str, Any]
    content: Mapping[str, Any]
    changes: Mapping[str, int]


@dataclass(frozen=True)
class Metric:
    """A metric of a task, or of a group of tasks, under one of the task's filters."""

    task: str
    name: str
    filter: str

    @property
    def key(self) -> str:
        """Its name in the harness's results."""
        return f"{self.name},{self.filter}"

    @property
    def title(self) -> str:
        """What a column calls it."""
        return self.name if self.filter == "none" else f"{self.name}, {self.filter}"


def metrics_of(results: Mapping[str, Any], task: str) -> list[Metric]:
    """The metrics of a task or group, in the harness's order."""
    keys = [key for key in results["results"][task] if "," in key]
    pairs = [key.rsplit(",", 1) for key in keys]
    return [Metric(task, name, kind) for name, kind in pairs if not name.endswith("_stderr")]


def tables(
    measured: Sequence[Measured], aggregates: Mapping[str, Mapping[str, Aggregate]], seed: int
) -> tuple[list[Table], list[Table]]:
    """Tables of all tasks and groups; the second ones belong to groups of the first.

    Args:
        measured: the systems, all on the same documents.
        aggregates: task -> metric -> how the harness makes one number of many.
        seed: of the bootstrap.
    """
    first = measured[0].results
    members = {name for names in first["group_subtasks"].values() for name in names}
    found: tuple[list[Table], list[Table]] = ([], [])
    for task in first["results"]:
        metrics = metrics_of(first, task)
        if metrics:
            found[task in members].append(_table(task, metrics, measured, aggregates, seed))
    return found


def _table(
    task: str,
    metrics: Sequence[Metric],
    measured: Sequence[Measured],
    aggregates: Mapping[str, Mapping[str, Aggregate]],
    seed: int,
) -> Table:
    first = measured[0].results
    count = first["n-samples"].get(task, {}).get("effective")
    shots = first["n-shot"].get(task)
    facts = [f"{count} documents" if count else "", "" if shots is None else f"{shots}-shot"]
    title = ", ".join([task, *filter(None, facts)])
    columns, cells = [Column("system", "system")], [[m.part.system.title] for m in measured]
    rows: list[list[Cell]] = [list(row) for row in cells]
    for metric in metrics:
        digits = 3
        columns.append(Column(metric.key, metric.title, digits))
        scores, recovered = _estimates(metric, measured, aggregates, seed)
        for row, score in zip(rows, scores, strict=True):
            row.append(score)
        if recovered is not None:
            columns.append(Column(f"pgr,{metric.key}", f"PGR {metric.title}", 2))
            for row, pgr in zip(rows, recovered, strict=True):
                row.append(pgr)
    return Table(title, tuple(columns), tuple(map(tuple, rows)))


def _estimates(
    metric: Metric,
    measured: Sequence[Measured],
    aggregates: Mapping[str, Mapping[str, Aggregate]],
    seed: int,
) -> tuple[list[Estimate], list[Estimate | None] | None]:
    """A metric of all systems, and its PGR where there are a floor and a ceiling."""
    values, clusters = _values(metric, measured)
    aggregate = aggregates.get(metric.task, {}).get(metric.name, _mean)
    if not clusters or not _agrees(metric, measured, values, aggregate):
        return [_reported(metric, one) for one in measured], None
    resamples = max(_FEWEST, min(RESAMPLES, _MOST_CELLS // len(clusters)))
    bootstrap = Bootstrap.over(clusters, seed, resamples)
    is_mean, is_enough = _is_mean(aggregate), len(clusters) >= FEWEST_DOCUMENTS
    judge: _Means | _Aggregates = _Means(bootstrap)
    if not is_mean:
        judge = _Aggregates(bootstrap, aggregate)
    # Bootstrap has a rule of its own for means of few documents.
    scores = [_honest(judge.score(own), is_mean or is_enough) for own in values]
    roles = [one.part.role for one in measured]
    if roles.count("tuned") != 1 or roles.count("ceiling") != 1:
        return scores, None
    floor, ceiling = values[roles.index("tuned")], values[roles.index("ceiling")]
    ends = ("tuned", "ceiling")
    recovered = [
        None if role in ends else _honest(judge.recovered(own, floor, ceiling), is_enough)
        for role, own in zip(roles, values, strict=True)
    ]
    return scores, recovered


def _honest(estimate: Estimate, is_enough: bool) -> Estimate:
    """An estimate without its interval where documents are too few, or all draws agree."""
    all_agree = math.isclose(estimate.low, estimate.high, rel_tol=1e-12, abs_tol=1e-12)
    if all_agree or not is_enough:
        return Estimate(estimate.value, math.nan, math.nan)
    return estimate


def _values(metric: Metric, measured: Sequence[Measured]) -> tuple[list[list[Any]], list[str]]:
    """Per system a value of each document that all have one of; and the documents' clusters."""
    leaves = list(_leaves(metric.task, measured[0].results["group_subtasks"]))
    found: list[dict[tuple[str, Any], Any]] = []
    clusters: dict[tuple[str, Any], str] = {}
    for one in measured:
        own = {}
        for task in leaves:
            for sample in one.results["samples"].get(task, ()):
                if sample["filter"] == metric.filter and metric.name in sample:
                    key = task, sample["doc_id"]
                    own[key] = sample[metric.name]
                    clusters[key] = _cluster(task, sample)
        found.append(own)
    shared = [key for key in found[0] if all(key in own for own in found)]
    return [[own[key] for key in shared] for own in found], [clusters[key] for key in shared]


def _leaves(task: str, groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if task not in groups:
        yield task
    for member in groups.get(task, ()):
        yield from _leaves(member, groups)


def _cluster(task: str, sample: Mapping[str, Any]) -> str:
    """What stands or falls together: a document, or for atlas all questions on one thing."""
    if task in ATLAS:
        return str(sample["doc"]["entity"])
    return f"{task} {sample['doc_id']}"


def _agrees(
    metric: Metric, measured: Sequence[Measured], values: Sequence[list[Any]], aggregate: Aggregate
) -> bool:
    """Whether documents give the harness's own number; groups may be weighted otherwise."""
    for one, own in zip(measured, values, strict=True):
        expected = one.results["results"][metric.task].get(metric.key)
        try:
            found = float(aggregate(own))
        except (TypeError, ValueError):
            return False
        if not isinstance(expected, int | float) or not math.isclose(found, expected, abs_tol=1e-9):
            return False
    return True


def _reported(metric: Metric, one: Measured) -> Estimate:
    """The harness's number and standard error, where documents do not give it."""
    own = one.results["results"][metric.task]
    value, error = own.get(metric.key), own.get(f"{metric.name}_stderr,{metric.filter}")
    if not isinstance(value, int | float):
        return Estimate(math.nan, math.nan, math.nan)
    half = _Z * error if isinstance(error, int | float) else math.nan
    return Estimate(float(value), float(value) - half, float(value) + half)


def _mean(values: list[Any]) -> float:
    return float(np.mean(values))


def _is_mean(aggregate: Aggregate) -> bool:
    return aggregate.__name__ in ("mean", "_mean")


@dataclass(frozen=True)
class _Means:
    """Estimates of means."""

    bootstrap: Bootstrap

    def score(self, values: list[Any]) -> Estimate:
        judged = np.asarray(values, dtype=np.float64)
        # Of nothing but zeros a bootstrap would draw nothing else.
        is_share = bool(np.isin(judged, (0.0, 1.0)).all())
        return self.bootstrap.share(judged) if is_share else self.bootstrap.mean(judged)

    def recovered(self, fused: list[Any], floor: list[Any], ceiling: list[Any]) -> Estimate:
        arrays = [np.asarray(values, dtype=np.float64) for values in (fused, floor, ceiling)]
        return self.bootstrap.recovered(*arrays)


@dataclass(frozen=True)
class _Aggregates:
    """Estimates of what the harness aggregates in another way, such as perplexities."""

    bootstrap: Bootstrap
    aggregate: Aggregate

    def score(self, values: list[Any]) -> Estimate:
        return _estimate(float(self.aggregate(values)), self._draws(values))

    def recovered(self, fused: list[Any], floor: list[Any], ceiling: list[Any]) -> Estimate:
        one, low, high = (float(self.aggregate(values)) for values in (fused, floor, ceiling))
        draws, lows, highs = (self._draws(values) for values in (fused, floor, ceiling))
        with np.errstate(divide="ignore", invalid="ignore"):
            value = (one - low) / (high - low) if high != low else math.nan
            return _estimate(value, (draws - lows) / (highs - lows))

    def _draws(self, values: list[Any]) -> NDArray[np.float64]:
        """(B,) what the aggregate is of documents that are drawn again."""
        found = []
        for counts in self.bootstrap.counts[:_FEWEST]:
            drawn = np.repeat(np.arange(len(values)), counts.astype(np.int64))
            found.append(float(self.aggregate([values[i] for i in drawn])))
        return np.asarray(found)


def _estimate(value: float, draws: NDArray[np.float64]) -> Estimate:
    draws = draws[np.isfinite(draws)]
    if not math.isfinite(value) or not len(draws):
        return Estimate(math.nan, math.nan, math.nan)
    low, high = np.quantile(draws, _QUANTILES)
    return Estimate(value, float(low), float(high))
