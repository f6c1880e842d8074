"""What fusing and sampling one row costs, by how alpha is found, on rows like real ones.

Base, tuned and reference logits share a Zipf law (exponent drawn from 1.4 to 2.6 per row, tokens
in random order) and differ by normal noise of 0.5 nats per token; tuned is the reference with 0.5
nats more noise, and 1.5 on the 20 likeliest tokens.

Flat rows stand for those of random weights, or of models that know nothing of their text: normal
logits of deviation 1, whose entropy is log V - 1/2, about 0.95 log V.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..alpha import AlphaSettings, search_alpha
from ..distributions import Array, Array64
from ..fusion import FusionSettings, fuse
from ..options import Sampler
from ..sampling import Noise, sample
from .report import Bars, Cell, Column, Table
from .timing import Effort

Trio = tuple[Array, Array, Array]
Run = Callable[[Trio, Array], None]

_SWEEP_BYTES = 64 << 20
_SAMPLERS = {
    "greedy": Sampler(temperature=0),
    "T = 1": Sampler(),
    "top-p 0.95": Sampler(top_p=0.95),
}
_FLAT_WIDTH = 32_000
"""Flat rows are measured from this width on; smaller ones cost little in any mode."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Rows to measure on.

    Attributes:
        name: what they are called in the title.
        draw: (V, generator) -> logits (1, V) of base, tuned and reference.
        modes: alpha and the name of a sampler.
    """

    name: str
    draw: Callable[[int, np.random.Generator], Trio]
    modes: tuple[tuple[float | str, str], ...]


def draw_row(n_vocab: int, rng: np.random.Generator) -> Trio:
    """Logits (1, V) of base, tuned and reference."""
    order = rng.permutation(n_vocab)
    shared = 12 - rng.uniform(1.4, 2.6) * np.log1p(order)
    base = shared + 0.5 * rng.normal(size=n_vocab)
    reference = shared + 0.5 * rng.normal(size=n_vocab)
    tuned = reference + 0.5 * rng.normal(size=n_vocab)
    tuned[order < 20] += 1.5 * rng.normal(size=20)
    first, second, third = (row.astype(np.float32)[None] for row in (base, tuned, reference))
    return first, second, third


def draw_flat_row(n_vocab: int, rng: np.random.Generator) -> Trio:
    """Logits (1, V) of base, tuned and reference that prefer nothing; the delta is small."""
    base, reference = rng.normal(size=(2, 1, n_vocab)).astype(np.float32)
    tuned = reference + 0.3 * rng.normal(size=(1, n_vocab)).astype(np.float32)
    return base, tuned, reference


_PEAKED = _Kind(
    "one row",
    draw_row,
    tuple((a, name) for a in (1.0, "dynamic", "one-sided", "grid") for name in _SAMPLERS),
)
_FLAT = _Kind(
    "one flat row",
    draw_flat_row,
    (*((1.0, name) for name in _SAMPLERS), ("dynamic", "greedy"), ("dynamic", "T = 1")),
)


def papers_grid(base: Array, tuned: Array, reference: Array) -> tuple[float, float]:
    """Dynamic Logits Fusion's loop (arXiv 2406.15480), symmetrised, in plain NumPy: alpha, loss."""

    def log_softmax(x: Array) -> Array:
        shifted = x - x.max()
        result: Array = shifted - np.log(np.exp(shifted).sum())
        return result

    def kl(p: Array, q: Array) -> float:
        return float((np.exp(p) * (p - q)).sum())

    p, t, q = log_softmax(base[0]), log_softmax(tuned[0]), log_softmax(reference[0])
    forward, backward = kl(t, q), kl(q, t)
    best, least = 0.0, np.inf
    for step in range(21):
        f = log_softmax(p + np.float32(step / 10) * (t - q))
        loss = (kl(f, p) - forward) ** 2 + (kl(p, f) - backward) ** 2
        if loss < least:
            best, least = step / 10, loss
    return best, least


def _one_token(settings: FusionSettings, sampler: Sampler) -> Run:
    """What a step does with a row: fuse it and draw a token."""

    def run(row: Trio, out: Array) -> None:
        base, tuned, reference = row
        fused = fuse(base, [tuned], [reference], settings, out=out)
        sample(fused.logits[0], sampler, Noise(0, 0, 0), float(fused.log_z[0]))

    return run


def _plain_grid(row: Trio, out: Array) -> None:
    """The paper's loop, then fusion with what it found, and the likeliest token."""
    alpha, _ = papers_grid(*row)
    _one_token(FusionSettings(alpha), Sampler(temperature=0))(row, out)


def _measure(run: Run, rows: list[Trio], rounds: int, sweep: Array64) -> Array64:
    """Medians in seconds (2): after other memory was read, as decodes leave it, and at once."""
    out = np.empty_like(rows[0][0])
    run(rows[0], out)
    seconds = []
    for _ in range(rounds):
        for row in rows:
            sweep.sum()
            pair = []
            for _ in range(2):
                start = time.perf_counter()
                run(row, out)
                pair.append(time.perf_counter() - start)
            seconds.append(pair)
    medians: Array64 = np.median(np.array(seconds), axis=0)
    return medians


def _excess_over_grid(rows: list[Trio]) -> float:
    """How far dynamic's loss is above the grid's at most, in parts of max(1, L)."""
    excess = []
    for base, tuned, reference in rows:
        found = search_alpha(base, [tuned], [reference], AlphaSettings()).loss[0]
        _, grid = papers_grid(base, tuned, reference)
        excess.append((found - grid) / max(1.0, grid))
    return float(max(excess))


def fusion(effort: Effort) -> tuple[Table, ...]:
    """Microseconds per row and mode, one table per vocabulary, then those of flat rows."""
    flat = [width for width in effort.widths if width >= _FLAT_WIDTH]
    peaked = [_table(_PEAKED, width, effort) for width in effort.widths]
    return (*peaked, *(_table(_FLAT, width, effort) for width in flat))


def _table(kind: _Kind, n_vocab: int, effort: Effort) -> Table:
    rng = np.random.default_rng(1)
    rows = [kind.draw(n_vocab, rng) for _ in range(effort.rows)]
    sweep = np.zeros(_SWEEP_BYTES // 8)
    plain = _measure(_plain_grid, rows[:10], effort.rounds, sweep)
    lines: list[tuple[Cell, ...]] = []
    bars: list[tuple[str, float]] = []
    for alpha, name in kind.modes:
        run = _one_token(FusionSettings(alpha), _SAMPLERS[name])
        cold, warm = _measure(run, rows, effort.rounds, sweep)
        label = alpha if isinstance(alpha, str) else f"{alpha:g}"
        lines.append((label, name, 1e6 * cold, 1e6 * warm, plain[0] / cold))
        bars.append((f"{label}, {name}", 1e6 * cold))
    lines.append(("plain grid", "greedy", 1e6 * plain[0], 1e6 * plain[1], 1.0))
    columns = (
        Column("alpha", "alpha"),
        Column("sampler", "sampler"),
        Column("in_place_us", "in place (us)"),
        Column("warm_us", "warm (us)"),
        Column("times_plain_grid", "times plain grid", 1),
    )
    notes = (
        f"{effort.rows} rows, medians. In place: after reading 64 MB, as a decode leaves the "
        "caches; warm: the same row again. Plain grid: the paper's loop in plain NumPy.",
        f"Dynamic's loss is above the grid's by {_excess_over_grid(rows):.1e} max(1, L) at most.",
    )
    title = f"Fusing and sampling {kind.name}, V = {n_vocab:,}"
    chart = Bars(title, "microseconds, in place", tuple(bars))
    return Table(title, columns, tuple(lines), notes, chart)
