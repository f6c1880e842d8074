"""Hypothesis strategies for rows of logits: ordinary, extreme and degenerate ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from eftlocal.distributions import Array, Array64

from .reference_alpha import Row

many = settings(deadline=None, derandomize=True, max_examples=60)
"""The same examples in every run, however slow the machine."""

seeds = st.integers(0, 2**32 - 1)

SIZES = (2, 3, 5, 8, 24, 24, 24, 100, 100, 1000)
WIDE = (4_099, 32_000, 152_064)

Generator = np.random.Generator
Models = Array64
"""(1 + 2E, V): base, then every tuned model, then every reference."""


class Case(NamedTuple):
    """Logits of R rows and E experts: base (R, V), tuned and reference (E, R, V)."""

    base: Array
    tuned: Array
    reference: Array

    def row(self, i: int) -> Case:
        """Row i alone, still with a row axis."""
        part = slice(i, i + 1)
        return Case(self.base[part], self.tuned[:, part], self.reference[:, part])

    def exact(self) -> Iterator[Row]:
        """Every row as the float64 reference sees it."""
        for i in range(len(self.base)):
            yield Row.of(self.base[i], self.tuned[:, i], self.reference[:, i])


def ordinary(rng: Generator, n: int, v: int) -> Models:
    """A spread of some nats, unrelated models."""
    return 3 * rng.normal(size=(n, v))


def related(rng: Generator, n: int, v: int) -> Models:
    """Models of one family: a common part and a smaller own one."""
    return 3 * rng.normal(size=v) + rng.uniform(0.1, 1.5) * rng.normal(size=(n, v))


def peaked(rng: Generator, n: int, v: int) -> Models:
    """Every model is nearly sure of a token, not always of the same one."""
    logits = rng.normal(size=(n, v))
    logits[np.arange(n), rng.integers(0, min(v, 3), n)] += rng.uniform(5, 25, n)
    return logits


def flat(rng: Generator, n: int, v: int) -> Models:
    """Nearly uniform models."""
    return 0.05 * rng.normal(size=(n, v))


def base_is_reference(rng: Generator, n: int, v: int) -> Models:
    """P = Q."""
    logits = ordinary(rng, n, v)
    logits[n // 2 + 1 :] = logits[0]
    return logits


def no_delta(rng: Generator, n: int, v: int) -> Models:
    """T = Q."""
    logits = ordinary(rng, n, v)
    logits[1 : n // 2 + 1] = logits[n // 2 + 1 :]
    return logits


def disjoint(rng: Generator, n: int, v: int) -> Models:
    """Every token belongs to one model; the others think it exp(-40) times as likely."""
    foreign = rng.integers(0, n, v) != np.arange(n)[:, None]
    logits: Models = rng.normal(size=(n, v)) - 40.0 * foreign
    return logits


def integers(rng: Generator, n: int, v: int) -> Models:
    """Few different values: equal probabilities, and losses with several minima."""
    scale = rng.choice([1, 4, 12])
    logits: Models = (scale * rng.integers(-1, 2, (n, v))).astype(np.float64)
    return logits


def huge(rng: Generator, n: int, v: int) -> Models:
    """Logits up to 10,000 in size."""
    return rng.uniform(-1, 1, (n, v)) * 10 ** rng.uniform(2, 4)


def heavy(rng: Generator, n: int, v: int) -> Models:
    """Most logits are ordinary, a few far away: sharp turns of the loss."""
    logits: Models = np.clip(rng.uniform(1, 6) * rng.standard_cauchy((n, v)), -200, 200)
    return logits


def slight(rng: Generator, n: int, v: int) -> Models:
    """A delta on tokens that the reference hardly knows and the base likes: small alphas."""
    logits = rng.normal(size=(n, v))
    tuned = slice(1, n // 2 + 1)
    logits[n // 2 + 1 :, : v // 2] -= 6
    logits[tuned] = logits[n // 2 + 1 :] + 3 * (np.arange(v) < v // 2) * rng.normal(size=v)
    return logits


def zipf(rng: Generator, n: int, v: int) -> Models:
    """Probabilities that fall like rank to the -1.4 to -2.6, with noise between the models."""
    ranks = np.log1p(rng.permutation(v))
    slopes = rng.uniform(1.4, 2.6, (n, 1))
    return -slopes * ranks + rng.uniform(0.2, 1.0) * rng.normal(size=(n, v))


def masked(rng: Generator, n: int, v: int) -> Models:
    """Tokens that one model or all exclude; one token is left to everyone."""
    logits = related(rng, n, v)
    logits[:, rng.random(v) < 0.2] = -np.inf
    logits[rng.random((n, v)) < 0.15] = -np.inf
    logits[:, 0] = rng.normal(size=n)
    return logits


Kind = Callable[[Generator, int, int], Models]
FINITE: tuple[Kind, ...] = (
    ordinary, related, peaked, flat, base_is_reference, no_delta, disjoint, integers, huge,
    heavy, slight, zipf,
)  # fmt: skip
KINDS: tuple[Kind, ...] = (*FINITE, masked)


def make_case(kinds: Sequence[Kind], seed: int, n_vocab: int, experts: int = 1) -> Case:
    """One row of each kind; every model's logits have a constant of their own added."""
    rng = np.random.default_rng(seed)
    n = 1 + 2 * experts
    rows = np.stack([kind(rng, n, n_vocab) for kind in kinds], axis=1)
    # Multiples of 1/1024 up to 2**14 are exact in float32, so equal models stay equal.
    rows = np.round(rows * 1024) / 1024
    shifts = rng.integers(-50, 51, (n, len(kinds), 1))
    logits = (rows + shifts).astype(np.float32)
    return Case(logits[0], logits[1 : 1 + experts], logits[1 + experts :])


@st.composite
def cases(
    draw: st.DrawFn,
    kinds: Sequence[Kind] = KINDS,
    experts: tuple[int, int] = (1, 1),
    sizes: Sequence[int] = SIZES,
    max_rows: int = 3,
) -> Case:
    """Some rows, each of any kind, over one vocabulary."""
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=max_rows))
    n_experts = draw(st.integers(*experts))
    return make_case(chosen, draw(seeds), draw(st.sampled_from(sizes)), n_experts)
