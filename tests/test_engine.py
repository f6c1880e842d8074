"""The round: any n, several sequences, cancellation and prefix reuse give the same text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eftlocal import engine as engine_module
from eftlocal.engine import Engine
from eftlocal.ensemble import Ensemble, Roles
from eftlocal.errors import ContextFull, UsageError
from eftlocal.generation import Generation, Request, TokenEvent
from eftlocal.options import GenerationOptions
from eftlocal.sampling import Noise, adjust, sample

from .fakes import END, FakeContext, logits_after

N_VOCAB = 24
SEEDS = {"base": 11, "tuned": 12, "reference": 13}
Prompts = tuple[tuple[int, ...], ...]


def make_engine(n_sequences: int = 1, drafter: int = 1, **kwargs: Any) -> Engine:
    """Base, tuned, reference over fakes; the base's rows are wider by three padding ids."""
    contexts = [
        FakeContext(seed, N_VOCAB + 3 * (role == "base"), n_sequences=n_sequences, **kwargs)
        for role, seed in SEEDS.items()
    ]
    roles = Roles(base=0, experts=((1, 2),), drafters=(drafter,))
    return Engine(Ensemble(contexts, roles, N_VOCAB), frozenset({END}))


def run(engine: Engine, request: Request) -> tuple[list[int], list[float]]:
    """All tokens and log-probs of one request."""
    events = list(engine.stream(request))
    return [e.token for e in events], [e.logprob for e in events]


def random_request(rng: np.random.Generator) -> Request:
    """Prompts of different lengths per context, and settings of every kind."""
    prompts = tuple(
        tuple(int(t) for t in rng.integers(3, N_VOCAB, rng.integers(1, 50))) for _ in SEEDS
    )
    options = GenerationOptions(
        alpha=float(rng.choice([0.0, 0.5, 1.0, 1.7, -0.5])),
        temperature=float(rng.choice([0.0, 0.6, 1.0, 2.0])),
        top_k=int(rng.choice([0, 1, 5])),
        top_p=float(rng.choice([0.5, 0.9, 1.0])),
        min_p=float(rng.choice([0.0, 0.1])),
        repetition_penalty=float(rng.choice([1.0, 1.3])),
        presence_penalty=float(rng.choice([0.0, 0.5])),
        frequency_penalty=float(rng.choice([0.0, 0.2])),
        logit_bias={5: 1.5} if rng.random() < 0.3 else {},
        seed=int(rng.integers(1000)),
        max_tokens=int(rng.integers(1, 40)),
    )
    return Request(prompts, options)


def with_draft(request: Request, n: int) -> Request:
    """The same request, deciding up to n tokens a round."""
    return replace(request, options=request.options.updated({"draft": n}))


def recompute(request: Request) -> tuple[list[int], list[float]]:
    """The same text without engine, ensemble or caches: every row from its whole prefix."""
    options = request.options
    tokens: list[int] = []
    logprobs: list[float] = []
    for index in range(options.max_tokens):
        base, tuned, reference = (
            logits_after([*prompt, *tokens], seed, width)[:N_VOCAB].astype(np.float64)
            for prompt, seed, width in zip(
                request.prompts, SEEDS.values(), (N_VOCAB + 3, N_VOCAB, N_VOCAB), strict=True
            )
        )
        fused = base + float(options.alpha) * (tuned - reference)
        log_z = np.log(np.exp(fused).sum())
        shift = float(np.log(np.exp(base).sum()) - log_z)
        counts = {token: tokens.count(token) for token in tokens}
        row = adjust(fused.astype(np.float32), options, counts, shift)
        token = sample(row, options, Noise(options.seed, request.choice, index))
        tokens.append(token)
        logprobs.append(float(fused[token] - log_z))
        if token == END:
            break
    return tokens, logprobs


@pytest.mark.parametrize("setting", range(200))
def test_every_n_gives_the_same_text(setting: int) -> None:
    """Text and log-probs with n = 1 to 8 equal a recomputation that knows no cache."""
    request = random_request(np.random.default_rng(setting))
    tokens, logprobs = recompute(request)
    for n in range(1, 9):
        engine = make_engine(drafter=setting % 3)
        got_tokens, got_logprobs = run(engine, with_draft(request, n))
        assert got_tokens == tokens
        np.testing.assert_allclose(got_logprobs, logprobs, atol=1e-5)


def test_drafts_are_used() -> None:
    """A draft of four saves decodes of the big models, and the events say what was drafted."""
    request = Request(((3, 4, 5),) * 3, GenerationOptions(max_tokens=60, logit_bias={END: -50}))
    plain, drafting = make_engine(), make_engine()
    run(plain, request)
    events = list(drafting.stream(with_draft(request, 4)))
    decodes = [engine.ensemble.contexts[0].n_decodes for engine in (plain, drafting)]  # type: ignore[attr-defined]
    assert decodes[1] < 0.8 * decodes[0]
    assert 0 < sum(event.from_draft for event in events) < len(events)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_perfect_drafter_is_never_wrong(temperature: float) -> None:
    """Where all three models are one, every draft is accepted, also under penalties."""
    contexts = [FakeContext(5, N_VOCAB) for _ in SEEDS]
    engine = Engine(Ensemble(contexts, Roles(0, ((1, 2),), (1,)), N_VOCAB), frozenset({END}))
    options = GenerationOptions(
        temperature=temperature,
        repetition_penalty=1.5,
        presence_penalty=1.0,
        frequency_penalty=0.7,
        logit_bias={END: -50},
        max_tokens=60,
        draft=6,
    )
    generation = engine.submit(Request(((3, 4, 5),) * 3, options))
    while generation.finish_reason is None:
        engine.step()
    assert generation.accepted == generation.drafted == 50


def interleaved(engine: Engine, requests: list[Request]) -> list[list[int]]:
    """Tokens of several requests that run at once."""
    generations = [engine.submit(request) for request in requests]
    while any(generation.finish_reason is None for generation in generations):
        engine.step()
    return [generation.tokens for generation in generations]


@pytest.mark.parametrize("setting", range(30))
def test_neighbours_change_nothing(setting: int) -> None:
    """Four interleaved generations over two sequences equal the four alone."""
    rng = np.random.default_rng(1000 + setting)
    requests = [with_draft(random_request(rng), int(rng.integers(1, 9))) for _ in range(4)]
    together = interleaved(make_engine(n_sequences=2, n_batch=40), requests)
    assert together == [run(make_engine(), request)[0] for request in requests]


def cancel_in_prefill(engine: Engine, generation: Generation) -> None:
    """After two of five chunks of the prompt."""
    engine.step()
    engine.step()
    generation.cancel()


def cancel_between_rounds(engine: Engine, generation: Generation) -> None:
    """After the fifth token or a few more."""
    while len(generation.tokens) < 5:
        engine.step()
    engine.cancel(generation)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("cancel", [cancel_in_prefill, cancel_between_rounds])
def test_cancel_leaves_clean_caches(cancel: Callable[[Engine, Generation], None], n: int) -> None:
    """After a cancelled generation the next one gives the text of a fresh engine."""
    options = GenerationOptions(max_tokens=30, draft=n, logit_bias={END: -50})
    prompt = tuple(range(3, 23)) * 8
    engine = make_engine()
    generation = engine.submit(Request((prompt,) * 3, options))
    cancel(engine, generation)
    engine.step()
    assert generation.finish_reason == "cancelled"
    request = Request(((*prompt[:70], 9, 9),) * 3, options)
    assert run(engine, request) == run(make_engine(), request)


@pytest.mark.parametrize("stop_at", range(1, 12))
def test_cancel_while_drafting(stop_at: int) -> None:
    """A cancel from inside a decode of the drafter ends the round and leaves clean caches."""
    options = GenerationOptions(max_tokens=30, draft=6, logit_bias={END: -50})
    request = Request(((3, 4, 5),) * 3, options)
    engine = make_engine()
    generation = engine.submit(request)
    drafter = engine.ensemble.contexts[1]
    assert isinstance(drafter, FakeContext)
    submit = drafter.submit

    def submit_and_cancel(blocks: Any) -> Any:
        if drafter.n_decodes == stop_at:
            generation.cancel()
        return submit(blocks)

    drafter.submit = submit_and_cancel  # type: ignore[method-assign]
    while generation.finish_reason is None:
        engine.step()
    drafter.submit = submit  # type: ignore[method-assign]
    assert generation.finish_reason == "cancelled"
    tokens, _ = run(make_engine(), request)
    assert generation.tokens == tokens[: len(generation.tokens)]
    assert run(engine, request)[0] == tokens


@pytest.mark.parametrize("can_rewind", [True, False])
def test_prefix_reuse_equals_a_cold_start(can_rewind: bool) -> None:
    """A second turn gives the text of a cold start; only its new tokens are evaluated."""
    options = GenerationOptions(max_tokens=12, draft=3, logit_bias={END: -50})
    prompt = tuple(range(3, 23)) * 3
    engine = make_engine(can_rewind=can_rewind)
    first, _ = run(engine, Request((prompt,) * 3, options))
    second = Request(((*prompt, *first, 7, 8),) * 3, options)
    before = [c.n_evaluated for c in engine.ensemble.contexts]  # type: ignore[attr-defined]
    generation = engine.submit(second)
    while not generation.tokens:
        engine.step()
    after = [c.n_evaluated for c in engine.ensemble.contexts]  # type: ignore[attr-defined]
    assert max(np.subtract(after, before)) <= 3 + 3
    assert generation.cached_tokens == len(prompt) + len(first) - 1
    while generation.finish_reason is None:
        engine.step()
    assert generation.tokens == run(make_engine(), second)[0]


def test_models_that_cannot_rewind_start_again() -> None:
    """Where the cache is not a prefix of the new prompt it is filled anew."""
    options = GenerationOptions(max_tokens=12, draft=3)
    engine = make_engine(can_rewind=False)
    run(engine, Request(((3, 4, 5, 6),) * 3, options))
    request = Request(((3, 4, 9),) * 3, options)
    assert run(engine, request) == run(make_engine(), request)


def test_a_callback_ends_the_generation_inside_the_round() -> None:
    """on_token stops after the same token for every n, and the next text is unharmed."""
    for n in (1, 2, 5, 8):
        engine, seen = make_engine(), list[int]()

        def third(event: TokenEvent, seen: list[int] = seen) -> bool:
            seen.append(event.token)
            return len(seen) == 3

        options = GenerationOptions(max_tokens=30, draft=n, logit_bias={END: -50})
        request = Request(((3, 4, 5),) * 3, options, on_token=third)
        tokens, _ = run(engine, request)
        assert tokens == seen
        assert len(seen) == 3
        request = replace(request, on_token=None)
        assert run(engine, request) == run(make_engine(), request)


@pytest.mark.parametrize("n", [1, 5])
def test_the_end_of_the_context_ends_the_text(n: int) -> None:
    """Without max_tokens a text fills the smallest context exactly, and says so."""
    engine = make_engine(n_ctx=40)
    options = GenerationOptions(draft=n, logit_bias={END: -50})
    generation = engine.submit(Request(((3,) * 10, (4,) * 15, (5,) * 12), options))
    while generation.finish_reason is None:
        engine.step()
    assert len(generation.tokens) == 25
    assert generation.finish_reason == "length"
    assert generation.context_full


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_evaluated() -> None:
    """The error says how many tokens there are and how many fit."""
    engine = make_engine(n_ctx=40)
    with pytest.raises(ContextFull, match=r"40 tokens.*holds 40"):
        engine.submit(Request(((3,), (3,) * 40, (3,)), GenerationOptions()))
    assert all(c.n_evaluated == 0 for c in engine.ensemble.contexts)  # type: ignore[attr-defined]


@pytest.mark.parametrize("prompt", [(), (3, N_VOCAB), (-1,)])
def test_prompts_of_foreign_ids_are_refused(prompt: tuple[int, ...]) -> None:
    """Empty prompts and ids of padding or beyond never reach a model."""
    with pytest.raises(UsageError):
        make_engine().submit(Request((prompt,) * 3, GenerationOptions()))


def test_a_failing_model_ends_the_generation_and_spares_the_engine() -> None:
    """After an error in a decode the engine still gives the text of a fresh one."""
    engine = make_engine()
    request = Request(((3, 4, 5),) * 3, GenerationOptions(max_tokens=9, draft=3))
    context = engine.ensemble.contexts[2]
    submit = context.submit
    context.submit = lambda blocks: 1 / 0  # type: ignore
    with pytest.raises(ZeroDivisionError):
        list(engine.stream(request))
    context.submit = submit  # type: ignore[method-assign]
    assert run(engine, request) == run(make_engine(), request)


def test_reading_a_prompt_is_reported() -> None:
    """Progress begins with what is cached and ends with all but the last token, in order."""
    seen: list[tuple[int, int]] = []
    engine = make_engine()
    run(engine, Request(((3, 4, 5) * 5,) * 3, GenerationOptions(max_tokens=1)))
    options = GenerationOptions(max_tokens=1)
    prompt = (3, 4, 5) * 30
    request = Request((prompt,) * 3, options, on_prefill=lambda *done: seen.append(done))
    run(engine, request)
    assert seen[0] == (15, 89)
    assert seen[-1] == (89, 89)
    assert seen == sorted(seen)
    assert len(seen) == 4


def test_alternatives_are_the_likeliest() -> None:
    """top_logprobs reports the k largest log-probs in order, the greedy token first."""
    options = GenerationOptions(temperature=0, max_tokens=5, top_logprobs=4)
    request = Request(((3, 4, 5),) * 3, options)
    for event in make_engine().stream(request):
        assert event.top[0] == (event.token, event.logprob)
        assert [p for _, p in event.top] == sorted((p for _, p in event.top), reverse=True)
        assert len(event.top) == 4


def test_the_number_of_threads_follows_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for once in a while, in the middle of a generation, and set everywhere."""
    said = iter([3, 1, 2])
    contexts = [FakeContext(seed) for seed in (1, 2, 3)]
    ensemble = Ensemble(contexts, Roles(0, ((1, 2),), (1,)), N_VOCAB)
    engine = Engine(ensemble, frozenset({END}), threads=lambda: next(said))
    clock = [1000.0]
    monkeypatch.setattr(engine_module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    engine._threads_asked = clock[0]
    engine.submit(Request(((3, 4, 5),) * 3, GenerationOptions(draft="off")))
    threads = []
    for _ in range(6):
        engine.step()
        threads.append([context.threads for context in contexts])
        clock[0] += 0.15
    assert threads == [[n] * 3 for n in (0, 0, 3, 3, 1, 1)]
