"""The rows that fusion is measured on, and the tables of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eftlocal.bench.fusion_cost import Trio, draw_flat_row, draw_row, fusion
from eftlocal.bench.timing import QUICK


def entropy(row: Trio) -> float:
    """Of the fused distribution at alpha 1, in nats."""
    base, tuned, reference = (logits[0].astype(np.float64) for logits in row)
    logits = base + tuned - reference
    p = np.exp(logits - logits.max())
    p /= p.sum()
    return float(-(p * np.log(p)).sum())


@pytest.mark.parametrize("n_vocab", [32_000, 151_936])
def test_flat_rows_prefer_nothing(n_vocab: int) -> None:
    """Their entropy is above 0.9 log V, that of the others far below."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        row = draw_flat_row(n_vocab, rng)
        assert all(part.shape == (1, n_vocab) and part.dtype == np.float32 for part in row)
        assert 0.9 < entropy(row) / np.log(n_vocab) < 1
        assert entropy(draw_row(n_vocab, rng)) < 0.6 * np.log(n_vocab)


def test_flat_rows_have_tables_of_their_own() -> None:
    """One for each large vocabulary, after the others, with every sampler and dynamic alpha."""
    effort = replace(QUICK, rounds=1, rows=1, widths=(2048, 32_000))
    titles = [table.title for table in fusion(effort)]
    assert [title.partition("V = ")[2] for title in titles] == ["2,048", "32,000", "32,000"]
    assert [("flat" in title) for title in titles] == [False, False, True]
    modes = {(row[0], row[1]) for row in fusion(effort)[-1].rows}
    assert {("1", "greedy"), ("1", "T = 1"), ("1", "top-p 0.95"), ("dynamic", "greedy")} <= modes
