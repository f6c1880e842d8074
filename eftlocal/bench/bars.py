"""What eftlocal promises of its speed and memory, measured: one line per bar.

The models are those that the bars are about: atlas, and trios of random weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import UsageError
from ..llama.library import lib
from ..loading import load
from ..threads import usable_cores
from .acceptance import acceptance
from .batching import COUNTS, batching
from .decoding import NEW_TOKENS, decoding, drafting, prefill, turns
from .peers.run import LLAMA_OBJECTS, TRANSFORMERS_BF16, check_packages, compare
from .report import Cell, Column, Report, Table
from .resident import measure_filled_apart
from .shapes import find_shape, write_trio
from .subject import Subject
from .target import Target
from .timing import Effort

OnStep = Callable[[str], None]

_ACCEPTANCE = 0.8
_AT_ONCE = max(COUNTS)
_MEMORY_CTX = 4096
# Tokens over which memory may not grow, in parts of an effort's longest measurement: 2,000 of FULL.
_GROWTH = 5
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar and what was measured.

    Attributes:
        what: is measured.
        on: which models.
        sign: ">=" or "<=".
        wanted: the bar.
        measured: None where it was not.
        why: it was not measured, or what a reader should know.
    """

    what: str
    on: str
    sign: str
    wanted: float
    measured: float | None
    why: str = ""

    @property
    def is_met(self) -> bool | None:
        """None where nothing was measured."""
        if self.measured is None:
            return None
        if self.sign == ">=":
            return self.measured >= self.wanted
        return self.measured <= self.wanted

    def row(self) -> tuple[Cell, ...]:
        """Its line in the table."""
        met = {True: "yes", False: "no", None: f"not measured: {self.why}"}[self.is_met]
        return (self.what, self.on, f"{self.sign} {self.wanted:g}", self.measured, met)


OfModel = Callable[[Subject, str], list[Bar]]
OfFiles = Callable[[Target, Effort], list[Bar]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured on one trio.

    Attributes:
        name: of a shape, or of a model entry.
        parts: measured on the loaded model.
        apart: measured on its files, in processes of their own, while nothing is loaded here.
    """

    name: str
    parts: tuple[OfModel, ...]
    apart: tuple[OfFiles, ...] = ()
    is_entry: bool = False


def _column(table: Table, key: str) -> dict[Cell, float]:
    """The numbers of a column, by the first cell of their rows."""
    index = [column.key for column in table.columns].index(key)
    cells = ((row[0], row[index]) for row in table.rows)
    return {name: cell for name, cell in cells if isinstance(cell, float)}


def plain(subject: Subject, on: str) -> list[Bar]:
    """Plain decoding of models of about 10 ms a token."""
    (table,) = decoding(subject)
    shares = _column(table, "share_of_floor")
    return [
        Bar("plain decoding, greedy, of the floor", on, ">=", 0.97, shares["greedy, alpha 1"]),
        Bar(
            "plain decoding, dynamic alpha, of the floor",
            on,
            ">=",
            0.95,
            shares["greedy, dynamic alpha"],
        ),
    ]


def plain_of_tiny(subject: Subject, on: str) -> list[Bar]:
    """Plain decoding of models whose steps take a fraction of a millisecond."""
    (table,) = decoding(subject)
    shares = _column(table, "share_of_floor")
    return [
        Bar("plain decoding, greedy, of the floor", on, ">=", 0.80, shares["greedy, alpha 1"]),
        Bar("plain decoding, as set, of the floor", on, ">=", 0.60, shares["as the model is set"]),
    ]


def drafts(subject: Subject, on: str) -> list[Bar]:
    """--draft auto against every fixed n and plain decoding."""
    gains = _column(drafting(subject)[0], "times_plain")
    auto = gains["auto"]
    best = max(gain for draft, gain in gains.items() if draft not in ("auto", "off"))
    return [
        Bar("--draft auto, of the best fixed n", on, ">=", 0.98, auto / best),
        Bar("--draft auto, times plain", on, ">=", 0.98, auto),
    ]


def drafts_of_questions(subject: Subject, on: str) -> list[Bar]:
    """The same where drafting has to gain."""
    of_best, times_plain = drafts(subject, on)
    gain = Bar("--draft auto, times plain, questions", on, ">=", 1.2, times_plain.measured)
    return [of_best, times_plain, gain]


def steered(subject: Subject, on: str) -> list[Bar]:
    """Drafting at a chosen acceptance, against what t(M) allows."""
    (table,) = acceptance(subject, (_ACCEPTANCE,))
    (row,) = table.to_json()["rows"]
    gain = 2.5 if _on_gpu(subject) else 1.3
    at = f"acceptance {_ACCEPTANCE:g}"
    return [
        Bar(f"--draft auto, {at}, of the ceiling", on, ">=", 0.93, row["auto_of_allowed"]),
        Bar(f"--draft auto, {at}, times plain", on, ">=", gain, row["auto_times_plain"]),
        Bar(f"--draft auto, {at}, of the best fixed n", on, ">=", 0.98, row["auto_of_best"]),
    ]


def _on_gpu(subject: Subject) -> bool:
    return bool(lib.llama_supports_gpu_offload()) and subject.model.runtime.gpu_layers != 0


def reading(subject: Subject, on: str) -> list[Bar]:
    """Prefill against its floor."""
    share = _column(prefill(subject)[0], "share_of_floor")["fused"]
    return [Bar("prefill, of the floor", on, ">=", 0.97, share)]


def second_turn(subject: Subject, on: str) -> list[Bar]:
    """What the second turn of a chat reads: what is new, and the last token of the first reply."""
    n_read = _column(turns(subject)[0], "evaluated_tokens")["continued"]
    return [Bar("second turn, prompt tokens read", on, "<=", NEW_TOKENS + 1, n_read)]


def memory(target: Target, effort: Effort) -> list[Bar]:
    """Resident memory beyond weights and caches, and what decoding adds to it."""
    arguments = {**target.runtime, "ctx": _MEMORY_CTX}
    found = measure_filled_apart(arguments, _GROWTH * effort.many)
    resident, python, grown = (
        found[key] for key in ("resident_bytes", "python_bytes", "grown_bytes")
    )
    rest = None
    if resident is not None and python is not None:
        known = sum(found[key] or 0 for key in ("weights_bytes", "cache_bytes"))
        rest = (resident - python - known) / _MB
        grown = None if grown is None else grown / 2**20
    why = "this system does not say what memory is resident"
    return [
        Bar("memory beyond weights and caches (MB)", target.name, "<=", 120, rest, why),
        Bar("memory that decoding adds (MiB)", target.name, "<=", 2, grown, why),
    ]


def batches(target: Target, effort: Effort) -> list[Bar]:
    """Eight generations at once, with the caches that do best, against one and against t(8)."""
    (table,) = batching(target, effort)
    rows = [row for row in table.to_json()["rows"] if row["generations"] == _AT_ONCE]
    row = max(rows, key=lambda row: row["tokens_per_second"])
    times, ceiling = row["times_one"], row["allowed_times_one"]
    least, on = 2.5, target.name
    enough = ceiling >= least
    return [
        Bar(
            f"{_AT_ONCE} generations, times one",
            on,
            ">=",
            least,
            times if enough else None,
            f"t({_AT_ONCE}) allows {ceiling:.2f}",
        ),
        Bar(f"{_AT_ONCE} generations, of the ceiling", on, ">=", 0.85, row["share_of_allowed"]),
    ]


def peers(target: Target, effort: Effort) -> list[Bar]:
    """Other ways to decode with the same weights, against eftlocal."""
    wanted = (
        ("rate, times the transformers loop in bfloat16", TRANSFORMERS_BF16,
         "eftlocal_times_faster", ">=", 4.5),
        ("rate, times it with the same BF16 weights", TRANSFORMERS_BF16,
         "eftlocal_bf16_times_faster", ">=", 2.2),
        ("memory, of the transformers loop", TRANSFORMERS_BF16,
         "eftlocal_memory_share", "<=", 0.55),
        ("rate, times three Llama objects", LLAMA_OBJECTS, "eftlocal_times_faster", ">=", 1.0),
        ("memory, of three Llama objects", LLAMA_OBJECTS, "eftlocal_memory_share", "<=", 0.8),
    )  # fmt: skip
    on = target.name
    try:
        check_packages()
    except UsageError as error:
        return [Bar(what, on, sign, bar, None, str(error)) for what, _, _, sign, bar in wanted]
    found = compare(target, effort, shape=on)
    bars = []
    for what, kind, key, sign, bar in wanted:
        peer = found.peers.get(kind)
        measured = None if peer is None else getattr(peer, key)
        bars.append(Bar(what, on, sign, bar, measured, found.left_out.get(kind, "no number")))
    return bars


PLANS = (
    Plan("small", (plain, drafts, reading, second_turn), (batches, peers)),
    Plan("small-152k", (plain, drafts, reading, second_turn), (memory,)),
    Plan("medium", (drafts, steered)),
    Plan("atlas", (plain_of_tiny, drafts_of_questions), is_entry=True),
)
"""All bars."""


def bars(
    runtime: Mapping[str, Any],
    effort: Effort,
    on_step: OnStep = lambda _: None,
    plans: Sequence[Plan] = PLANS,
) -> Report:
    """Measure all bars.

    Args:
        runtime: arguments of `load` beside the models.
        effort: how much is measured.
        on_step: called with what is measured next.
        plans: on which models.

    Raises:
        UsageError: where the package gguf is missing.
        EftlocalError: as `load` does.
    """
    found: list[Bar] = []
    for plan in plans:
        with _target(plan, runtime, on_step) as target:
            for of_files in plan.apart:
                on_step(f"{plan.name}: {of_files.__name__}")
                found += of_files(target, effort)
            with load(**target.runtime) as model:
                subject = Subject(model, effort, target.random)
                for of_model in plan.parts:
                    on_step(f"{plan.name}: {of_model.__name__}")
                    found += of_model(subject, plan.name)
    threads = runtime.get("threads") or usable_cores()
    facts = {"eftlocal": __version__, "rounds": str(effort.rounds), "threads": str(threads)}
    return Report(facts, {"bars": (_table(found),)})


@contextmanager
def _target(plan: Plan, runtime: Mapping[str, Any], on_step: OnStep) -> Iterator[Target]:
    """The models of a plan; files of a shape exist for the length of the block."""
    if plan.is_entry:
        yield Target(plan.name, {**runtime, "entry": plan.name}, {})
        return
    with tempfile.TemporaryDirectory(prefix="eftlocal-bench-") as folder:
        on_step(f"{plan.name}: writing random weights")
        files = write_trio(Path(folder), find_shape(plan.name))
        models = {role: str(path) for role, path in files.items()}
        yield Target(plan.name, {**runtime, **models}, {}, random=True)


def _table(found: Sequence[Bar]) -> Table:
    """All bars, those about the same thing together."""
    order = list(dict.fromkeys(bar.what for bar in found))
    rows = tuple(bar.row() for bar in sorted(found, key=lambda bar: order.index(bar.what)))
    columns = (
        Column("bar", "bar"),
        Column("model", "on"),
        Column("wanted", "wanted"),
        Column("measured", "measured", 3),
        Column("met", "met"),
    )
    notes = (
        "Medians of measurements in turns. The floor is what the decode calls alone take; the "
        "ceiling what t(M) allows; memory is the resident one, less Python's and NumPy's own.",
    )
    return Table("Bars", columns, rows, notes)
