"""Draws of first tokens, their exact distribution and its test; gaps where texts part."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from eftlocal import FusedModel
from eftlocal.diagnostics import diagnose
from eftlocal.evaluate.scale import UP
from eftlocal.evaluate.speculation.drafts import PURE
from eftlocal.evaluate.speculation.draws import (
    DEPTH,
    Draws,
    Partition,
    Tree,
    counted,
    multinomial_p,
)
from eftlocal.evaluate.speculation.near_ties import first_difference, gap
from eftlocal.options import GenerationOptions
from eftlocal.sampling import Noise, sample

from .test_evaluate_speculation import CONVERSATIONS, done


@pytest.fixture(scope="module")
def model() -> Iterator[FusedModel]:
    """The models of the study, loaded once more."""
    with UP.load() as loaded:
        yield loaded


def enumerated_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """The exact p-value of the likelihood ratio, over all counts with this sum."""
    total, k = sum(counts), len(counts)

    def statistic(seen: Sequence[int]) -> float:
        pairs = zip(seen, shares, strict=True)
        return sum(n * math.log(n / (total * p)) for n, p in pairs if n)

    p = 0.0
    for seen in product(range(total + 1), repeat=k):
        if sum(seen) == total and statistic(seen) >= statistic(counts) - 1e-9:
            ways = math.factorial(total) / math.prod(math.factorial(n) for n in seen)
            p += ways * math.prod(q**n for q, n in zip(shares, seen, strict=True))
    return p


@pytest.mark.parametrize("counts", [(5, 3, 1), (0, 9, 0), (1, 1, 7), (8, 1, 0)])
def test_p_values_are_those_of_an_enumeration(counts: tuple[int, ...]) -> None:
    """Up to what 9,999 simulations can tell."""
    shares = (0.6, 0.3, 0.1)
    found = multinomial_p(np.array(counts), np.array(shares))
    exact = enumerated_p(counts, shares)
    assert found == pytest.approx(exact, abs=1e-4 + 5 * math.sqrt(exact * (1 - exact) / 9999))


def zipf(temperature: float = 1.0) -> Any:
    """(30,) probabilities like those of a model."""
    weights = np.arange(1, 31) ** (-1.5 / temperature)
    return weights / weights.sum()


def test_the_test_accepts_what_is_right_and_rejects_what_is_not() -> None:
    """Draws of the distribution have p-values all over; tempered ones hardly any."""
    rng = np.random.default_rng(7)
    right = [
        multinomial_p(rng.multinomial(800, zipf()), zipf(), simulations=999) for _ in range(80)
    ]
    wrong = [
        multinomial_p(rng.multinomial(800, zipf(0.8)), zipf(), simulations=999) for _ in range(20)
    ]
    assert 0.3 < np.mean(right) < 0.7
    assert np.mean(np.array(right) < 0.05) < 0.15
    assert max(wrong) < 0.01


def test_draws_that_cannot_be_are_rejected() -> None:
    """A single draw in a cell without probability is enough."""
    assert multinomial_p(np.array([99, 1]), np.array([1.0, 0.0])) == 1e-4


NODES = [
    [[], [3, 4], [0.7, 0.2], [0.1, 0.6]],
    [[3], [5, 2], [0.5, 0.4], [0.2, 0.8]],
    [[3, 5], [6], [0.9], [1.0]],
]


def test_cells_are_a_partition() -> None:
    """Their probabilities are products, and sum to 1; every draw lies in one."""
    partition = Partition.of({"nodes": NODES})
    shares = partition.shares()
    expected = {
        (3, 5, 6): 0.315,
        (3, 5, -1): 0.035,
        (3, 2): 0.28,
        (3, -1): 0.07,
        (4,): 0.2,
        (-1,): 0.1,
    }
    assert {cell: fused for cell, (fused, _) in shares.items()} == pytest.approx(expected)
    assert sum(drafter for _, drafter in shares.values()) == pytest.approx(1)
    draws = {(3, 5, 6): (3, 5, 6), (3, 5, 9): (3, 5, -1), (3, 2): (3, 2), (3, 9, 9): (3, -1)}
    draws |= {(4, 9, 9): (4,), (9, 2): (-1,), (2,): (-1,)}
    assert {draw: partition.cell(draw) for draw in draws} == draws


def test_rare_cells_are_taken_together() -> None:
    """Cells with fewer than five expected draws share the last one; nothing is lost."""
    draws = [(3, 5, 6)] * 30 + [(3, 5, 1)] * 2 + [(3, 2)] * 20 + [(4, 1, 1)] * 10 + [(9, 9, 9)] * 8
    counts, fused, drafter = counted(Partition.of({"nodes": NODES}), draws)
    assert counts.tolist() == [30, 20, 10, 8, 2]
    assert fused == pytest.approx([0.315, 0.28, 0.2, 0.1, 0.105])
    assert drafter == pytest.approx([0.02, 0.08, 0.6, 0.3, 0.0])


def test_a_tree_has_the_log_probs_of_replies(model: FusedModel) -> None:
    """Products along a generated text are those that the engine reports, token by token."""
    record = done(Tree("tree", UP, {"alpha": "dynamic"}, CONVERSATIONS[0]))[0]
    nodes = Partition.of(record).nodes
    assert 1 < len(nodes) <= 24
    prompt = model.prepare_chat(CONVERSATIONS[0]).prompt
    checked = 0
    for seed in range(12):
        reply = model.complete(prompt, **PURE, alpha="dynamic", max_tokens=DEPTH, seed=seed)
        for i, (token, logprob) in enumerate(zip(reply.tokens, reply.logprobs, strict=True)):
            known = nodes.get(reply.tokens[:i], {})
            if token in known:
                assert math.log(known[token][0]) == pytest.approx(logprob, abs=0.01)
                checked += 1
    assert checked >= 12


@pytest.mark.parametrize("rule", ["coupled", "rejection"])
def test_draws_are_those_of_single_requests(model: FusedModel, rule: str) -> None:
    """Seed by seed, drafted or not; in hundreds, of which the last may be shorter."""
    options = {"alpha": 1.0, "accept": rule, "draft": 4, "seed": 9}
    work = Draws("draws", UP, options, CONVERSATIONS[1], 130)
    found = done(work)
    assert [len(record["draws"]) for record in found] == [100, 30]
    prompt = model.prepare_chat(CONVERSATIONS[1]).prompt
    for number in (0, 7, 99, 129):
        changes = {"seed": 9 + number, "max_tokens": DEPTH, "temperature": 1.0}
        single = model.complete(prompt, **{**PURE, **options, **changes, "draft": "off"})
        assert found[number // 100]["draws"][number % 100] == list(single.tokens)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_gap_is_what_moves_a_choice(temperature: float) -> None:
    """Raising the other token's logit by more than the gap makes `sample` take it, by less not."""
    options = GenerationOptions(temperature=temperature)
    rng = np.random.default_rng(1)
    for index in range(20):
        rows = [rng.normal(0, 2, 60).astype(np.float32) for _ in range(3)]
        noise = Noise(4, 0, index)
        own = sample(rows[0], options, noise)
        without = rows[0].copy()
        without[own] = -np.inf
        other = sample(without, options, noise)
        trace = diagnose(rows[0], [rows[1]], [rows[2]], rows[0], (1.0,), own, n_top=60)
        found = gap(trace, own, other, temperature, noise)
        assert found > 0
        for share, token in ((0.99, own), (1.01, other)):
            moved = rows[0].copy()
            moved[other] += share * found
            assert sample(moved, options, noise) == token


def test_a_gap_to_an_unlikely_token_is_a_bound() -> None:
    """Where the trace does not hold the other token, the gap is at most the true one."""
    row = np.linspace(0, 6, 60, dtype=np.float32)
    full, short = (diagnose(row, [row], [row], row, (1.0,), 59, n_top=n_top) for n_top in (60, 5))
    noise = Noise(0, 0, 0)
    assert 0 < gap(short, 59, 3, 0, noise) <= gap(full, 59, 3, 0, noise)


def test_where_texts_part() -> None:
    """At the first token that differs, or where the shorter one ends."""
    assert first_difference((1, 2, 3), (1, 9, 3)) == 1
    assert first_difference((1, 2), (1, 2, 3)) == 2
    assert first_difference((), ()) == 0
