"""The section about drafting at chosen acceptances, measured and against what t(M) allows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ..drafting import expected_tokens
from ..options import MAX_DRAFT
from ..stream import Timings
from .floors import block_seconds, empty_caches
from .report import Cell, Chart, Column, Series, Table
from .steered import SteeredModel, can_steer
from .subject import Subject, round_seconds
from .timing import interleaved, ratio

ACCEPTANCES = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Probabilities with which drafts are accepted."""

_FIXED = (2, 4, 8, 16)
_DRAFTS: tuple[str | int, ...] = ("off", *_FIXED, "auto")
_PROMPT_TOKENS = 32
_FEWEST_TOKENS = 24


def all_costs(subject: Subject) -> tuple[dict[int, float], ...]:
    """What M rows cost at least, per context, for every M that a round can have: seconds.

    The least t(M') with M' >= M, as a block may be padded; t(M) are medians. One row is never
    padded.
    """
    prompt = subject.tokens(_PROMPT_TOKENS)
    sizes = range(1, MAX_DRAFT + 1)
    with empty_caches(subject.model) as contexts:
        kinds = {
            (i, n): partial(block_seconds, context, prompt, n)
            for i, context in enumerate(contexts)
            for n in sizes
        }
        seen = interleaved(kinds, subject.effort.rounds)
    medians = [[statistics.median(seen[i, n]) for n in sizes] for i in range(len(contexts))]
    return tuple({1: cost[0]} | {n: min(cost[n - 1 :]) for n in sizes[1:]} for cost in medians)


def best_size(acceptance: float, costs: Sequence[dict[int, float]], drafter: int) -> int:
    """The number of rows whose rounds decide the most tokens per second, by their decodes."""

    def rate(n: int) -> float:
        return expected_tokens(acceptance, n) / round_seconds(costs, drafter, n)

    return max(range(1, MAX_DRAFT + 1), key=rate)


@dataclass(frozen=True, slots=True)
class Priced:
    """What drafting gave at one acceptance.

    Attributes:
        accepted: share of the drafts of rounds with two rows that were accepted.
        times_plain: --draft -> tokens per second over those of plain decoding.
        best: rows per round with which t(M) allows most.
        allowed: times plain that it allows with them.
        of_ceiling: auto's rate over what t(M) allows on the same drafts.
        of_best: auto's rate over that of the best fixed n.
    """

    accepted: float
    times_plain: Mapping[str | int, float]
    best: int
    allowed: float
    of_ceiling: float
    of_best: float


def _price(
    subject: Subject, acceptance: float, costs: Sequence[dict[int, float]], rounds: int
) -> Priced:
    """Measure drafting where each draft is accepted with this probability.

    Args:
        subject: a model that `can_steer`.
        acceptance: the probability.
        costs: of `all_costs`.
        rounds: measurements of each kind.
    """
    room = subject.model.n_ctx - _PROMPT_TOKENS
    n_tokens = min(max(subject.n_tokens, _FEWEST_TOKENS), room)
    steered = SteeredModel(subject.model, acceptance, subject.tokens(_PROMPT_TOKENS))
    # As in use, decodes are measured before anything is drafted.
    steered.complete(1, "auto", 0)
    runs: dict[str | int, list[Timings]] = {draft: [] for draft in _DRAFTS}

    def measure(draft: str | int) -> float:
        # Every kind follows the same script in the same round.
        timings = steered.complete(n_tokens, draft, len(runs[draft])).timings
        runs[draft].append(timings)
        return timings.generation_seconds

    seen = interleaved({draft: partial(measure, draft) for draft in _DRAFTS}, rounds)
    best = best_size(acceptance, costs, steered.drafter)
    plain, drafted = (round_seconds(costs, steered.drafter, n) for n in (1, best))
    of_ceiling = []
    for i, (off, auto) in enumerate(zip(seen["off"], seen["auto"], strict=True)):
        # The first round only warmed up.
        n_rounds = steered.script(i + 1).rounds(_PROMPT_TOKENS, n_tokens, best)
        of_ceiling.append(off / auto * n_rounds * drafted / (n_tokens * plain))
    fixed = min(_FIXED, key=lambda n: statistics.median(seen[n]))
    pairs = runs[2]
    return Priced(
        sum(run.accepted for run in pairs) / sum(run.drafted for run in pairs),
        {draft: ratio(seen["off"], seen[draft]) for draft in _DRAFTS},
        best,
        expected_tokens(acceptance, best) * plain / drafted,
        statistics.median(of_ceiling),
        ratio(seen[fixed], seen["auto"]),
    )


def acceptance(subject: Subject, acceptances: Sequence[float] = ACCEPTANCES) -> tuple[Table, ...]:
    """Drafting at chosen acceptances, measured and against what t(M) allows."""
    columns = (
        Column("acceptance_percent", "acceptance (%)"),
        Column("accepted_percent", "accepted (%)"),
        *(Column(f"n{n}_times_plain", f"n = {n}", 2) for n in _FIXED),
        Column("auto_times_plain", "auto", 2),
        Column("allowed_times_plain", "t(M) allows", 2),
        Column("best_n", "with n"),
        Column("auto_of_allowed", "auto of it", 3),
        Column("auto_of_best", "of the best n", 3),
    )
    title = "Drafting at chosen acceptances (times plain)"
    if not (can_steer(subject.model.engine.ensemble.roles) and subject.model.can_draft):
        why = "Not measured: a model is a reference and something else, too, or cannot rewind."
        return (Table(title, columns, (), (why,)),)
    costs = all_costs(subject)
    found = {a: _price(subject, a, costs, subject.effort.rounds) for a in acceptances}
    subject.model.engine.ensemble.forget(0)
    rows: list[tuple[Cell, ...]] = [
        (
            100 * a,
            100 * one.accepted,
            *(one.times_plain[draft] for draft in (*_FIXED, "auto")),
            one.allowed,
            float(one.best),
            one.of_ceiling,
            one.of_best,
        )
        for a, one in found.items()
    ]
    series = tuple(
        Series(f"{100 * a:.0f}%", tuple((float(n), one.times_plain[n]) for n in _FIXED))
        for a, one in found.items()
    )
    chart = Chart("Drafting at chosen acceptances", "rows per round", "times plain", series, 1.0)
    notes = (
        "All decodes are real, but the likeliest tokens of their rows are chosen, so that each "
        "draft is accepted with this probability; accepted: of those with n = 2.",
        f"t(M) allows: the decodes alone, with the best n of 1 to {MAX_DRAFT}, padded where that "
        "is quicker; auto of it: on the very drafts that auto was measured with.",
    )
    return (Table(title, columns, tuple(rows), notes, chart),)
