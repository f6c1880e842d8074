"""Hash noise: draws follow the softmax, and noise of different keys and ids is independent."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from eftlocal.distributions import Array, Array64
from eftlocal.options import Sampler
from eftlocal.sampling import Noise, sample

INF = math.inf
N_DRAWS = 20_000


def softmax(row: Array, temperature: float = 1.0) -> Array64:
    """(V,) probabilities in float64."""
    scaled = row.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    probabilities: Array64 = weights / weights.sum()
    return probabilities


def draw(row: Array, sampler: Sampler, n: int, seed: int) -> list[int]:
    """The tokens at completion indices 0 to n - 1."""
    return [sample(row, sampler, Noise(seed, 0, index)) for index in range(n)]


def chi_square(tokens: list[int], probabilities: Array64) -> float:
    """The p-value of Pearson's test; unlikely tokens share bins of about 20 expected draws.

    The chi-square distribution by Wilson and Hilferty's cube root.
    """
    counts = np.bincount(tokens, minlength=len(probabilities))
    assert not counts[probabilities == 0].any()
    order = np.argsort(-probabilities, kind="stable")
    expected = probabilities[order] * len(tokens)
    bins = np.minimum(np.cumsum(expected) // 20, expected[expected > 0].sum() // 20 - 1)
    _, starts = np.unique(bins, return_index=True)
    wanted = np.add.reduceat(expected, starts)
    seen = np.add.reduceat(counts[order], starts)
    freedom = len(wanted) - 1
    statistic = float(((seen - wanted) ** 2 / wanted).sum())
    spread = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return math.erfc(z / math.sqrt(2)) / 2


def peaked(rng: np.random.Generator) -> Array:
    """One token far ahead of 99."""
    row = rng.normal(size=100).astype(np.float32)
    row[37] = 5
    return row


def zipf(rng: np.random.Generator) -> Array:
    """32,000 tokens in a random order, as likely as 1 / rank ** 1.2."""
    return rng.permutation(-1.2 * np.log(np.arange(1, 32_001))).astype(np.float32)


SHAPES: dict[str, Callable[[np.random.Generator], Array]] = {
    "peaked": peaked,
    "flat": lambda rng: np.full(50, 3.5, np.float32),
    "zipf": zipf,
    "two tokens": lambda rng: np.array([-0.4, 0.7], np.float32),
    "exclusions": lambda rng: np.where(rng.random(60) < 0.5, -INF, rng.normal(size=60)).astype("f"),
}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_draws_follow_the_softmax(
    shape: Callable[[np.random.Generator], Array], temperature: float
) -> None:
    """Over the completion indices of one seed, at any temperature, by a chi-square test."""
    row = shape(np.random.default_rng(5))
    tokens = draw(row, Sampler(temperature=temperature), N_DRAWS, seed=2024)
    assert chi_square(tokens, softmax(row, temperature)) > 1e-4


@pytest.mark.parametrize("vary", ["seed", "choice"])
def test_draws_follow_the_softmax_over_seeds_and_choices(vary: str) -> None:
    """The same, for one completion index of many seeds, and of many choices."""
    row = peaked(np.random.default_rng(5))
    keys = [(k, 0) if vary == "seed" else (0, k) for k in range(N_DRAWS)]
    tokens = [sample(row, Sampler(), Noise(seed, choice, 7)) for seed, choice in keys]
    assert chi_square(tokens, softmax(row)) > 1e-4


def test_the_test_would_see_a_small_bias() -> None:
    """Draws at temperature 1.05 do not pass for those at temperature 1."""
    row = peaked(np.random.default_rng(5))
    tokens = draw(row, Sampler(temperature=1.05), N_DRAWS, seed=2024)
    assert chi_square(tokens, softmax(row)) < 1e-4


def winner_of_all(row: Array, noise: Noise, temperature: float) -> int:
    """argmax(logit / temperature + Gumbel noise) over every token, in float64."""
    uniform = (noise.all_bits(len(row)) + 0.5) * 2.0**-32
    gumbel = -np.log(-np.log1p(-uniform))
    return int((row.astype(np.float64) / temperature + gumbel).argmax())


def far_below(rng: np.random.Generator) -> Array:
    """One token, and 31,999 that are 13 nats below it but hold 7 % together."""
    row = np.full(32_000, 4.0, np.float32)
    row[rng.integers(32_000)] = 17.0
    return row


def steps(rng: np.random.Generator) -> Array:
    """Tokens on both sides of every cut: 0, 3, 6, ... nats below the top, each step heavier."""
    depth = np.sort(rng.integers(0, 8, 20_000) ** 2 // 7)
    row: Array = (30.0 - 3.0 * depth).astype(np.float32)
    row[:7] = 30.0
    return rng.permutation(row)


WIDE: dict[str, Callable[[np.random.Generator], Array]] = {
    "far below": far_below,
    "steps": steps,
    "zipf": zipf,
    "normal": lambda rng: (4 * rng.normal(size=20_000)).astype(np.float32),
    "just too many": lambda rng: rng.normal(size=1025).astype(np.float32),
    "mostly excluded": lambda rng: np.where(np.arange(5000) % 1000, -INF, 1.0).astype(np.float32),
}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", WIDE.values(), ids=WIDE)
def test_tokens_that_are_not_looked_at_could_not_win(
    shape: Callable[[np.random.Generator], Array], temperature: float
) -> None:
    """Of a wide row few tokens race, yet the winner is that of all of them in float64."""
    row = shape(np.random.default_rng(3))
    for index in range(150):
        noise = Noise(8, 0, index)
        token = sample(row, Sampler(temperature=temperature), noise)
        assert token == winner_of_all(row, noise, temperature)


def test_tokens_far_below_the_top_get_their_share() -> None:
    """The 7 % beyond the cut are drawn as often as they should be, each of them for the first."""
    row = far_below(np.random.default_rng(3))
    tokens = draw(row, Sampler(), 6000, seed=6)
    far = [token for token in tokens if token != row.argmax()]
    share = 1 - softmax(row).max()
    assert abs(len(far) - 6000 * share) < 4 * math.sqrt(6000 * share * (1 - share))
    assert len(set(far)) > 0.95 * len(far)


def correlation(left: Array64, right: Array64) -> float:
    """Pearson's, in units of its spread for independent values."""
    return float(np.corrcoef(left, right)[0, 1]) * math.sqrt(len(left))


KEYS = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 2), (2**40, 0, 0), (0, 0, 2**33)]


def test_keys_give_uncorrelated_noise() -> None:
    """Seeds, choices and indices that differ in one bit share nothing; nor do the bits."""
    noise = [Noise(*key).all_bits(50_000) for key in KEYS]
    for i, left in enumerate(noise):
        assert abs(left.mean(dtype=np.float64) / 2**32 - 0.5) < 4.5 / math.sqrt(12 * 50_000)
        for right in noise[:i]:
            assert abs(correlation(left.astype(float), right.astype(float))) < 4.5
            flipped = np.unpackbits((left ^ right).view(np.uint8).reshape(-1, 4), axis=1)
            shares = flipped.mean(axis=0)
            assert (np.abs(shares - 0.5) < 4.5 / math.sqrt(4 * 50_000)).all()


def test_neighbouring_ids_and_indices_are_uncorrelated() -> None:
    """Along the ids of one index and along the indices of one id, at several distances."""
    ids = np.array([0, 1, 2, 3, 1000, 151_935])
    over_ids = Noise(3, 1, 4).all_bits(50_000).astype(float)
    over_indices = np.array([Noise(3, 1, index).bits(ids) for index in range(8000)], float)
    for distance in (1, 2, 64, 1000):
        series = [over_ids, *over_indices.T]
        for values in series:
            assert abs(correlation(values[distance:], values[:-distance])) < 4.5
    table = np.corrcoef(over_indices.T) - np.eye(len(ids))
    assert np.abs(table).max() * math.sqrt(8000) < 4.5


def test_no_two_indices_share_their_noise() -> None:
    """100,000 keys: 64 bits of them are used, where 32 would give three pairs here."""
    ids = np.arange(2)
    assert len({Noise(0, 0, index).bits(ids).tobytes() for index in range(100_000)}) == 100_000


def test_noise_of_an_id_does_not_depend_on_the_others() -> None:
    """Any subset, in any order, gets the same bits as the whole vocabulary of any size."""
    noise = Noise(11, 2, 3)
    everything = noise.all_bits(40_000).copy()
    ids = np.random.default_rng(0).permutation(40_000)[:500]
    np.testing.assert_array_equal(noise.bits(ids), everything[ids])
    np.testing.assert_array_equal(noise.bits(ids[:1]), everything[ids[:1]])
    np.testing.assert_array_equal(noise.all_bits(1000), everything[:1000])
    np.testing.assert_array_equal(Noise(11, 2, 3).all_bits(40_000), everything)


@pytest.mark.parametrize("closeness", [0.1, 0.5, 1.0, 3.0])
def test_draft_and_fused_samples_agree_as_often_as_promised(closeness: float) -> None:
    """With shared noise, two distributions at distance TV agree with (1 - TV) / (1 + TV)."""
    rng = np.random.default_rng(int(10 * closeness))
    draft = (2 * rng.normal(size=30)).astype(np.float32)
    fused = draft + (closeness * rng.normal(size=30)).astype(np.float32)
    distance = np.abs(softmax(draft) - softmax(fused)).sum() / 2
    pairs = zip(draw(draft, Sampler(), 8000, 1), draw(fused, Sampler(), 8000, 1), strict=True)
    agreed = np.mean([left == right for left, right in pairs])
    assert agreed > (1 - distance) / (1 + distance) - 4 * math.sqrt(0.25 / 8000)
    assert agreed < 1 - distance + 4 * math.sqrt(0.25 / 8000)
