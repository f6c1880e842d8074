"""The search of one alpha in rows as wide as real vocabularies, which are computed in float32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.alpha import AlphaSettings, search_alpha

from .reference_alpha import Goal, Row, paper_loop
from .rows import KINDS, WIDE, Kind, make_case, many, related, seeds, zipf
from .test_alpha import MODES, assert_optimal, close, several_minima


@settings(many, max_examples=5)
@given(seeds, st.sampled_from(WIDE), st.sampled_from([zipf, related]), st.sampled_from(MODES))
def test_a_large_vocabulary_is_as_exact(seed: int, n_vocab: int, kind: Kind, mode: str) -> None:
    """Rows like those of real models, up to 152,064 tokens wide."""
    case = make_case((kind,), seed, n_vocab)
    found = search_alpha(*case, AlphaSettings(mode))
    assert_optimal(case, found, [Goal(row, mode == "one-sided") for row in case.exact()], 0, 2)


@pytest.mark.parametrize("mode", [*MODES, "grid"])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_kind_of_wide_row(mode: str, seed: int) -> None:
    """Beyond the width up to which everything is computed in float64, extreme rows included."""
    case = make_case(KINDS, seed, 5_000)
    found = search_alpha(*case, AlphaSettings(mode, 0.0, 0.5 if mode == "grid" else 2.0))
    for i, row in enumerate(case.exact()):
        goal = Goal(row, mode == "one-sided")
        if mode == "grid":
            best = float(paper_loop(row.base, row.tuned, row.reference)[2].min())
        else:
            best = goal.minimum()
        reached = goal.loss(found.alpha[i])
        assert close(reached, best), (KINDS[i], found.alpha[i], reached, best)
        assert found.loss[i] == pytest.approx(reached, rel=1e-4, abs=1e-5)


def test_wide_rows_with_several_minima() -> None:
    """Tokens that are split into many equal ones change no divergence, so no minimum either."""
    rng = np.random.default_rng(6)
    for case in several_minima(30):
        n_vocab = case.base.shape[1]
        counts = rng.choice([1, 1_000, 4_000], n_vocab)
        counts[rng.integers(n_vocab)] = 5_000
        split = [np.repeat(a - np.log(counts), counts, axis=-1).astype(np.float32) for a in case]
        found = search_alpha(split[0], split[1], split[2], AlphaSettings("dynamic"))
        wide = Goal(Row.of(split[0][0], split[1][:, 0], split[2][:, 0]))
        narrow = search_alpha(*case, AlphaSettings("dynamic"))
        best = wide.loss(narrow.alpha[0])
        # Thousands of equal float32 terms round alike.
        assert wide.loss(found.alpha[0]) <= best + 1e-5 * max(1.0, best)


def test_wide_rows_do_not_see_the_others() -> None:
    """Rows as wide as real ones, together or one by one, are equal bit by bit."""
    case = make_case((zipf, related), 4, 32_000)
    together = search_alpha(*case, AlphaSettings("dynamic"))
    for i in range(2):
        alone = search_alpha(*case.row(i), AlphaSettings("dynamic"))
        np.testing.assert_array_equal(alone.alpha[0], together.alpha[i])
