"""The rejection rule: its law by enumeration, by chi-square, and against biased variants of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eftlocal.acceptance import ACCEPTANCE, RESIDUAL, accept, kept_share, residual, warped
from eftlocal.distributions import Array, Array64
from eftlocal.options import Sampler
from eftlocal.sampling import Noise, sample, survivors

from .fakes import logits_after
from .test_noise import chi_square, correlation, far_below, softmax, steps
from .test_sampling import row_with_ties, truncations
from .test_sampling import survivors as sorted_survivors

N_VOCAB = 12
FUSED, DRAFTER = 11, 12
"""Seeds of the two models of the joint tests."""

N_TEXTS = 12_000
LEAST_P = 1e-4
"""What the p-value of a sound rule is below in one of 10,000 choices of seeds."""

many = settings(deadline=None, derandomize=True, max_examples=150)
seeds = st.integers(0, 2**32 - 1)
Rule = Callable[[Array, Array, Noise], int]


def pair(seed: int) -> tuple[Array, Array]:
    """Rows of drafter and fused: equal, close, unrelated, or equal but for rounding."""
    fused = row_with_ties(seed)
    rng = np.random.default_rng(seed)
    draft = [
        fused,
        (fused + np.round(rng.normal(size=len(fused)))).astype(np.float32),
        row_with_ties(seed + 1, len(fused)),
        np.nextafter(fused, rng.normal(size=len(fused)).astype(np.float32)),
    ][seed % 4]
    return draft, fused


def exact(row: Array, ids: Sequence[int], temperature: float) -> Array64:
    """(V,) probabilities in float64, 0 but for `ids`."""
    masked = np.full(len(row), -math.inf, np.float32)
    masked[list(ids)] = row[list(ids)]
    return softmax(masked, temperature)


@settings(many, max_examples=300)
@given(seeds, st.booleans())
def test_warped_is_the_sorted_reference(seed: int, wide: bool) -> None:
    """The distribution has the survivors of a float64 sort, and their softmax."""
    row, sampler = row_with_ties(seed, 1500 if wide else None), truncations(seed)
    ids = sorted_survivors(row, sampler)
    assume(ids is not None)
    assert ids
    got = warped(row, sampler)
    assert np.flatnonzero(got).tolist() == sorted(ids)
    np.testing.assert_allclose(got, exact(row, ids, sampler.temperature), rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("shape", [far_below, steps])
def test_wide_nuclei_are_the_shortest_that_suffice(
    shape: Callable[[np.random.Generator], Array], top_p: float
) -> None:
    """The likeliest tokens, ties by id, are kept until they reach top-p, however far below."""
    row = shape(np.random.default_rng(3))
    ids = survivors(row, Sampler(top_p=top_p))
    assert ids is not None
    order = np.lexsort((np.arange(len(row)), -row))
    np.testing.assert_array_equal(ids, np.sort(order[: len(ids)]))
    reached = np.cumsum(softmax(row)[order])
    assert reached[len(ids) - 1] >= top_p - 1e-6
    assert len(ids) == 1 or reached[len(ids) - 2] <= top_p + 1e-6


def test_the_token_that_reaches_top_p_is_the_last() -> None:
    """Where two of four equal tokens are exactly enough, a third is not kept, or drawn."""
    row = np.zeros(5, np.float32)
    sampler = Sampler(top_k=4, top_p=0.5)
    drawn = {sample(row, sampler, Noise(0, 0, index)) for index in range(50)}
    assert np.flatnonzero(warped(row, sampler)).tolist() == sorted(drawn) == [0, 1]


@many
@given(seeds)
def test_every_draw_has_a_probability(seed: int) -> None:
    """`sample` draws nothing that `warped` excludes, also where rounding decides what top-p is."""
    row, sampler = row_with_ties(seed), truncations(seed)
    drawn = {sample(row, sampler, Noise(seed, 0, index)) for index in range(60)}
    assert drawn <= set(np.flatnonzero(warped(row, sampler)).tolist())


def law(drafted: Array, fused: Array) -> Array64:
    """(V,) what the rule gives out, summed over every draft and both decisions."""
    shares = np.array([kept_share(drafted, fused, v) for v in range(len(fused))])
    kept = drafted * shares
    ids, weights = residual(drafted, fused)
    total: Array64 = kept.astype(np.float64)
    total[ids] += (1 - kept.sum()) * weights / weights.sum(dtype=np.float64)
    return total


@settings(many, max_examples=400)
@given(seeds)
def test_the_law_is_the_fused_distribution(seed: int) -> None:
    """By enumeration, for rows of every likeness and filters that keep different tokens."""
    draft, fused = (warped(row, truncations(seed)) for row in pair(seed))
    np.testing.assert_allclose(law(draft, fused), fused, atol=1e-6)


@many
@given(seeds)
def test_drafts_are_kept_as_often_as_possible(seed: int) -> None:
    """In all with probability 1 - TV; the residual weighs TV."""
    draft, fused = (warped(row, truncations(seed)) for row in pair(seed))
    distance = np.abs(draft.astype(np.float64) - fused).sum() / 2
    kept = sum(float(p) * kept_share(draft, fused, v) for v, p in enumerate(draft))
    assert abs(kept - (1 - distance)) < 1e-6
    if distance > 1e-6:
        assert abs(float(residual(draft, fused)[1].sum(dtype=np.float64)) - distance) < 1e-6


@many
@given(seeds)
def test_rounding_that_leaves_no_excess_is_harmless(seed: int) -> None:
    """Where D is a little above F everywhere, the second draw is from F itself."""
    fused = warped(row_with_ties(seed), Sampler())
    drafted = fused * np.float32(1 + 1e-6)
    ids, weights = residual(drafted, fused)
    np.testing.assert_array_equal(ids, np.flatnonzero(fused))
    np.testing.assert_array_equal(weights, fused[ids])
    np.testing.assert_allclose(law(drafted, fused), fused, atol=3e-6)


@many
@given(seeds)
def test_a_decision_is_a_kept_draft_or_a_fused_token(seed: int) -> None:
    """It may be drawn from the fused distribution, and says whether it is the draft."""
    draft, fused = pair(seed)
    sampler = truncations(seed)
    allowed = warped(fused, sampler) > 0
    for index in range(20):
        noise = Noise(seed, 0, index)
        drafted = sample(draft, sampler, noise)
        token, is_draft = accept(draft, fused, drafted, sampler, noise)
        assert allowed[token]
        assert is_draft == (token == drafted)
        assert accept(draft, fused, None, sampler, noise) == (token, is_draft)
        assert accept(fused, fused, None, sampler, noise) == (sample(fused, sampler, noise), True)


@many
@given(seeds)
def test_temperature_0_is_greedy(seed: int) -> None:
    """The first of the largest, whatever was drafted."""
    draft, fused = pair(seed)
    sampler = truncations(seed).updated({"temperature": 0.0})
    best = fused.tolist().index(max(fused.tolist()))
    assert np.flatnonzero(warped(fused, sampler)).tolist() == [best]
    for token in range(len(fused)):
        noise = Noise(seed, 0, token)
        assert accept(draft, fused, token, sampler, noise) == (best, best == token)
    noise = Noise(seed, 0, 0)
    assert accept(draft, fused, None, sampler, noise) == (best, best == int(draft.argmax()))


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 5e-324])
def test_cold_is_greedy(temperature: float) -> None:
    """Temperatures near 0 overflow nothing."""
    draft, fused = np.array([[0, 1, 3, -math.inf], [2, 9, -math.inf, 1]], np.float32)
    sampler = Sampler(temperature=temperature)
    for index in range(20):
        assert accept(draft, fused, None, sampler, Noise(0, 0, index)) == (1, False)


def test_filters_that_share_no_token() -> None:
    """No draft is kept, and the fused distribution among its own survivors is drawn from."""
    fused = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    sampler = Sampler(top_k=2)
    decided = [accept(fused[::-1], fused, None, sampler, Noise(3, 0, i)) for i in range(4000)]
    assert not any(is_draft for _, is_draft in decided)
    assert chi_square([token for token, _ in decided], np.array([4, 3, 0, 0]) / 7) > LEAST_P


@pytest.mark.parametrize("streams", [(0, ACCEPTANCE), (0, RESIDUAL), (ACCEPTANCE, RESIDUAL)])
def test_streams_are_independent(streams: tuple[int, int]) -> None:
    """Neither bits of a token nor the uniforms of one stream tell those of another."""
    noises = [[Noise(4, 0, index).on(stream) for index in range(20_000)] for stream in streams]
    token = np.array([0], np.intp)
    bits, uniforms = (
        [np.array([float(draw(noise)) for noise in noises[i]]) for i in (0, 1)]
        for draw in (lambda noise: noise.bits(token)[0], Noise.uniform)
    )
    for left, right in product([bits[0], uniforms[0]], [bits[1], uniforms[1]]):
        assert abs(correlation(left, right)) < 4
    assert chi_square((uniforms[1] * 40).astype(int).tolist(), np.full(40, 1 / 40)) > LEAST_P


def test_a_stream_does_not_take_over_bits() -> None:
    """What one stream has computed for the whole vocabulary is not another's."""
    noise = Noise(1, 2, 3)
    first = noise.all_bits(1000).copy()
    assert (noise.on(RESIDUAL).all_bits(1000) == first).mean() < 0.01
    np.testing.assert_array_equal(noise.on(RESIDUAL).on(0).all_bits(1000), first)


@cache
def rows_after(prefix: tuple[int, ...]) -> tuple[Array, Array]:
    """(V,) rows after some tokens; the drafter's is much flatter, so that many drafts fail."""
    flat = np.float32(0.3)
    return flat * logits_after(prefix, DRAFTER, N_VOCAB), logits_after(prefix, FUSED, N_VOCAB)


def joint(sampler: Sampler) -> Array64:
    """(V * V * V,) exact probabilities of the first three tokens."""
    total = np.zeros((N_VOCAB,) * 3)
    for prefix in product(range(N_VOCAB), repeat=2):
        rows = [rows_after(prefix[:n])[1] for n in range(3)]
        first, second, third = (
            exact(row, sorted_survivors(row, sampler) or (), sampler.temperature) for row in rows
        )
        total[prefix] = first[prefix[0]] * second[prefix[1]] * third
    return total.ravel()


def texts(rule: Rule, n_texts: int = N_TEXTS) -> list[int]:
    """The first three tokens of many seeds, each three as one number."""
    numbers = []
    for seed in range(n_texts):
        prefix: tuple[int, ...] = ()
        for index in range(3):
            prefix = (*prefix, rule(*rows_after(prefix), Noise(seed, 0, index)))
        numbers.append(int(np.ravel_multi_index(prefix, (N_VOCAB,) * 3)))
    return numbers


SAMPLERS = {
    "plain": Sampler(),
    "filters": Sampler(top_k=8, top_p=0.9, min_p=0.02, temperature=0.8),
    "hot": Sampler(temperature=2.0),
}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_first_three_tokens_follow_the_fused_model(sampler: Sampler) -> None:
    """Jointly, by a chi-square test against the exact product of conditionals."""
    seen = texts(lambda draft, fused, noise: accept(draft, fused, None, sampler, noise)[0])
    assert chi_square(seen, joint(sampler)) > LEAST_P


def textbook(streams: tuple[int, int, int], stop_below: float = 0.0) -> Rule:
    """The rule in float64 with any streams; drafts below a probability are not checked."""

    def decide(draft: Array, fused: Array, noise: Noise) -> int:
        drafted, wanted = softmax(draft), softmax(fused)
        token = sample(draft, Sampler(), noise.on(streams[0]))
        if drafted[token] < stop_below:
            return sample(fused, Sampler(), noise.on(RESIDUAL))
        decision, second = (noise.on(stream) for stream in streams[1:])
        # Sharing the draft's stream means to use the bits that its race has looked at.
        uniform = decision.uniform() if decision.stream else decision.bits(FIRST)[0] * 2.0**-32
        if uniform * drafted[token] < wanted[token]:
            return token
        excess = np.maximum(wanted - drafted, 0)
        if not second.stream:
            return sample(np.log(excess + 1e-30).astype(np.float32), Sampler(), second)
        reached = np.cumsum(excess)
        return int((reached < second.uniform() * reached[-1]).sum())

    return decide


FIRST = np.array([0], np.intp)
BIASED: dict[str, dict[str, Any]] = {
    "the decision shares the draft's noise": {"streams": (0, 0, RESIDUAL)},
    "the second draw shares the draft's noise": {"streams": (0, ACCEPTANCE, 0)},
    "the second draw shares the decision's noise": {"streams": (0, ACCEPTANCE, ACCEPTANCE)},
    "all share one": {"streams": (0, 0, 0)},
    "drafting stops at unlikely tokens": {
        "streams": (0, ACCEPTANCE, RESIDUAL),
        "stop_below": 0.12,
    },
}


def test_decisions_equal_the_textbook() -> None:
    """Token for token, with the same three streams."""
    rule = textbook((0, ACCEPTANCE, RESIDUAL))
    plain = texts(lambda draft, fused, noise: accept(draft, fused, None, Sampler(), noise)[0], 2000)
    assert plain == texts(rule, 2000)


@pytest.mark.parametrize("variant", BIASED.values(), ids=BIASED)
def test_biased_rules_would_be_seen(variant: dict[str, Any]) -> None:
    """Shared streams, and a draft that stops because of what was drawn, fail the same test."""
    assert chi_square(texts(textbook(**variant)), joint(Sampler())) < LEAST_P
