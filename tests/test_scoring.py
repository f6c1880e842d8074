"""Scores of prompts (echo), and the order in which prompts are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eftlocal.engine import Engine
from eftlocal.errors import ContextFull, UsageError
from eftlocal.generation import Generation, Request
from eftlocal.options import GenerationOptions

from .conftest import Trio
from .fakes import logits_after
from .rescoring import load, rescore
from .test_engine import N_VOCAB, SEEDS, make_engine

PROMPTS = st.lists(st.integers(3, N_VOCAB - 1), min_size=1, max_size=60).map(tuple)


def scored(prompt: tuple[int, ...], generate: bool = True, **options: object) -> Request:
    """A request that wants scores of a prompt that all three contexts share."""
    settings = GenerationOptions(**options)  # type: ignore[arg-type]
    return Request((prompt,) * 3, settings, echo=True, generate=generate)


def finish(engine: Engine, *requests: Request) -> list[Generation]:
    """Run requests side by side to their ends."""
    generations = [engine.submit(request) for request in requests]
    while any(generation.finish_reason is None for generation in generations):
        engine.step()
    return generations


def recompute(prompt: tuple[int, ...], alpha: float) -> list[float]:
    """Log F of every token but the first in float64, from whole prefixes."""
    logprobs = []
    for i in range(1, len(prompt)):
        base, tuned, reference = (
            logits_after(prompt[:i], seed, width)[:N_VOCAB].astype(np.float64)
            for seed, width in zip(SEEDS.values(), (N_VOCAB + 3, N_VOCAB, N_VOCAB), strict=True)
        )
        fused = base + alpha * (tuned - reference)
        logprobs.append(float(fused[prompt[i]] - np.log(np.exp(fused).sum())))
    return logprobs


@given(prompts=st.lists(PROMPTS, min_size=1, max_size=4), alpha=st.sampled_from([0.0, 0.7, 1.5]))
def test_scores_equal_a_recomputation(prompts: list[tuple[int, ...]], alpha: float) -> None:
    """Whatever else runs beside it, and in whatever chunks it is read, a prompt's scores are F."""
    engine = make_engine(n_sequences=2, n_batch=32)
    plain = Request(((5, 6, 7),) * 3, GenerationOptions(max_tokens=9))
    requests = [scored(prompt, alpha=alpha, max_tokens=3) for prompt in prompts]
    *generations, _ = finish(engine, *requests, plain)
    for prompt, generation in zip(prompts, generations, strict=True):
        assert [event.token for event in generation.scores] == list(prompt[1:])
        got = [event.logprob for event in generation.scores]
        np.testing.assert_allclose(got, recompute(prompt, alpha), atol=1e-5)
        alone = make_engine().submit(replace(scored(prompt), echo=False))
        assert not alone.scores


@pytest.mark.parametrize("can_rewind", [True, False])
def test_scoring_does_not_change_the_completion(can_rewind: bool) -> None:
    """The tokens after a scored prompt are those after one that was only read."""
    request = scored((4, 5, 6, 7, 8), max_tokens=12, seed=3, alpha="dynamic")
    engine = make_engine(can_rewind=can_rewind)
    twice = finish(engine, request)[0], finish(engine, request)[0]
    plain = finish(make_engine(can_rewind=can_rewind), replace(request, echo=False))[0]
    assert twice[0].tokens == twice[1].tokens == plain.tokens
    assert twice[0].scores == twice[1].scores
    assert twice[1].cached_tokens == 0


def test_the_likeliest_tokens_come_with_each_score() -> None:
    """The top of a row is that of a recomputation, and agrees with the token's own score."""
    prompt = (4, 9, 6, 7)
    generation = finish(make_engine(), scored(prompt, alpha=0.0, top_logprobs=20))[0]
    for i, event in enumerate(generation.scores, 1):
        base = logits_after(prompt[:i], SEEDS["base"], N_VOCAB + 3)[:N_VOCAB]
        assert [token for token, _ in event.top] == list(np.argsort(-base, kind="stable")[:20])
        own = dict(event.top).get(event.token)
        assert own is None or own == event.logprob


def test_only_scoring_generates_nothing() -> None:
    """The generation ends with its prompt, and its sequence can be used again."""
    engine = make_engine()
    for prompt in ((3, 4, 5), (3,)):
        generation = finish(engine, scored(prompt, generate=False))[0]
        assert generation.finish_reason == "length"
        assert len(generation.scores) == len(prompt) - 1
        assert not generation.tokens


@pytest.mark.parametrize("every", [0, 1, 3])
def test_alpha_is_searched_as_often_as_asked(every: int) -> None:
    """alpha_every counts scores from the first one."""
    prompt = tuple(range(3, 15))
    always = finish(make_engine(), scored(prompt, alpha="dynamic", generate=False))[0]
    seldom = finish(
        make_engine(), scored(prompt, alpha="dynamic", generate=False, alpha_every=every)
    )[0]
    for i, event in enumerate(seldom.scores):
        searched = i - i % every if every else 0
        assert event.alpha == always.scores[searched].alpha


def test_what_cannot_be_scored_is_refused() -> None:
    """Prompts that differ between contexts have no common scores; a full context is an error."""
    engine = make_engine()
    with pytest.raises(UsageError, match="share"):
        engine.submit(Request(((3, 4), (3, 4), (4, 4)), GenerationOptions(), echo=True))
    with pytest.raises(ContextFull):
        engine.submit(scored((3,) * 256))


def test_real_models_are_scored_as_llama_scores_them(trio: Trio) -> None:
    """`FusedModel.score` on GGUFs equals fused logits of three `Llama` objects."""
    with load(trio, alpha=0.8) as model:
        ids = model.tokenize("The quick brown fox jumps over the lazy dog. " * 4, special=True)
        scores = model.score(ids)
        again = model.complete(ids, echo=True, max_tokens=2, temperature=0)
    logprobs = rescore(trio, [ids], 0.8)
    wanted = [logprobs[i, token] for i, token in enumerate(ids[1:])]
    np.testing.assert_allclose([event.logprob for event in scores], wanted, atol=0.02)
    assert again.prompt_scores == scores
    assert len(again.tokens) == 2


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    """While a long prompt is read, a short one has its first token after at most three steps."""
    engine = make_engine(n_sequences=3, n_ctx=4096, n_batch=32)
    options = GenerationOptions(max_tokens=4)
    long = engine.submit(Request(((3, 4) * 1000,) * 3, options))
    for _ in range(3):
        engine.step()
    for prompt in ((5, 6, 7), (6, 7, 8), (8,)):
        short = engine.submit(Request((prompt,) * 3, options))
        steps = 0
        while not short.tokens:
            engine.step()
            steps += 1
        assert steps <= 3
    assert not long.last


def test_a_long_prompt_is_read_in_the_end() -> None:
    """Short prompts that keep coming do not hold up a long one for ever."""
    engine = make_engine(n_sequences=2, n_ctx=4096, n_batch=32)
    long = engine.submit(Request(((3, 4) * 200,) * 3, GenerationOptions(max_tokens=1)))
    steps = 0
    other: Generation | None = None
    while not long.tokens and steps < 1000:
        if other is None or other.finish_reason:
            prompt = tuple(np.random.default_rng(steps).integers(3, N_VOCAB, 60).tolist())
            other = engine.submit(Request((prompt,) * 3, GenerationOptions(max_tokens=1)))
        engine.step()
        steps += 1
    assert steps < 4 * 400 / 8
