"""What the benchmark measures and computes; how long anything takes decides nothing here."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import eftlocal
from eftlocal.alpha import AlphaSettings, search_alpha
from eftlocal.bench import SECTIONS
from eftlocal.bench.floors import (
    Record,
    block_seconds,
    empty_caches,
    prefill_seconds,
    replay_seconds,
    role_of,
)
from eftlocal.bench.fusion_cost import draw_row, papers_grid
from eftlocal.bench.resident import measure_apart
from eftlocal.bench.run import Target, run
from eftlocal.bench.subject import (
    PLAIN,
    Subject,
    block_cost,
    round_seconds,
)
from eftlocal.bench.timing import QUICK, interleaved, ratio
from eftlocal.context import Block
from eftlocal.drafting import expected_tokens
from eftlocal.errors import BackendError

from .conftest import LARGE, SMALL, Trio

PROMPT = tuple(range(300, 320))


@pytest.fixture(scope="module")
def model(trio: Trio) -> Iterator[eftlocal.FusedModel]:
    """The random trio, loaded."""
    with eftlocal.load(**trio._asdict(), threads=1, ctx=256) as loaded:
        yield loaded


@given(acceptance=st.floats(0, 1), n=st.integers(1, 6))
def test_expected_tokens_is_the_mean_over_all_outcomes(acceptance: float, n: int) -> None:
    """Enumerating which drafts are accepted gives the same mean: one more than the run of them."""
    mean = 0.0
    for outcome in itertools.product((True, False), repeat=n - 1):
        probability = math.prod(acceptance if taken else 1 - acceptance for taken in outcome)
        mean += probability * (1 + len(list(itertools.takewhile(bool, outcome))))
    assert expected_tokens(acceptance, n) == pytest.approx(mean)


def test_a_round_costs_the_drafters_steps_and_the_others_blocks() -> None:
    """Three rows: three steps of the drafter, blocks of three between what was measured."""
    base, small = {1: 10.0, 2: 12.0, 4: 20.0}, {1: 1.0, 2: 1.5, 4: 2.0}
    assert block_cost(base, 3) == 16
    assert round_seconds((base, small, small), 1, 3) == 3 * 1 + 16 + 1.75
    assert round_seconds((base, small, small), 1, 1) == 12


def test_kinds_are_measured_in_turns() -> None:
    """Every kind once a round, the order turns, and the first round is left out."""
    calls: list[str] = []

    def measure(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    kinds = {name: lambda name=name: measure(name) for name in "abc"}
    seen = interleaved(kinds, 2)
    assert "".join(calls) == "abcbcacab"
    assert seen == {"a": (6.0, 8.0), "b": (4.0, 9.0), "c": (5.0, 7.0)}


def test_ratios_are_taken_within_rounds() -> None:
    """A machine that becomes slower does not change the ratio of what is measured in turns."""
    assert ratio((1.0, 10.0, 100.0), (2.0, 20.0, 200.0)) == 0.5


def test_effort_fits_the_speed_of_the_model() -> None:
    """Many tokens of a fast model, few of a slow one."""
    assert QUICK.tokens(1e-6) == QUICK.many
    assert QUICK.tokens(100) == QUICK.few
    assert QUICK.tokens(QUICK.seconds / 20) == 20
    assert QUICK.prompt_tokens(QUICK.prompt_seconds / 50) == 50
    assert QUICK.prompt_tokens(1e-6) == QUICK.prompt


def test_bare_calls_leave_the_model_as_it_was(model: eftlocal.FusedModel) -> None:
    """After all kinds of floors, the model says what it said before."""
    before = model.complete(PROMPT, max_tokens=12, **PLAIN)
    record = Record((PROMPT,) * 3, before.tokens)
    assert replay_seconds(model, [record, record]) > 0
    assert prefill_seconds(model, PROMPT) > 0
    with empty_caches(model) as contexts:
        for context in contexts:
            assert all(block_seconds(context, PROMPT, n) > 0 for n in (1, 16, 2))
    after = model.complete(PROMPT, max_tokens=12, **PLAIN)
    assert (after.tokens, after.logprobs) == (before.tokens, before.logprobs)
    assert after.timings.cached_tokens == 0


def test_a_floor_that_could_not_decode_is_no_floor(model: eftlocal.FusedModel) -> None:
    """A token that does not exist makes llama_decode fail, which is reported."""
    record = Record((PROMPT,) * 3, (300, 10**6, 300))
    with pytest.raises(BackendError, match="decoded again"):
        replay_seconds(model, [record])
    assert model.complete(PROMPT, max_tokens=2, **PLAIN).tokens


def test_roles_are_named(model: eftlocal.FusedModel, trio: Trio) -> None:
    """Contexts are called what they do, those with several parts by all of them."""
    assert [role_of(model, i) for i in range(3)] == ["base", "tuned", "reference"]
    tuned = [trio.tuned, trio.base]
    with eftlocal.load(
        base=trio.base, tuned=tuned, reference=trio.reference, threads=1, ctx=256
    ) as several:
        names = [role_of(several, i) for i in range(len(several.engine.ensemble.contexts))]
    assert names == ["base, base tuned", "tuned tuned", "reference"]


def test_a_workload_is_decoded_and_recorded(model: eftlocal.FusedModel) -> None:
    """As many tokens as were asked for, each with what it takes to decode it again."""
    decoded = Subject(model, QUICK, random=True).decode(20, **PLAIN)
    assert decoded.tokens == sum(len(record.tokens) for record in decoded.records) == 20
    assert decoded.rounds == 20 and decoded.drafted == 0
    assert all(len(record.prompts) == 3 for record in decoded.records)


def test_surprise_estimates_entropy(model: eftlocal.FusedModel) -> None:
    """The mean of -log F of sampled tokens comes near the entropy that their rows have."""
    decoded = Subject(model, QUICK, random=True).decode(200, **{**PLAIN, "temperature": 1.0})
    entropies, surprises = [], []
    for record in decoded.records:
        base, tuned, reference = _rows(model, [*record.prompts[0], *record.tokens[:-1]])
        logits = (base + tuned - reference)[-len(record.tokens) :]
        shifted = logits - logits.max(axis=1, keepdims=True)
        logprobs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        entropies += list(-(np.exp(logprobs) * logprobs).sum(axis=1))
        surprises += list(-logprobs[np.arange(len(logits)), record.tokens])
    assert decoded.surprise == pytest.approx(np.mean(surprises), abs=1e-3)
    error = np.std(np.subtract(surprises, entropies)) / len(surprises) ** 0.5
    assert abs(np.mean(entropies) - decoded.surprise) < 4 * error


def _rows(model: eftlocal.FusedModel, tokens: list[int]) -> NDArray[np.float64]:
    """Logits (contexts, tokens, V) of a text."""
    model.engine.ensemble.forget(0)
    chunks = [tokens[i : i + 16] for i in range(0, len(tokens), 16)]
    rows = [
        np.concatenate([context.decode([Block(0, c, len(c))]).astype(np.float64) for c in chunks])
        for context in model.engine.ensemble.contexts
    ]
    model.engine.ensemble.forget(0)
    return np.array(rows)


def test_memory_is_what_the_files_and_sizes_say(trio: Trio) -> None:
    """Weights by the files' tensors, caches by layers and heads; the rest is not negative."""
    files = {role: str(path) for role, path in trio._asdict().items()}
    seen = measure_apart({**files, "threads": 1, "ctx": 512, "cache_type": "f32"})
    tensors = [tensor for path in trio for tensor in GGUFReader(path).tensors]
    assert seen["weights_bytes"] == sum(tensor.n_bytes for tensor in tensors)
    width = {
        shape: shape.layers * shape.width // shape.heads * shape.kv_heads
        for shape in (LARGE, SMALL)
    }
    assert seen["cache_bytes"] == 2 * 4 * 512 * (width[LARGE] + 2 * width[SMALL])
    if seen["resident_bytes"] is not None:
        assert seen["resident_bytes"] > (seen["python_bytes"] or 0)


def test_a_failing_process_is_one_line(tmp_path: object) -> None:
    """What went wrong in the process of its own is reported."""
    with pytest.raises(BackendError, match=r"failed: .*no such file"):
        measure_apart({"base": "no.gguf", "tuned": "no.gguf", "reference": "no.gguf"})


def test_the_papers_grid_is_the_grid_of_the_search() -> None:
    """Two ways to the same alphas and losses on rows of the generator."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        base, tuned, reference = draw_row(500, rng)
        found = search_alpha(base, [tuned], [reference], AlphaSettings("grid"))
        alpha, loss = papers_grid(base, tuned, reference)
        assert found.alpha[0, 0] == pytest.approx(alpha)
        assert found.loss[0] == pytest.approx(loss, rel=1e-3, abs=1e-4)


def test_every_section_runs(trio: Trio) -> None:
    """All tables have as many cells as columns, and numbers that can be."""
    files = {role: str(path) for role, path in trio._asdict().items()}
    seen: list[str] = []
    target = Target("random", {**files, "threads": 1, "ctx": 256}, {"seed": 1}, random=True)
    report = run(target, tuple(SECTIONS), QUICK, seen.append)
    assert seen == list(report.tables) == list(SECTIONS)
    for table in itertools.chain(*report.tables.values()):
        assert all(len(row) == len(table.columns) for row in table.rows)
    content = json.loads(json.dumps(report.to_json()))["sections"]
    floor, *others = content["decoding"][0]["rows"]
    assert floor["share_of_floor"] is None
    assert all(row["share_of_floor"] > 0 for row in others)
    drafts = {row["draft"]: row for row in content["drafting"][0]["rows"]}
    assert drafts["off"]["tokens_per_round"] == 1
    assert 1 < drafts["16"]["tokens_per_round"] <= 16
    cold, continued = content["turns"][0]["rows"]
    assert continued["evaluated_tokens"] < cold["evaluated_tokens"] / 4
