"""What is done to a row before and while a token is drawn, against plain float64 references."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eftlocal.distributions import Array, log_sum_exp
from eftlocal.fusion import FusionSettings, fuse
from eftlocal.options import Sampler
from eftlocal.sampling import Noise, adjust, largest, sample

from .test_noise import chi_square

INF = math.inf
seeds = st.integers(0, 2**32 - 1)
many = settings(deadline=None, derandomize=True, max_examples=80)


def row_with_ties(seed: int, n_vocab: int | None = None) -> Array:
    """Logits on a grid of half nats, so that many are equal, a tenth of them -inf."""
    rng = np.random.default_rng(seed)
    n_vocab = n_vocab or int(rng.integers(2, 60))
    row: Array = (np.round(4 * rng.normal(size=n_vocab)) / 2).astype(np.float32)
    row[rng.random(n_vocab) < 0.1] = -INF
    row[rng.integers(n_vocab)] = 1.5
    return row


def truncations(seed: int) -> Sampler:
    """Random top-k, top-p, min-p and temperature, each sometimes off."""
    rng = np.random.default_rng(seed)
    return Sampler(
        top_k=int(rng.choice([0, 1, 3, 10, 100])),
        top_p=float(rng.choice([0.05, 0.5, 0.9, 0.99, 1.0])),
        min_p=float(rng.choice([0.0, 0.02, 0.07, 0.4])),
        temperature=float(rng.choice([0.3, 1.0, 3.0])),
    )


def survivors(row: Array, sampler: Sampler) -> list[int] | None:
    """Ids that top-k, top-p and min-p keep, by a sort in float64; None where rounding decides.

    As in llama.cpp: top-p sums the probabilities among the top-k, min-p looks at the largest.
    """
    order = sorted(np.flatnonzero(row > -INF).tolist(), key=lambda v: (-row[v], v))
    order = order[: sampler.top_k or len(order)]
    weights = np.exp(row[order].astype(np.float64) - float(row[order[0]]))
    if sampler.top_p < 1:
        reached = np.cumsum(weights) / weights.sum()
        if np.abs(reached - sampler.top_p).min() < 1e-5:
            return None
        order = order[: int(np.argmax(reached >= sampler.top_p)) + 1]
    kept = weights[: len(order)] >= sampler.min_p
    return [v for v, keep in zip(order, kept, strict=True) if keep]


def winner_among(row: Array, ids: list[int], noise: Noise, temperature: float) -> int:
    """argmax(logit / temperature + Gumbel noise) over `ids`, in float64."""
    uniform = (noise.bits(np.array(ids)) + 0.5) * 2.0**-32
    gumbel = -np.log(-np.log1p(-uniform))
    return ids[int((row[ids].astype(np.float64) / temperature + gumbel).argmax())]


@settings(many, max_examples=250)
@given(seeds, st.booleans())
def test_survivors_equal_a_sorted_reference(seed: int, wide: bool) -> None:
    """Every draw is the winner among exactly the ids that a float64 sort keeps, ties included."""
    row, sampler = row_with_ties(seed, 1500 if wide else None), truncations(seed)
    ids = survivors(row, sampler)
    assume(ids is not None)
    assert ids
    log_z = float(log_sum_exp(row[None])[0]) if seed % 2 else None
    for index in range(12):
        noise = Noise(seed, 0, index)
        wanted = winner_among(row, ids, noise, sampler.temperature)
        assert sample(row, sampler, noise, log_z) == wanted


TRUNCATED = {
    "top-k": Sampler(top_k=5),
    "top-p": Sampler(top_p=0.8, temperature=2.0),
    "min-p": Sampler(min_p=0.3, temperature=0.5),
    "all": Sampler(top_k=9, top_p=0.9, min_p=0.1, temperature=1.5),
}


@pytest.mark.parametrize("sampler", TRUNCATED.values(), ids=TRUNCATED)
def test_draws_follow_the_renormalised_distribution(sampler: Sampler) -> None:
    """Draws never leave the survivors and follow softmax(logits / temperature) among them."""
    row = np.random.default_rng(4).normal(size=30).astype(np.float32)
    ids = survivors(row, sampler)
    assert ids is not None
    assert 1 < len(ids) < 20
    probabilities = np.zeros(30)
    probabilities[ids] = np.exp(row[ids].astype(np.float64) / sampler.temperature)
    tokens = [sample(row, sampler, Noise(77, 0, index)) for index in range(8000)]
    assert set(tokens) == set(ids)
    assert chi_square(tokens, probabilities / probabilities.sum()) > 1e-4


def seen(probabilities: list[float], sampler: Sampler) -> set[int]:
    """All tokens that 400 draws give."""
    row = np.log(np.array(probabilities, np.float32))
    return {sample(row, sampler, Noise(1, 0, index)) for index in range(400)}


def test_truncation_comes_before_temperature() -> None:
    """Filters see the probabilities at temperature 1: a high temperature does not widen them."""
    assert seen([0.5, 0.3, 0.2], Sampler(top_p=0.75, temperature=5)) == {0, 1}
    assert seen([0.5, 0.3, 0.2], Sampler(min_p=0.5, temperature=5)) == {0, 1}
    assert seen([0.5, 0.3, 0.2], Sampler(top_p=0.85, temperature=0.7)) == {0, 1, 2}


def test_top_p_counts_what_top_k_left() -> None:
    """Of 0.4 and 0.3 the first alone is 57 %; of all tokens it would not be half."""
    assert seen([0.4, 0.3, 0.2, 0.1], Sampler(top_k=2, top_p=0.5)) == {0}
    assert seen([0.4, 0.3, 0.2, 0.1], Sampler(top_p=0.5)) == {0, 1}


def test_min_p_does_not_change_what_top_p_counts() -> None:
    """Top-p comes first: the tokens that min-p drops are part of the whole."""
    assert seen([0.4, 0.3, 0.15, 0.15], Sampler(min_p=0.6, top_p=0.6)) == {0, 1}


@many
@given(seeds)
def test_greedy_ties_go_to_the_lowest_id(seed: int) -> None:
    """Temperature 0 takes the first of the largest, whatever the filters."""
    row = row_with_ties(seed)
    sampler = truncations(seed).updated({"temperature": 0.0})
    wanted = row.tolist().index(max(row.tolist()))
    assert sample(row, sampler, Noise(seed, 0, 0)) == wanted


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300, 5e-324])
def test_cold_is_greedy(temperature: float) -> None:
    """Temperatures near 0 overflow nothing and take the top, or one of those that share it."""
    row = np.array([0.0, 2.0, 2.0, -INF, 1.0], np.float32)
    assert {sample(row, Sampler(temperature=temperature), Noise(0, 0, i)) for i in range(50)} == {
        1,
        2,
    }
    row[2] = 1.75
    assert {sample(row, Sampler(temperature=temperature), Noise(0, 0, i)) for i in range(50)} == {1}


@many
@given(seeds, st.integers(-500, 500), st.booleans())
def test_a_constant_does_not_matter(seed: int, constant: int, wide: bool) -> None:
    """Adding a number to the row (one that adds exactly) gives the same tokens."""
    row, sampler = row_with_ties(seed, 1500 if wide else None), truncations(seed)
    assume(survivors(row, sampler) is not None)
    for index in range(5):
        noise = Noise(seed, 1, index)
        assert sample(row + np.float32(constant), sampler, noise) == sample(row, sampler, noise)


@settings(many, max_examples=200)
@given(seeds, st.integers(1, 90))
def test_largest_equals_a_sort(seed: int, k: int) -> None:
    """The k largest by a sort, ties to the lower id, ascending, without -inf."""
    row = row_with_ties(seed) * np.float32(np.random.default_rng(seed).choice([0.1, 1, 30, 1e37]))
    order = sorted(np.flatnonzero(row > -INF).tolist(), key=lambda v: (-row[v], v))
    assert largest(row, k).tolist() == sorted(order[:k])


def test_largest_of_logits_at_the_end_of_float32() -> None:
    """Neither the largest nor the lowest float overflows on the way down."""
    most = float(np.finfo(np.float32).max)
    assert largest(np.array([-most, -INF, -most], np.float32), 2).tolist() == [0, 2]
    assert largest(np.array([-most, most, 0], np.float32), 2).tolist() == [1, 2]
    assert largest(np.array([-INF, 1, -INF], np.float32), 3).tolist() == [1]


def as_llama_cpp(logits: list[float], sampler: Sampler, counts: Mapping[int, int]) -> list[float]:
    """Logit bias, then penalties, written as llama.cpp's loops over candidates."""
    for token, bias in sampler.logit_bias.items():
        if token < len(logits):
            logits[token] += bias
    for token, count in counts.items():
        if logits[token] <= 0:
            logits[token] *= sampler.repetition_penalty
        else:
            logits[token] /= sampler.repetition_penalty
        logits[token] -= count * sampler.frequency_penalty + (count > 0) * sampler.presence_penalty
    return logits


def penalties(rng: np.random.Generator, n_vocab: int) -> tuple[Sampler, dict[int, int]]:
    """Random penalties and biases, and a completion's counts."""
    sampler = Sampler(
        repetition_penalty=float(rng.choice([1.0, 1.3, 0.8])),
        presence_penalty=float(rng.choice([0.0, 0.5, -0.5])),
        frequency_penalty=float(rng.choice([0.0, 0.2, -1.0])),
        logit_bias={int(t): float(rng.normal()) for t in rng.integers(0, n_vocab + 5, 3)},
    )
    ids = rng.integers(0, n_vocab, rng.integers(0, 8)).tolist()
    return sampler, {token: int(rng.integers(1, 5)) for token in ids}


@many
@given(seeds)
def test_at_alpha_zero_penalties_equal_llama_cpp(seed: int) -> None:
    """With the engine's shift, a row in any normalisation is penalised as the base's logits are."""
    rng = np.random.default_rng(seed)
    base, tuned, reference = (3 * rng.normal(size=(3, 1, 20))).astype(np.float32)
    base[0, rng.integers(20)] = -INF
    sampler, counts = penalties(rng, 20)
    fused = fuse(base, [tuned], [reference], FusionSettings(0.0))
    wanted = as_llama_cpp(base[0].tolist(), sampler, counts)
    log_z, base_z = float(fused.log_z[0]), float(log_sum_exp(base)[0])
    same = adjust(fused.logits[0], sampler, counts, shift=base_z - log_z)
    np.testing.assert_allclose(same, wanted, rtol=0, atol=1e-5)
    normalised = adjust(fused.logprobs[0], sampler, counts, shift=base_z)
    np.testing.assert_allclose(normalised + base_z, wanted, rtol=0, atol=1e-5)


@many
@given(seeds)
def test_adjust_leaves_its_row_alone(seed: int) -> None:
    """The row is copied where something changes, and returned itself where nothing does."""
    rng = np.random.default_rng(seed)
    sampler, counts = penalties(rng, 20)
    row = rng.normal(size=20).astype(np.float32)
    before = row.copy()
    assert adjust(row, sampler, counts) is not row
    np.testing.assert_array_equal(row, before)
    unbiased = sampler.updated({"logit_bias": {}})
    assert (adjust(row, unbiased, counts) is row) == (not counts or not unbiased.has_penalties)


def test_logit_bias() -> None:
    """Biases add to their tokens; ids that the vocabulary lacks are ignored."""
    row = np.array([0.0, 1.0, 2.0], np.float32)
    biased = adjust(row, Sampler(logit_bias={0: 5.5, 2: -1.0, 3: 9.0}), {})
    assert biased.tolist() == [5.5, 1.0, 1.0]
    assert adjust(row, Sampler(logit_bias={7: 1.0}), {}).tolist() == [0.0, 1.0, 2.0]
    banned = adjust(row, Sampler(logit_bias={2: -100.0}), {})
    assert sample(banned, Sampler(temperature=0.0), Noise(0, 0, 0)) == 1


def test_a_choice_is_another_text() -> None:
    """Seed, choice and index each change the draw; the same key repeats it."""
    row = np.zeros(1000, np.float32)
    keys = [(s, c, i) for s in range(4) for c in range(4) for i in range(4)]
    tokens = [sample(row, Sampler(), Noise(*key)) for key in keys]
    assert len(set(tokens)) > 50
    assert tokens == [sample(row, Sampler(), Noise(*key)) for key in keys]
