"""Sections with several generations, the speed gap, and cache settings; timing decides nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eftlocal
from eftlocal.bench import SECTIONS
from eftlocal.bench.batching import COUNTS, Crowd, _step_batch, parallel_seconds
from eftlocal.bench.caches import cache_settings, caches, seconds_after
from eftlocal.bench.floors import Record
from eftlocal.bench.gap import alone_seconds, recovered
from eftlocal.bench.run import run
from eftlocal.bench.subject import PLAIN, Subject
from eftlocal.bench.target import Seen, Subjects, Target, over_loads
from eftlocal.bench.timing import QUICK, Effort
from eftlocal.context import Block
from eftlocal.errors import BackendError, ModelFileError
from eftlocal.llama import LlamaContext
from eftlocal.llama.library import lib

from .conftest import Trio

PROMPT = tuple(range(300, 320))
SHORT = Effort(rounds=1, seconds=0.01, few=4, many=8, depth=64)


def target_of(trio: Trio, **runtime: object) -> Target:
    """The random trio as what is measured."""
    files = {role: str(path) for role, path in trio._asdict().items()}
    return Target("random", {**files, "threads": 1, "ctx": 256, **runtime}, {}, random=True)


@pytest.fixture(scope="module", params=["off", "on"])
def model(trio: Trio, request: pytest.FixtureRequest) -> Iterator[eftlocal.FusedModel]:
    """The random trio, loaded for four sequences, with separate and with unified caches."""
    given = {"threads": 1, "ctx": 256, "parallel": 4, "kv_unified": request.param}
    with eftlocal.load(**trio._asdict(), **given) as loaded:
        yield loaded


def test_a_bare_step_is_a_decode_of_every_sequence(model: eftlocal.FusedModel) -> None:
    """The same logits as those of the context's own decode, and the caches as they were."""
    held = [list(PROMPT[: 4 + 3 * sequence]) for sequence in range(4)]
    ids = range(400, 450)
    lengths = [len(tokens) for tokens in held]
    for context in model.engine.ensemble.contexts:
        for sequence, tokens in enumerate(held):
            context.rewind(sequence, len(context.tokens(sequence)))
            context.decode([Block(sequence, tokens, 0)])
    for n in (1, 3, 4):
        assert parallel_seconds(model, ids, n, steps=5, repeats=2) > 0
    for context in model.engine.ensemble.contexts:
        assert isinstance(context, LlamaContext)
        memory = lib.llama_get_memory(context.handle)
        for sequence in range(4):
            assert context.tokens(sequence) == held[sequence]
            assert lib.llama_memory_seq_pos_max(memory, sequence) == lengths[sequence] - 1
        batch, kept = _step_batch(ids, lengths)
        tokens = list(kept[2])
        assert len(set(tokens)) == 4
        assert lib.llama_decode(context.handle, batch) == 0
        shape = (4, context.n_vocab)
        bare = np.ctypeslib.as_array(lib.llama_get_logits(context.handle), shape).copy()
        for sequence in range(4):
            lib.llama_memory_seq_rm(memory, sequence, lengths[sequence], -1)
        own = context.decode([Block(i, [tokens[i]], 1) for i in range(4)])
        assert np.array_equal(bare, own)
        assert np.abs(bare[0] - bare[1]).max() > 0.1
        for sequence in range(4):
            context.rewind(sequence, 1)


@pytest.mark.parametrize("draft", ["off", "auto"])
def test_as_many_generations_run_as_are_asked_for(
    model: eftlocal.FusedModel, draft: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round decides tokens of exactly so many, none reads its prompt again, all end."""
    crowd = Crowd(Subject(model, SHORT, random=True), draft, random=True)
    crowd.seconds(4, 1)
    owners: list[set[int]] = []
    generations = []
    step, submit = model.engine.step, model.engine.submit

    def watched_step() -> list[object]:
        events = step()
        owners.append({id(owner) for owner, _ in events})
        return list(events)

    def watched_submit(request: eftlocal.generation.Request) -> object:
        generations.append(submit(request))
        return generations[-1]

    monkeypatch.setattr(model.engine, "step", watched_step)
    monkeypatch.setattr(model.engine, "submit", watched_submit)
    for n in (1, 2, 4):
        owners.clear()
        assert crowd.seconds(n, 40) > 0
        assert max(map(len, owners)) == n
        # However few run at once, all of them have their turn.
        seeds = {g.request.options.seed for g in generations}
        assert seeds == set(range(4))
    assert len(generations) > 7
    assert all(g.finish_reason is not None for g in generations)
    read = [len(g.request.prompts[0]) - 1 - g.cached_tokens for g in generations]
    assert read == [0] * len(generations)
    settings = {(g.request.options.seed, g.request.options.temperature) for g in generations}
    assert len(settings) == 4
    assert len({len(g.request.prompts[0]) for g in generations}) == 4


def test_batching_reports_every_number_of_generations(trio: Trio) -> None:
    """Both kinds of caches, and columns that agree with each other."""
    report = run(target_of(trio), ("batching",), SHORT)
    (table,) = json.loads(json.dumps(report.to_json()))["sections"]["batching"]
    rows = table["rows"]
    assert [row["generations"] for row in rows] == [*COUNTS, *COUNTS]
    assert {row["caches"] for row in rows} == {"separate", "unified"}
    for row in rows:
        share = row["times_one"] / row["allowed_times_one"]
        assert row["share_of_allowed"] == pytest.approx(share)
        one = next(r for r in rows if (r["caches"], r["generations"]) == (row["caches"], 1))
        allowed = row["generations"] * one["bare_step_ms"] / row["bare_step_ms"]
        assert row["allowed_times_one"] == pytest.approx(allowed)


@given(small=st.floats(1e-4, 1), slower=st.floats(1.01, 50), share=st.floats(-1, 2))
def test_a_recovered_share_lies_between_the_two_rates(
    small: float, slower: float, share: float
) -> None:
    """A rate put at a share of the gap is found there again."""
    large = small * slower
    rate = 1 / large + share * (1 / small - 1 / large)
    if rate > 0:
        assert recovered([1 / rate], [small], [large]) == pytest.approx(share, abs=1e-6)


def test_there_is_no_gap_where_the_small_model_is_not_faster() -> None:
    """Nothing is said then."""
    assert recovered([1.0], [2.0], [2.0]) is None
    assert recovered([1.0], [3.0], [2.0]) is None


def test_a_model_alone_decodes_the_whole_completion(
    model: eftlocal.FusedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every token of the record after its prompt, in one context, which is empty afterwards."""
    tokens = model.complete(PROMPT, max_tokens=6, **PLAIN).tokens
    record = Record((PROMPT,) * 3, tokens)
    calls: list[tuple[int, int]] = []
    decode = lib.llama_decode

    def watched(handle: int, batch: lib.llama_batch) -> int:
        calls.append((handle, batch.n_tokens))
        return int(decode(handle, batch))

    monkeypatch.setattr(lib, "llama_decode", watched)
    assert alone_seconds(model, [record], 1) > 0
    context = model.engine.ensemble.contexts[1]
    assert isinstance(context, LlamaContext)
    assert calls == [(context.handle, len(PROMPT) - 1), *[(context.handle, 1)] * len(tokens)]
    assert lib.llama_memory_seq_pos_max(lib.llama_get_memory(context.handle), 0) == -1


def test_decoding_after_a_depth_is_decoding_there(model: eftlocal.FusedModel) -> None:
    """The prompt of that many tokens is read once, and as many tokens follow as are measured."""
    subject = Subject(model, SHORT, random=True)
    assert seconds_after(subject, 50) > 0
    seen = []
    complete = model.complete

    def watched(prompt: tuple[int, ...], **options: object) -> eftlocal.Completion:
        seen.append(complete(prompt, **options))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "complete", watched)
        assert seconds_after(subject, 50) > 0
    assert {done.timings.prompt_tokens for done in seen} == {50}
    assert {done.timings.cached_tokens for done in seen} == {49}
    assert sum(len(done.tokens) for done in seen) == SHORT.few


def test_caches_take_what_their_types_say(trio: Trio) -> None:
    """Blocks of 32 numbers take 64 bytes in f16, 34 in q8_0, 18 in q4_0."""
    (table,) = caches(target_of(trio), SHORT)
    content = {row["settings"]: row for row in table.to_json()["rows"]}
    assert set(content) <= set(cache_settings()) and len(content) >= 3
    f16 = content["f16, flash attention auto"]
    for name, row in content.items():
        share = {"f16": 1, "q8_0": 34 / 64, "q4_0": 18 / 64}[name.split(",")[0]]
        assert row["cache_mib"] == pytest.approx(share * f16["cache_mib"])
        assert row["short_token_ms"] > 0 and row["long_token_ms"] > 0
    refused = [note for note in table.notes if "refuses" in note]
    assert len(refused) == len(cache_settings()) - len(content)


def test_loads_come_together_or_alone(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones are measured in turns, large ones one by one; what is refused is named."""
    groups: list[tuple[str, ...]] = []

    def measure(subjects: Subjects) -> Seen:
        groups.append(tuple(subjects))
        return {(name, "n_ctx"): (float(s.model.n_ctx),) for name, s in subjects.items()}

    impossible: dict[str, object] = {"cache_type": "q4_0", "flash_attention": "off"}
    settings: dict[str, dict[str, object]] = {
        "a": {"ctx": 256},
        "x": impossible,
        "b": {"ctx": 512},
        "c": {},
    }
    expected = {("a", "n_ctx"): (256.0,), ("b", "n_ctx"): (512.0,), ("c", "n_ctx"): (256.0,)}
    assert over_loads(target_of(trio), QUICK, settings, measure) == (expected, ("x",))
    monkeypatch.setattr("eftlocal.bench.target._BYTES_TOGETHER", 0)
    assert over_loads(target_of(trio), QUICK, settings, measure) == (expected, ("x",))
    assert groups == [("a", "b", "c"), ("a",), ("b",), ("c",)]
    with pytest.raises(BackendError):
        over_loads(target_of(trio), QUICK, {"x": impossible}, measure)
    with pytest.raises(ModelFileError):
        over_loads(target_of(trio, base="no.gguf"), QUICK, settings, measure)


def test_the_threads_that_contexts_use_are_reported(trio: Trio) -> None:
    """The number given, or what loading chose, not the cores that the process may use."""
    report = run(target_of(trio, threads=3), ("gap",), SHORT)
    assert report.facts["threads"] == "3"
    names = [row["kind"] for row in report.tables["gap"][0].to_json()["rows"]]
    assert names == ["tuned alone", "base alone", "fused, --draft off", "fused, --draft auto"]


def test_new_sections_are_listed() -> None:
    """In the order in which they run."""
    order = list(SECTIONS)
    wanted = ["gap", "batching", "caches", "fusion"]
    assert [name for name in order if name in wanted] == wanted
    assert all(len(text) < 70 for text in itertools.chain(SECTIONS.values()))
