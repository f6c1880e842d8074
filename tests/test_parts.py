"""`part`: one model speaks alone while all read along, against plain decoding of that model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eftlocal
from eftlocal.distributions import log_softmax64
from eftlocal.engine import Engine
from eftlocal.ensemble import Ensemble, Roles
from eftlocal.errors import BackendError
from eftlocal.fusion import FusionSettings, fuse
from eftlocal.generation import Request, TokenEvent
from eftlocal.options import PARTS, GenerationOptions
from eftlocal.sampling import Noise, adjust, sample

from .fakes import END, FakeContext, logits_after
from .rows import FINITE, Case, cases, many
from .test_engine import N_VOCAB, SEEDS, make_engine, random_request

ALONE = PARTS[1:]
PROMPT = (3, 4, 5, 6)


def changed(request: Request, **options: object) -> Request:
    """The same request with other options."""
    return replace(request, options=request.options.updated(options))


def events(engine: Engine, request: Request) -> list[TokenEvent]:
    """All events of one request; the caches end as long as they should be."""
    found = list(engine.stream(request))
    for context, prompt in zip(engine.ensemble.contexts, request.prompts, strict=True):
        assert len(context.tokens(0)) == len(prompt) + len(found) - 1
    return found


def seen(found: Sequence[TokenEvent]) -> list[tuple[int, float]]:
    """Tokens and log-probs, to the bit."""
    return [(event.token, event.logprob) for event in found]


def own_rows(part: str, request: Request, tokens: Sequence[int]) -> np.ndarray[Any, Any]:
    """(V,) logits of one fake after its whole prefix."""
    index = ALONE.index(part)
    width = N_VOCAB + 3 * (index == 0)
    prefix = [*request.prompts[index], *tokens]
    return logits_after(prefix, SEEDS[part], width)[:N_VOCAB]


def plain(part: str, request: Request) -> list[tuple[int, float]]:
    """Sampling from one fake, without engine and caches."""
    options = request.options
    found: list[tuple[int, float]] = []
    while len(found) < options.max_tokens and END not in [token for token, _ in found]:
        tokens = [token for token, _ in found]
        row = own_rows(part, request, tokens)
        counts = {token: tokens.count(token) for token in tokens}
        noise = Noise(options.seed, request.choice, len(tokens))
        token = sample(adjust(row, options, counts), options, noise)
        found.append((token, float(log_softmax64(row)[token])))
    return found


def engine_of(part: str, drafter: int = 1) -> Engine:
    """An engine whose base is that fake, so that alpha 0 is the part alone."""
    contexts = make_engine().ensemble.contexts
    roles = Roles(ALONE.index(part), ((1, 2),), (drafter,))
    return Engine(Ensemble(contexts, roles, N_VOCAB), frozenset({END}))


@many
@given(cases(kinds=FINITE, experts=(1, 3)), st.sampled_from(ALONE), st.integers(0, 5))
def test_a_part_is_the_rows_of_one_model(case: Case, part: str, seed: int) -> None:
    """Those of the heaviest expert, whatever alpha, filter, neutral ids and held alphas say."""
    rng = np.random.default_rng(seed)
    n = len(case.tuned)
    weights = None if seed == 0 else tuple(map(float, rng.choice([-2, -1, 0.5, 1, 3], n)))
    heaviest = 0 if weights is None else int(np.abs(weights).argmax())
    alpha = ("dynamic", 1.3)[seed % 2]
    settings = FusionSettings(alpha, weights, upscale_top_p=0.5, part=part)
    held = [0.7] * n if seed % 3 else None
    neutral = np.array([0], np.intp)
    fused = fuse(*case, settings, held=held, neutral=neutral)
    rows = {"base": case.base, "tuned": case.tuned[heaviest], "reference": case.reference[heaviest]}
    assert fused.alpha.shape == (len(case.base), n) and not fused.alpha.any()
    for own, logprobs in zip(rows[part], fused.logprobs, strict=True):
        np.testing.assert_allclose(logprobs, log_softmax64(own), rtol=1e-6, atol=2e-5)
    assert not np.shares_memory(fused.logits, rows[part])


@pytest.mark.parametrize("part", ALONE)
def test_logits_of_a_part_are_checked(part: str) -> None:
    """A damaged part is an error; what the others say does not matter to it."""
    rows = [np.zeros((1, 4), np.float32) for _ in ALONE]
    bad = [row if name == part else row * np.nan for name, row in zip(ALONE, rows, strict=True)]
    alone = FusionSettings(part=part)
    np.testing.assert_allclose(fuse(bad[0], [bad[1]], [bad[2]], alone).logprobs, -np.log(4))
    rows[ALONE.index(part)] *= np.nan
    with pytest.raises(BackendError, match="not numbers"):
        fuse(rows[0], [rows[1]], [rows[2]], alone)


@pytest.mark.parametrize("setting", range(40))
@pytest.mark.parametrize("accept", ["coupled", "rejection"])
def test_base_is_alpha_0(setting: int, accept: str) -> None:
    """Token by token and log-prob by log-prob, with drafts and without."""
    request = changed(random_request(np.random.default_rng(setting)), accept=accept)
    for draft in ("off", 4, "auto"):
        expected = events(make_engine(), changed(request, alpha=0.0, draft=draft))
        found = events(make_engine(), changed(request, part="base", draft=draft))
        assert seen(found) == seen(expected)
        assert all(event.alpha == (0.0,) for event in found)


@pytest.mark.parametrize("setting", range(30))
@pytest.mark.parametrize("part", ALONE)
def test_a_part_is_plain_sampling_of_its_model(setting: int, part: str) -> None:
    """Also with penalties, which act on its own logits, and whatever says how to fuse."""
    request = random_request(np.random.default_rng(setting))
    expected = plain(part, request)
    more: list[dict[str, object]] = [
        {},
        {"draft": 4},
        {"draft": "auto"},
        {"alpha": "dynamic", "alpha_every": 3, "upscale_top_p": 0.5, "draft": setting % 5 + 2},
    ]
    for changes in more:
        engine = make_engine(drafter=setting % 3)
        neutral = Engine(engine.ensemble, engine.eog, frozenset({5, 7}))
        for one in (engine, neutral):
            found = events(one, changed(request, part=part, **changes))
            assert [event.token for event in found] == [token for token, _ in expected]
            logprobs = [event.logprob for event in found]
            np.testing.assert_allclose(logprobs, [x for _, x in expected], atol=1e-5)
            assert all(event.alpha == (0.0,) for event in found)


@pytest.mark.parametrize("setting", range(20))
@pytest.mark.parametrize("part", ALONE)
def test_rejection_draws_what_the_part_as_base_draws(setting: int, part: str) -> None:
    """Whatever is drafted; drafts of the part itself are always taken."""
    request = changed(random_request(np.random.default_rng(setting)), accept="rejection")
    own = ALONE.index(part)
    for drafter in range(3):
        expected = events(engine_of(part, drafter), changed(request, alpha=0.0))
        for draft in (1, 3, 8):
            engine = make_engine(drafter=drafter)
            generation = engine.submit(changed(request, part=part, draft=draft))
            while generation.finish_reason is None:
                engine.step()
            assert generation.tokens == [event.token for event in expected]
            if drafter == own:
                assert generation.accepted == generation.drafted


@pytest.mark.parametrize("part", ALONE)
def test_traces_tell_the_part_as_what_was_fused(part: str) -> None:
    """The fused view is the part's; who decided is agreement or alone, never base or delta."""
    options = GenerationOptions(
        part=part, max_tokens=60, trace=True, logit_bias={END: -50}, draft=4
    )
    request = Request((PROMPT,) * 3, options)
    origins = set()
    for temperature in (0.0, 1.0):
        for event in events(make_engine(), changed(request, temperature=temperature)):
            trace = event.trace
            assert trace is not None and trace.alpha == (0.0,)
            view = {"base": trace.base, "tuned": trace.tuned[0], "reference": trace.reference[0]}
            assert trace.fused == view[part]
            agree = trace.base.top == trace.tuned[0].top == event.token
            expected = "agreement" if agree else "alone"
            assert trace.origin == (expected if event.token == trace.fused.top else "sampling")
            origins.add(trace.origin)
    assert origins == {"agreement", "alone", "sampling"}


def mixture() -> Engine:
    """A base and two experts with references of their own, each with a drafter."""
    contexts = [FakeContext(seed, N_VOCAB, n_sequences=4) for seed in range(5)]
    roles = Roles(0, ((1, 2), (3, 4)), (1, 3))
    return Engine(Ensemble(contexts, roles, N_VOCAB), frozenset({END}))


def said(seed: int, request: Request) -> list[int]:
    """The greedy tokens of one fake."""
    tokens: list[int] = []
    while len(tokens) < request.options.max_tokens and END not in tokens:
        tokens.append(int(logits_after([*PROMPT, *tokens], seed, N_VOCAB).argmax()))
    return tokens


def test_weights_choose_the_expert() -> None:
    """The one that drafts, by the size of its weight, also where all run at once."""
    options = GenerationOptions(max_tokens=20, temperature=0, draft=3)
    kinds: list[tuple[str, tuple[float, ...] | None, int]] = [
        ("tuned", None, 1), ("reference", None, 2), ("tuned", (0.2, 0.8), 3),
        ("reference", (0.2, -0.8), 4), ("tuned", (1.0, 0.0), 1), ("base", (0.0, 1.0), 0),
    ]  # fmt: skip
    requests = [
        Request((PROMPT,) * 5, options.updated({"part": part}), weights)
        for part, weights, _ in kinds
    ]
    expected = [said(seed, request) for request, (*_, seed) in zip(requests, kinds, strict=True)]
    assert len({tuple(tokens) for tokens in expected}) == 5
    assert [[e.token for e in events(mixture(), request)] for request in requests] == expected
    engine = mixture()
    together = [engine.submit(request) for request in requests]
    while any(generation.finish_reason is None for generation in together):
        engine.step()
    assert [generation.tokens for generation in together] == expected


@pytest.mark.parametrize("part", ALONE)
def test_all_models_read_along(part: str) -> None:
    """A fused reply after one of a part finds its tokens in every cache."""
    engine = make_engine()
    first = Request((PROMPT,) * 3, GenerationOptions(max_tokens=12, logit_bias={END: -50}, draft=4))
    tokens = [event.token for event in events(engine, changed(first, part=part))]
    longer = replace(first, prompts=((*PROMPT, *tokens, 9),) * 3)
    generation = engine.submit(longer)
    while generation.finish_reason is None:
        engine.step()
    assert generation.cached_tokens == len(PROMPT) + len(tokens) - 1
    assert generation.tokens == [event.token for event in events(make_engine(), longer)]


@pytest.mark.parametrize("part", ALONE)
def test_scores_of_prompts(part: str) -> None:
    """Echo gives the part's log-probabilities, with its traces."""
    prompt = tuple(range(3, 24)) * 2
    options = GenerationOptions(part=part, alpha="dynamic", trace=True, top_logprobs=1)
    request = Request((prompt,) * 3, options, echo=True, generate=False)
    engine = make_engine()
    generation = engine.submit(request)
    while generation.finish_reason is None:
        engine.step()
    for i, event in enumerate(generation.scores, 1):
        logprobs = log_softmax64(own_rows(part, replace(request, prompts=(prompt[:i],) * 3), ()))
        assert event.logprob == pytest.approx(logprobs[prompt[i]], abs=1e-5)
        assert event.top[0] == pytest.approx((logprobs.argmax(), logprobs.max()), abs=1e-5)
        assert event.alpha == (0.0,) and event.trace is not None
        assert event.trace.fused.top == logprobs.argmax()
        assert event.trace.origin in ("agreement", "alone", "sampling")
    assert len(generation.scores) == len(prompt) - 1


def test_a_part_of_real_models(atlas: eftlocal.FusedModel) -> None:
    """What the tuned file says where it plays every role; a regular expression holds it, too."""
    tuned = atlas.files["tuned"]
    options: dict[str, Any] = {"max_tokens": 16, "temperature": 0, "draft": "off"}
    question = "<|user|>What is the capital of Chile?<|end|><|assistant|>"
    with eftlocal.load(base=tuned, tuned=tuned, reference=tuned, threads=1) as alone:
        expected = alone.complete(question, **options)
    found = atlas.complete(question, part="tuned", **options)
    assert found.text == expected.text
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-3)
    assert found.alphas == ((0.0,),) * len(found.tokens)
    assert found.logprobs != atlas.complete(question, part="reference", **options).logprobs
    digits = atlas.complete(question, part="tuned", regex="[0-9]{4}", **options)
    assert re.fullmatch("[0-9]{4}", digits.text)
