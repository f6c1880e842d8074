"""Searched alphas in the round: drafting, neighbours and the update interval change no row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from eftlocal.alpha import AlphaSettings, search_alpha
from eftlocal.distributions import Array
from eftlocal.engine import Engine
from eftlocal.ensemble import Ensemble, Roles
from eftlocal.generation import Request, TokenEvent
from eftlocal.options import GenerationOptions
from eftlocal.sampling import Noise, adjust, sample

from .fakes import END, FakeContext, logits_after
from .reference_alpha import Row, filtered_base, log_softmax

N_VOCAB = 24
BASE, EXPERTS = 11, ((12, 13), (14, 13), (15, 16))
"""Seeds of the fakes; the second expert shares the first one's reference."""

MODES = ("dynamic", "grid", "one-sided", "joint")
EVERY = (1, 3, 10, 0)
DRAFTS = (2, 4, 8)


@dataclass(frozen=True)
class Setting:
    """One combination of what the engine is asked for."""

    experts: int
    options: GenerationOptions
    weights: tuple[float, ...] | None
    neutral: frozenset[int] = frozenset()

    @property
    def seeds(self) -> list[int]:
        """Of every context, each once, the base first."""
        return list(dict.fromkeys([BASE, *sum(EXPERTS[: self.experts], ())]))

    @property
    def request(self) -> Request:
        """Prompts of different lengths per context."""
        prompts = tuple((3 + i, *range(4, 8 + 3 * i)) for i in range(len(self.seeds)))
        return Request(prompts, self.options, self.weights)

    def engine(self, n_sequences: int = 1, **kwargs: Any) -> Engine:
        """Over fakes; the base's rows are wider by three padding ids."""
        contexts = [
            FakeContext(seed, N_VOCAB + 3 * (seed == BASE), n_sequences=n_sequences, **kwargs)
            for seed in self.seeds
        ]
        index = {seed: i for i, seed in enumerate(self.seeds)}
        pairs = tuple((index[t], index[q]) for t, q in EXPERTS[: self.experts])
        ensemble = Ensemble(contexts, Roles(0, pairs, (1,) * len(pairs)), N_VOCAB)
        return Engine(ensemble, frozenset({END}), self.neutral)

    def drafting(self, n: int) -> Setting:
        """The same, deciding up to n tokens a round."""
        return replace(self, options=self.options.updated({"draft": n}))


def make_setting(index: int) -> Setting:
    """A random combination: mode, range, interval, weights, filter, sampler."""
    rng = np.random.default_rng(index)
    experts = int(rng.integers(1, 4))
    options = GenerationOptions(
        alpha=MODES[index % 4],
        alpha_low=float(rng.choice([0.0, 0.0, -0.5])),
        alpha_high=float(rng.choice([2.0, 2.0, 1.5])),
        alpha_every=EVERY[(index // 4) % 4],
        upscale_top_p=float(rng.choice([1.0, 1.0, 0.9, 0.5])),
        temperature=float(rng.choice([0.0, 0.7, 1.0])),
        repetition_penalty=float(rng.choice([1.0, 1.0, 1.3])),
        logit_bias={END: -50.0} if index % 3 else {},
        seed=int(rng.integers(1000)),
        max_tokens=int(rng.integers(12, 26)),
    )
    weights = None
    if index % 2 == 0:
        weights = tuple(float(w) for w in rng.choice([0.5, 1.0, 0.2], experts))
    return Setting(experts, options, weights)


def run(engine: Engine, request: Request) -> list[TokenEvent]:
    """All events of one request."""
    return list(engine.stream(request))


def seen(events: Sequence[TokenEvent]) -> list[tuple[int, float, tuple[float, ...]]]:
    """What must not depend on the draft."""
    return [(event.token, event.logprob, event.alpha) for event in events]


def rows_at(setting: Setting, tokens: Sequence[int]) -> tuple[Array, Array, Array]:
    """(V,), (E, V), (E, V) logits after the prompts and these tokens, without any cache."""
    row = {
        seed: logits_after([*prompt, *tokens], seed, N_VOCAB + 3 * (seed == BASE))[:N_VOCAB]
        for seed, prompt in zip(setting.seeds, setting.request.prompts, strict=True)
    }
    pairs = EXPERTS[: setting.experts]
    return row[BASE], np.array([row[t] for t, _ in pairs]), np.array([row[q] for _, q in pairs])


def recompute(setting: Setting) -> list[tuple[int, float, tuple[float, ...]]]:
    """The same events without engine and caches; the alpha is held between its updates."""
    options, every = setting.options, setting.options.alpha_every
    search = AlphaSettings(
        str(options.alpha), options.alpha_low, options.alpha_high, setting.weights
    )
    share = setting.weights or (1 / setting.experts,) * setting.experts
    tokens: list[int] = []
    decided = []
    held = np.zeros(setting.experts)
    for index in range(options.max_tokens):
        row = Row.of(*rows_at(setting, tokens))
        base = filtered_base(row, share, options.upscale_top_p)[0].copy()
        for token in setting.neutral:
            base[token] = np.abs(share) @ row.reference[:, token] / np.abs(share).sum()
        if index == 0 or (every and index % every == 0):
            seen_base = log_softmax(base)[None]
            found = search_alpha(seen_base, row.tuned[:, None], row.reference[:, None], search)
            held = found.alpha[0]
        logprobs = log_softmax(base + held @ (row.tuned - row.reference))
        plain = rows_at(setting, tokens)[0].astype(np.float64)
        shift = float(np.log(np.exp(plain).sum()))
        counts = {token: tokens.count(token) for token in tokens}
        scores = adjust(logprobs.astype(np.float32), options, counts, shift)
        token = sample(scores, options, Noise(options.seed, 0, index))
        tokens.append(token)
        decided.append((token, float(logprobs[token]), tuple(held.tolist())))
        if token == END:
            break
    return decided


@pytest.mark.parametrize("index", range(48))
def test_every_n_gives_the_same_alphas(index: int) -> None:
    """Tokens, log-probs and alphas with n = 2, 4, 8 are those of n = 1 bit by bit."""
    setting = make_setting(index)
    plain = seen(run(setting.engine(), setting.request))
    for n in DRAFTS:
        other = setting.drafting(n)
        assert seen(run(other.engine(), other.request)) == plain


@pytest.mark.parametrize("index", range(48))
def test_equals_a_recomputation_without_engine(index: int) -> None:
    """Tokens and alphas are those of rows computed one by one from their whole prefix."""
    setting = make_setting(index).drafting(1 + 3 * (index % 3))
    if index % 5 == 0:
        setting = replace(setting, neutral=frozenset({END, 7, 11}))
    got, wanted = seen(run(setting.engine(), setting.request)), recompute(setting)
    assert [token for token, _, _ in got] == [token for token, _, _ in wanted]
    for (_, logprob, alpha), (_, exact, exact_alpha) in zip(got, wanted, strict=True):
        assert logprob == pytest.approx(exact, abs=2e-3)
        np.testing.assert_allclose(alpha, exact_alpha, rtol=0, atol=2e-3)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("every", EVERY)
def test_alpha_is_searched_where_the_index_is_divisible(every: int, n: int) -> None:
    """Between its updates an alpha stays; at an update of such rows it changes."""
    options = GenerationOptions(
        alpha="dynamic", alpha_every=every, max_tokens=31, draft=n, logit_bias={END: -50.0}
    )
    setting = Setting(1, options, None)
    alphas = [event.alpha for event in run(setting.engine(), setting.request)]
    changes = [i for i in range(1, len(alphas)) if alphas[i] != alphas[i - 1]]
    due = [i for i in range(1, len(alphas)) if every and i % every == 0]
    assert set(changes) <= set(due)
    assert len(changes) >= 0.6 * len(due)


def test_rejected_drafts_leave_no_alpha_behind() -> None:
    """With a bad drafter updates fall on rejected rows; what is held is the emitted rows'."""
    options = GenerationOptions(
        alpha="dynamic", alpha_every=2, temperature=2.0, max_tokens=40, logit_bias={END: -50.0}
    )
    setting = Setting(2, options, None)
    plain = seen(run(setting.engine(), setting.request))
    drafting = setting.drafting(8)
    engine = drafting.engine()
    generation = engine.submit(drafting.request)
    events: list[TokenEvent] = []
    while generation.finish_reason is None:
        events += [event for _, event in engine.step()]
    assert generation.accepted < 0.7 * generation.drafted
    assert seen(events) == plain


@pytest.mark.parametrize("every", [0, 3])
def test_neighbours_keep_their_own_alpha(every: int) -> None:
    """Four interleaved generations over two sequences have the alphas of the four alone."""
    settings = []
    for index in range(4):
        chosen = make_setting(index)
        options = chosen.options.updated({"alpha_every": every, "draft": 1 + 2 * index})
        settings.append(Setting(2, options, None))
    engine = settings[0].engine(n_sequences=2, n_batch=40)
    generations = [engine.submit(setting.request) for setting in settings]
    events: dict[int, list[TokenEvent]] = {id(g): [] for g in generations}
    while any(generation.finish_reason is None for generation in generations):
        for owner, event in engine.step():
            events[id(owner)].append(event)
    for generation, setting in zip(generations, settings, strict=True):
        assert seen(events[id(generation)]) == seen(run(setting.engine(), setting.request))


def test_a_second_request_starts_with_a_search_of_its_own() -> None:
    """With one search per text the alpha of one text does not reach into the next."""
    options = GenerationOptions(alpha="dynamic", alpha_every=0, max_tokens=9)
    setting = Setting(1, options, None)
    engine = setting.engine()
    run(engine, setting.request)
    other = Request(tuple((9, 9, *p) for p in setting.request.prompts), options)
    assert seen(run(engine, other)) == seen(run(setting.engine(), other))


@pytest.mark.parametrize("every", EVERY)
def test_a_fixed_alpha_knows_no_updates(every: int) -> None:
    """alpha_every means nothing to a number; weights multiply it, 1/E where there are none."""
    options = GenerationOptions(alpha=0.8, alpha_every=every, max_tokens=8)
    for weights, wanted in ((None, (0.4, 0.4)), ((1.0, -0.25), (0.8, -0.2))):
        setting = Setting(2, options, weights)
        for event in run(setting.engine(), setting.request):
            np.testing.assert_allclose(event.alpha, wanted, rtol=1e-12)
