"""Measure fusion and sampling of one row, by how alpha is found, on rows like real ones.

    python -m scripts.bench_fusion --n-vocab 151936

Rows: base, tuned and reference logits share a Zipf law (exponent drawn from 1.4 to 2.6 per row,
tokens in random order) and differ by normal noise of 0.5 nats per token; tuned is the reference
with 0.5 nats more noise, and 1.5 on the 20 likeliest tokens. "In place" is measured after reading
64 MB, as a real decode leaves the caches; "warm" is the same row again. One thread is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import numpy as np

from eftlocal.alpha import AlphaSettings, search_alpha
from eftlocal.distributions import Array, Array64
from eftlocal.fusion import FusionSettings, fuse
from eftlocal.options import Sampler
from eftlocal.sampling import Noise, sample

Trio = tuple[Array, Array, Array]
SWEEP = np.zeros(8 << 20)


def draw_row(n_vocab: int, rng: np.random.Generator) -> Trio:
    """Logits (1, V) of base, tuned and reference."""
    order = rng.permutation(n_vocab)
    shared = 12 - rng.uniform(1.4, 2.6) * np.log1p(order)
    base = shared + 0.5 * rng.normal(size=n_vocab)
    reference = shared + 0.5 * rng.normal(size=n_vocab)
    tuned = reference + 0.5 * rng.normal(size=n_vocab)
    tuned[order < 20] += 1.5 * rng.normal(size=20)
    return tuple(row.astype(np.float32)[None] for row in (base, tuned, reference))  # type: ignore[return-value]


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


def one_token(settings: FusionSettings, sampler: Sampler) -> Callable[[Trio, Array], None]:
    """What a step does with a row: fuse it and draw a token."""

    def run(row: Trio, out: Array) -> None:
        base, tuned, reference = row
        fused = fuse(base, [tuned], [reference], settings, out=out)
        sample(fused.logits[0], sampler, Noise(0, 0, 0), float(fused.log_z[0]))

    return run


def plain_grid(row: Trio, out: Array) -> None:
    """The paper's loop, then fusion with what it found, and the likeliest token."""
    alpha, _ = papers_grid(*row)
    one_token(FusionSettings(alpha), Sampler(temperature=0))(row, out)


def measure(run: Callable[[Trio, Array], None], rows: list[Trio], repeats: int) -> Array64:
    """Seconds (rows x repeats, 2): in place, and warm."""
    out = np.empty_like(rows[0][0])
    seconds = []
    for _ in range(repeats):
        for row in rows:
            SWEEP.sum()
            pair = []
            for _ in range(2):
                start = time.perf_counter()
                run(row, out)
                pair.append(time.perf_counter() - start)
            seconds.append(pair)
    return np.array(seconds)


def excess_over_grid(rows: list[Trio]) -> float:
    """How far dynamic's loss is above the grid's at most, in parts of max(1, L)."""
    excess = []
    for base, tuned, reference in rows:
        found = search_alpha(base, [tuned], [reference], AlphaSettings()).loss[0]
        _, grid = papers_grid(base, tuned, reference)
        excess.append((found - grid) / max(1.0, grid))
    return float(max(excess))


@click.command()
@click.option("--n-vocab", multiple=True, type=int, default=(2048, 32_000, 151_936))
@click.option("--rows", "n_rows", default=40, show_default=True)
@click.option("--repeats", default=5, show_default=True)
def main(n_vocab: tuple[int, ...], n_rows: int, repeats: int) -> None:
    """Print medians in microseconds per row, and ratios to the paper's grid in plain NumPy."""
    samplers = {
        "greedy": Sampler(temperature=0),
        "T = 1": Sampler(),
        "p = .95": Sampler(top_p=0.95),
    }
    kinds = {
        f"{alpha}, {name}": one_token(FusionSettings(value), sampler)
        for alpha, value in (("fixed", 1.0), ("dynamic", "dynamic"), ("grid", "grid"))
        for name, sampler in samplers.items()
    }
    for width in n_vocab:
        rng = np.random.default_rng(1)
        rows = [draw_row(width, rng) for _ in range(n_rows)]
        plain = np.median(measure(plain_grid, rows[:10], repeats), axis=0)
        click.echo(f"V = {width}, {n_rows} rows, {repeats} repeats: medians in us")
        click.echo(f"{'':22}{'in place':>10}{'warm':>8}{'plain grid / this':>20}")
        for name, run in kinds.items():
            cold, warm = np.median(measure(run, rows, repeats), axis=0)
            ratio = plain[0] / cold
            click.echo(f"{name:22}{1e6 * cold:10.0f}{1e6 * warm:8.0f}{ratio:20.1f}")
        click.echo(f"{'plain grid, greedy':22}{1e6 * plain[0]:10.0f}{1e6 * plain[1]:8.0f}")
        click.echo(f"dynamic's loss above the grid's: {excess_over_grid(rows):.1e} at most\n")


if __name__ == "__main__":
    main()
