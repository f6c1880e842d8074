"""Sections about decoding: floors, plain fused rates, drafting."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

from ..drafting import expected_tokens
from ..options import MAX_DRAFT
from .floors import bare_contexts, prefill_seconds
from .report import Bars, Cell, Chart, Column, Series, Table
from .subject import BLOCKS, PLAIN, Decoded, Subject, round_seconds
from .timing import interleaved, ratio

_DRAFTS: tuple[str | int, ...] = ("off", 2, 4, 8, MAX_DRAFT, "auto")
_PRICED = (0.5, 0.6, 0.7, 0.8, 0.9)


def floors(subject: Subject) -> tuple[Table, ...]:
    """t(M) of every context, and the floor of plain decoding."""
    contexts = bare_contexts(subject.model)
    kinds = {-1: subject.floor}
    floor = statistics.median(interleaved(kinds, subject.effort.rounds)[-1])
    costs = subject.costs
    rows: list[tuple[Cell, ...]] = [
        (context.role, context.n_bytes / 2**20, *(1e3 * cost[n] for n in BLOCKS))
        for context, cost in zip(contexts, costs, strict=True)
    ]
    alone = sum(cost[1] for cost in costs)
    rows.append(("all, one by one", None, 1e3 * alone, *(None for _ in BLOCKS[1:])))
    rows.append(("all in alternation", None, 1e3 * floor, *(None for _ in BLOCKS[1:])))
    columns = (
        Column("role", "context"),
        Column("weights_mib", "weights (MiB)", 1),
        *(Column(f"t{n}_ms", f"t({n})", 2) for n in BLOCKS),
    )
    series = tuple(
        Series(context.role, tuple((n, cost[n] / cost[1]) for n in BLOCKS))
        for context, cost in zip(contexts, costs, strict=True)
    )
    chart = Chart("Cost of a block of M tokens", "M", "t(M) / t(1)", series, 1.0)
    notes = (
        "t(M): milliseconds of one decode call with M tokens and their logits, after 32 tokens.",
        "In alternation: one-token decodes of all contexts in turn, along a fused completion. "
        "This is the floor of plain decoding.",
    )
    return (Table("What llama.cpp takes by itself", columns, tuple(rows), notes, chart),)


def decoding(subject: Subject) -> tuple[Table, ...]:
    """Plain fused decoding against the floor."""
    options: dict[str, dict[str, Any]] = {
        "greedy, alpha 1": PLAIN,
        "T = 1, alpha 1": {**PLAIN, "temperature": 1.0},
        "greedy, dynamic alpha": {**PLAIN, "alpha": "dynamic"},
        "as the model is set": {"draft": "off"},
    }
    n_tokens = subject.n_tokens
    kinds = {"floor": subject.floor} | {
        name: partial(_seconds, subject, n_tokens, given) for name, given in options.items()
    }
    seen = interleaved(kinds, subject.effort.rounds)
    rows = []
    shares = {name: ratio(seen["floor"], seen[name]) for name in options}
    for name, seconds in seen.items():
        median = statistics.median(seconds)
        rows.append((name, 1e3 * median, 1 / median, shares.get(name)))
    columns = (
        Column("settings", "settings"),
        Column("token_ms", "ms per token", 2),
        Column("tokens_per_second", "tokens/s", 1),
        Column("share_of_floor", "of the floor's rate", 3),
    )
    notes = (f"Nothing is drafted; {n_tokens} tokens per measurement.",)
    bars = Bars("Plain fused decoding", "of the floor's rate", tuple(shares.items()), 1.0)
    return (Table("Plain fused decoding", columns, tuple(rows), notes, bars),)


def _seconds(subject: Subject, n_tokens: int, options: dict[str, Any]) -> float:
    return subject.decode(n_tokens, **options).seconds


def drafting(subject: Subject) -> tuple[Table, ...]:
    """Drafting with every n against plain decoding, and what t(M) would allow."""
    last: dict[str | int, Decoded] = {}

    def measure(draft: str | int) -> float:
        greedy = {"stop": (), "temperature": 0, "draft": draft}
        last[draft] = subject.decode(subject.n_tokens, **greedy)
        return last[draft].seconds

    kinds = {draft: partial(measure, draft) for draft in _DRAFTS}
    seen = interleaved(kinds, subject.effort.rounds)
    costs, drafter = subject.costs, subject.model.engine.ensemble.roles.drafters[0]
    plain = round_seconds(costs, drafter, 1)
    rows, measured, allowed = [], [], []
    for draft in _DRAFTS:
        run = last[draft]
        per_round = run.tokens / run.rounds
        gain = ratio(seen["off"], seen[draft])
        # Rounds may have fewer rows: near the end, and where the drafter is unsure.
        n_rows = 1 + run.drafted / run.rounds
        limit = per_round * plain / round_seconds(costs, drafter, n_rows)
        if isinstance(draft, int):
            measured.append((draft, gain))
            allowed.append((draft, limit))
        rows.append((
            str(draft),
            1e3 * statistics.median(seen[draft]),
            gain,
            limit,
            100 * run.accepted / run.drafted if run.drafted else None,
            per_round,
        ))  # fmt: skip
    columns = (
        Column("draft", "--draft"),
        Column("token_ms", "ms per token", 2),
        Column("times_plain", "times plain", 2),
        Column("allowed_times_plain", "t(M) allows", 2),
        Column("accepted_percent", "accepted (%)"),
        Column("tokens_per_round", "tokens a round", 2),
    )
    chart = Chart(
        "Drafting against plain decoding",
        "rows per round",
        "times plain",
        (Series("measured", tuple(measured)), Series("t(M) allows", tuple(allowed))),
        1.0,
    )
    notes = (
        "Greedy, other options as the model is set; the same text but for rounding.",
        "t(M) allows: the decodes alone, at the rows and tokens per round that were measured.",
    )
    return (Table("Drafting", columns, tuple(rows), notes, chart), _priced(subject))


def _priced(subject: Subject) -> Table:
    """What t(M) would allow at other acceptances."""
    costs, drafter = subject.costs, subject.model.engine.ensemble.roles.drafters[0]
    plain = round_seconds(costs, drafter, 1)
    sizes = BLOCKS[1:]
    gains = {
        a: [expected_tokens(a, n) * plain / round_seconds(costs, drafter, n) for n in sizes]
        for a in _PRICED
    }
    columns = (
        Column("accepted_percent", "accepted (%)"),
        *(Column(f"n{n}_times_plain", f"n = {n}", 2) for n in sizes),
    )
    series = tuple(
        Series(f"{100 * a:.0f}%", tuple(zip(map(float, sizes), gain, strict=True)))
        for a, gain in gains.items()
    )
    chart = Chart("What drafting could gain", "rows per round", "times plain", series, 1.0)
    rows = tuple((100 * a, *gain) for a, gain in gains.items())
    notes = (
        "By t(M) alone: tokens that a round gives where each draft is accepted with this "
        "probability, over what its decodes cost.",
    )
    return Table("What drafting could gain (times plain)", columns, rows, notes, chart)


def prefill(subject: Subject) -> tuple[Table, ...]:
    """Reading a long prompt against its floor."""
    model = subject.model
    prompt = subject.long_prompt(room=1)

    def fused() -> float:
        model.engine.ensemble.forget(0)
        done = model.complete(prompt, **{**PLAIN, "max_tokens": 1})
        return done.timings.prompt_seconds

    # Fused reading leaves the last token to the first step.
    bare = partial(prefill_seconds, model, prompt[:-1])
    seen = interleaved({"floor": bare, "fused": fused}, subject.effort.rounds)
    n = len(prompt) - 1
    rows = []
    for name, seconds in seen.items():
        median = statistics.median(seconds)
        share = None if name == "floor" else ratio(seen["floor"], seconds)
        rows.append((name, 1e3 * median, n / median, share))
    columns = (
        Column("kind", "reading"),
        Column("prompt_ms", f"{n:,} tokens (ms)", 1),
        Column("tokens_per_second", "tokens/s"),
        Column("share_of_floor", "of the floor's rate", 3),
    )
    notes = ("Every model reads the prompt; the floor is their bare decode calls, in chunks.",)
    return (Table("Prefill", columns, tuple(rows), notes),)


NEW_TOKENS = 16
"""Tokens that the second turn adds to a chat."""

_REPLY_TOKENS = 8


def turns(subject: Subject) -> tuple[Table, ...]:
    """The first token of a long chat's second turn, with and without what is cached."""
    model = subject.model
    first = subject.long_prompt(room=NEW_TOKENS + 2 * _REPLY_TOKENS)
    new = subject.tokens(NEW_TOKENS)
    options = {**PLAIN, "max_tokens": _REPLY_TOKENS}
    evaluated: dict[str, int] = {}

    def turn(kind: str) -> float:
        model.engine.ensemble.forget(0)
        reply = model.complete(first, **options).tokens
        if kind == "from the start":
            model.engine.ensemble.forget(0)
        timings = model.complete((*first, *reply, *new), **options).timings
        evaluated[kind] = timings.prompt_tokens - timings.cached_tokens
        return timings.first_token_seconds

    kinds = {kind: partial(turn, kind) for kind in ("from the start", "continued")}
    seen = interleaved(kinds, subject.effort.rounds)
    cold = statistics.median(seen["from the start"])
    rows = []
    for kind, seconds in seen.items():
        median = statistics.median(seconds)
        rows.append((kind, float(evaluated[kind]), 1e3 * median, cold / median))
    columns = (
        Column("kind", "second turn"),
        Column("evaluated_tokens", "prompt tokens read"),
        Column("first_token_ms", "first token (ms)", 1),
        Column("times_faster", "times faster", 1),
    )
    notes = (f"A first turn of {len(first):,} tokens and a short reply, then {NEW_TOKENS} more.",)
    return (Table("Second turn of a long chat", columns, tuple(rows), notes),)
