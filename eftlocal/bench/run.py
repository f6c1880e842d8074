"""Runs the chosen sections of a benchmark and gathers their tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from .. import __version__
from ..llama import LlamaContext
from ..loading import load
from .acceptance import acceptance
from .batching import batching
from .caches import caches
from .decoding import decoding, drafting, floors, prefill, turns
from .floors import role_of
from .fusion_cost import fusion
from .gap import gap
from .report import Cell, Column, Report, Table
from .resident import measure_apart
from .serving import serving
from .subject import PLAIN, Subject
from .target import Target
from .timing import Effort

__all__ = ["Target", "run"]

OnSection = Callable[[str], None]
Tables = tuple[Table, ...]

_OF_MODEL: Mapping[str, Callable[[Subject], Tables]] = {
    "floors": floors,
    "decoding": decoding,
    "drafting": drafting,
    "acceptance": acceptance,
    "gap": gap,
    "prefill": prefill,
    "turns": turns,
}
_OF_TARGET: Mapping[str, Callable[[Target, Effort], Tables]] = {
    "batching": batching,
    "serving": serving,
    "caches": caches,
}
_ENTROPY_TOKENS = 96


def run(
    target: Target, sections: Sequence[str], effort: Effort, on_section: OnSection = lambda _: None
) -> Report:
    """Measure the named sections of `bench.SECTIONS`.

    Args:
        target: the models.
        sections: which ones, in any order.
        effort: how much is measured.
        on_section: called with each name before it is measured.

    Raises:
        EftlocalError: as `load` does.
    """
    facts = {"model": target.name, "eftlocal": __version__, "rounds": str(effort.rounds)}
    tables: dict[str, Tables] = {}
    # In a process of its own, and before this one holds the models, too.
    if "load" in sections:
        on_section("load")
        tables["load"] = _loading(target, effort)
    chosen = [name for name in _OF_MODEL if name in sections]
    if chosen:
        with load(**target.runtime, **target.generation) as model:
            subject = Subject(model, effort, target.random)
            facts |= _facts(subject)
            for name in chosen:
                on_section(name)
                tables[name] = _OF_MODEL[name](subject)
    # Each has loads of its own.
    for name in _OF_TARGET:
        if name in sections:
            on_section(name)
            tables[name] = _OF_TARGET[name](target, effort)
    if "fusion" in sections:
        on_section("fusion")
        tables["fusion"] = fusion(effort)
    return Report(facts, tables)


def _facts(subject: Subject) -> dict[str, str]:
    model = subject.model
    contexts = model.engine.ensemble.contexts
    threads = {c.threads for c in contexts if isinstance(c, LlamaContext)}
    free = {**PLAIN, "temperature": 1.0}
    n_tokens = min(max(subject.n_tokens, _ENTROPY_TOKENS // 2), _ENTROPY_TOKENS)
    base = subject.decode(n_tokens, **{**free, "alpha": 0.0}).surprise
    fused = subject.decode(n_tokens, **free).surprise
    return {
        "vocabulary": f"{model.n_vocab:,}",
        "context": f"{model.n_ctx:,} tokens",
        "threads": " or ".join(map(str, sorted(threads))),
        "entropy": f"about {base:.1f} nats (base), {fused:.1f} (fused with alpha 1)",
        "drafter": role_of(model, model.engine.ensemble.roles.drafters[0]),
    }


def _loading(target: Target, effort: Effort) -> Tables:
    """Load time, first token and memory, in processes of their own."""
    seen = [measure_apart(target.runtime) for _ in range(effort.rounds)]
    medians: dict[str, float | None] = {}
    for key in seen[0]:
        values = [value for one in seen if (value := one[key]) is not None]
        medians[key] = statistics.median(values) if values else None
    times = Table(
        "Start of a process that has the files in memory",
        (Column("what", "what"), Column("seconds", "seconds", 2)),
        (
            ("load (imports, weights, caches)", medians["load_seconds"]),
            ("first token of a prompt of 32 tokens", medians["first_token_seconds"]),
        ),
        (f"Medians of {effort.rounds} processes.",),
    )
    return times, _memory(medians)


def _memory(medians: Mapping[str, float | None]) -> Table:
    """Resident memory and what it is made of."""
    mib = {key: None if value is None else value / 2**20 for key, value in medians.items()}
    resident, python = mib["resident_bytes"], mib["python_bytes"]
    weights, caches = mib["weights_bytes"] or 0.0, mib["cache_bytes"] or 0.0
    rest = None
    if resident is not None and python is not None:
        rest = resident - python - weights - caches
    rows: tuple[tuple[Cell, ...], ...] = (
        ("resident", resident),
        ("Python and NumPy", python),
        ("weights", weights),
        ("KV caches", caches),
        ("the rest", rest),
    )
    columns = (Column("what", "what"), Column("mib", "MiB"))
    notes = ("After 16 tokens. A rest below 0: caches take memory only where they are filled.",)
    return Table("Resident memory", columns, rows, notes)
