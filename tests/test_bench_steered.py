"""Synthetic acceptance: what is steered, and what is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eftlocal
from eftlocal.bench.acceptance import acceptance, all_costs, best_size
from eftlocal.bench.steered import Script, Steered, SteeredModel, Steering
from eftlocal.bench.subject import PLAIN, Subject, round_seconds
from eftlocal.bench.timing import QUICK
from eftlocal.context import Block
from eftlocal.drafting import expected_tokens
from eftlocal.options import MAX_DRAFT

from .conftest import Trio
from .fakes import FakeContext

PROMPT = tuple(range(300, 310))
IDS = np.arange(5, 24)


@pytest.fixture(scope="module")
def model(trio: Trio) -> Iterator[eftlocal.FusedModel]:
    """The random trio, loaded."""
    with eftlocal.load(**trio._asdict(), threads=1, ctx=256) as loaded:
        yield loaded


def test_proposals_are_right_as_often_as_wished() -> None:
    """Within five deviations, one after the other independently; decisions stay the same."""
    n = 20_000
    scripts = {a: Script.draw(IDS, a, n, seed=3) for a in (0.0, 0.5, 0.8, 1.0)}
    assert len({script.decided for script in scripts.values()}) == 1
    assert Script.draw(IDS, 0.5, n, seed=4).decided != scripts[0.5].decided
    for a, script in scripts.items():
        assert set(script.decided) | set(script.proposed) <= set(IDS.tolist())
        right = np.equal(script.decided, script.proposed)
        deviation = (a * (1 - a) / n) ** 0.5
        assert abs(right.mean() - a) <= 5 * deviation
        both = right[1:] & right[:-1]
        assert abs(both.mean() - a * a) <= 5 * 2 * deviation


@given(seed=st.integers(0, 10**6), n=st.integers(1, 16), n_tokens=st.integers(1, 60))
def test_rounds_are_those_of_the_rule(seed: int, n: int, n_tokens: int) -> None:
    """A round ends after n tokens, at a wrong proposal, or at the end."""
    script = Script.draw(IDS, 0.7, 100, seed)
    rounds, rows = 1, 0
    for place in range(7, 7 + n_tokens):
        if rows == n or (rows > 0 and script.decided[place - 1] != script.proposed[place - 1]):
            rounds, rows = rounds + 1, 0
        rows += 1
    assert script.rounds(7, n_tokens, n) == rounds


def test_rounds_approach_the_formula() -> None:
    """Tokens a round over a long script are what the mean over all outcomes says."""
    script = Script.draw(IDS, 0.8, 60_001, seed=0)
    for n in (1, 2, 5, 16):
        tokens_per_round = 60_000 / script.rounds(0, 60_000, n)
        assert tokens_per_round == pytest.approx(expected_tokens(0.8, n), rel=0.03)


def test_only_two_logits_of_a_row_change() -> None:
    """In every row that was asked for, by the tokens that its sequence then holds."""
    script = Script.draw(IDS, 0.5, 60, seed=1)
    assert any(a != b for a, b in zip(script.decided, script.proposed, strict=True))
    blocks = [Block(0, [3, 4, 5, 6], 3), Block(1, [7], 1), Block(2, [8, 9], 0)]
    plain, inner = (FakeContext(1, n_sequences=3) for _ in range(2))
    steered = Steered(inner, Steering(script, 50.0), is_reference=False)
    for context in (plain, steered):
        context.decode([Block(1, [1, 2], 1)])
        context.submit(blocks)
    found, expected = steered.rows(), plain.rows()
    for row, place in enumerate((2, 3, 4, 3)):
        decided, proposed = script.decided[place], script.proposed[place]
        expected[row, decided] = 42.0
        expected[row, proposed] = 50.0
    assert np.array_equal(found, expected)
    steered.set_threads(3)
    steered.rewind(0, 2)
    assert steered.tokens(0) == [3, 4]
    assert np.array_equal(steered.decode([Block(0, [5], 1)])[0], expected[1])


@pytest.mark.parametrize("draft", [2, 7, MAX_DRAFT, "auto", "off"])
@pytest.mark.parametrize("seed", [1, 2])
def test_decoding_follows_the_script(
    model: eftlocal.FusedModel, draft: str | int, seed: int
) -> None:
    """The text is what was decided, and rounds and drafts are those of the rule."""
    steered = SteeredModel(model, 0.7, PROMPT)
    script = steered.script(seed)
    completion = steered.complete(50, draft, seed)
    assert completion.tokens == script.decided[len(PROMPT) :][:50]
    if draft != "auto":
        n = 1 if draft == "off" else int(draft)
        assert completion.timings.rounds == script.rounds(len(PROMPT), 50, n)
    model.engine.ensemble.forget(0)


def test_the_base_may_draft(trio: Trio) -> None:
    """Down-scaling: where the base proposes, the acceptance is the same."""
    with eftlocal.load(**trio._asdict(), threads=1, ctx=256) as model:
        roles = model.engine.ensemble.roles
        model.engine.ensemble.roles = replace(roles, drafters=(roles.base,))
        steered = SteeredModel(model, 0.7, PROMPT)
        completion = steered.complete(50, 6, 5)
        assert completion.tokens == steered.script(5).decided[len(PROMPT) :][:50]
        assert completion.timings.rounds == steered.script(5).rounds(len(PROMPT), 50, 6)


def test_the_model_is_left_as_it_was(model: eftlocal.FusedModel) -> None:
    """After the section it says what it said before."""
    before = model.complete(PROMPT, max_tokens=12, **PLAIN)
    (table,) = acceptance(Subject(model, QUICK, random=True), (0.6,))
    after = model.complete(PROMPT, max_tokens=12, **PLAIN)
    assert (after.tokens, after.logprobs) == (before.tokens, before.logprobs)
    (row,) = table.to_json()["rows"]
    assert row["acceptance_percent"] == 60
    assert abs(row["accepted_percent"] - 60) < 30
    assert 1 <= row["best_n"] <= MAX_DRAFT


def test_without_roles_of_their_own_nothing_is_measured(trio: Trio) -> None:
    """One model as base and reference: the table says why it is empty."""
    shared = trio._replace(reference=trio.base)
    with eftlocal.load(**shared._asdict(), threads=1, ctx=256) as model:
        (table,) = acceptance(Subject(model, QUICK, random=True))
    assert table.rows == () and "Not measured" in table.notes[0]


def test_the_best_size_is_the_best_of_all() -> None:
    """Sizes between powers of two count: here blocks of three cost no more than those of one."""
    base = {n: 10.0 if n <= 3 else 10.0 + 20 * n for n in range(1, MAX_DRAFT + 1)}
    small = dict.fromkeys(base, 1.0)
    costs = (base, small, small)
    assert best_size(0.8, costs, 1) == 3
    assert best_size(0.0, costs, 1) == 1
    rates = [expected_tokens(0.8, n) / round_seconds(costs, 1, n) for n in base]
    assert max(rates) == rates[2]


def test_every_size_of_a_round_is_measured(model: eftlocal.FusedModel) -> None:
    """Three contexts, 1 to MAX_DRAFT tokens each."""
    costs = all_costs(Subject(model, QUICK, random=True))
    assert [list(one) for one in costs] == [list(range(1, MAX_DRAFT + 1))] * 3
    for one in costs:
        blocks = [one[n] for n in range(2, MAX_DRAFT + 1)]
        assert one[1] > 0 and blocks[0] > 0
        assert blocks == sorted(blocks), "a block may be padded, so a smaller one costs no more"
