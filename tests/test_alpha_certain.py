"""Rows of very certain tokens: all distances are near rounding, and the search stays short."""

from __future__ import annotations

import numpy as np
import pytest

from eftlocal.alpha import AlphaSettings, search_alpha
from eftlocal.alpha.curve import Curve, Point, Targets
from eftlocal.alpha.minimum import lowest
from eftlocal.distributions import Array, log_softmax64


class CountingCurve(Curve):
    """Counts how often it looks at the whole vocabulary."""

    n_points = 0

    def at(self, alpha: float) -> Point:
        """One point, counted."""
        self.n_points += 1
        return super().at(alpha)


def certain_rows(seed: int, n_vocab: int = 32_000) -> tuple[Array, Array, Array]:
    """Logits (V,) of three models that give one and the same token some 0.99999."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=n_vocab)
    shared[int(rng.integers(n_vocab))] += 22 + 4 * (seed % 2)
    base, reference = (shared + 0.3 * rng.normal(size=n_vocab) for _ in range(2))
    tuned = reference + 0.2 * rng.normal(size=n_vocab)
    return base.astype(np.float32), tuned.astype(np.float32), reference.astype(np.float32)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("same_base", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_rounding_does_not_look_like_a_hidden_minimum(
    seed: int, same_base: bool, both: bool
) -> None:
    """Curves that are all rounding are not divided for ever: some hundred points are enough."""
    base, tuned, reference = certain_rows(seed)
    curve = CountingCurve(reference if same_base else base, tuned - reference, 0.0, 2.0)
    t, q = (log_softmax64(row) for row in (tuned, reference))
    forward, backward = float(np.exp(t) @ (t - q)), float(np.exp(q) @ (q - t))
    _, loss = lowest(curve, Targets(forward, backward, both, noise=1e-6))
    assert curve.n_points < 300
    assert loss < 1e-6


@pytest.mark.parametrize("mode", ["dynamic", "one-sided", "grid"])
def test_a_certain_row_has_a_small_loss(mode: str) -> None:
    """Nothing is far from anything, so no alpha is far off; P = Q still gives 1."""
    base, tuned, reference = (row[None] for row in certain_rows(9))
    found = search_alpha(base, [tuned], [reference], AlphaSettings(mode))
    assert 0 <= found.alpha[0, 0] <= 2
    assert found.loss[0] < 1e-6
    same = search_alpha(reference, [tuned], [reference], AlphaSettings(mode))
    assert same.alpha[0, 0] == pytest.approx(1, abs=0.1)
