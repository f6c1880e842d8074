"""Rejection sampling in the round: same distribution, same text for every n, most acceptance."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import eftlocal
from eftlocal.acceptance import accept
from eftlocal.distributions import Array, Array64, log_sum_exp
from eftlocal.engine import Engine
from eftlocal.ensemble import Ensemble, Roles
from eftlocal.fusion import FusionSettings, fuse
from eftlocal.generation import Request
from eftlocal.options import GenerationOptions
from eftlocal.sampling import Noise, adjust

from .fakes import END, FakeContext, logits_after
from .test_acceptance import exact
from .test_engine import N_VOCAB, SEEDS, make_engine, random_request, run, with_draft
from .test_noise import chi_square
from .test_sampling import survivors

FAMILY = Path(eftlocal.__file__).parent / "families" / "atlas"
FEW = 12
"""The vocabulary of the joint tests."""

N_TEXTS = 6_000
PROMPT = (3, 4, 5)
Tokens = tuple[int, ...]


def rejecting(request: Request, n: int) -> Request:
    """The same request with rejection sampling, deciding up to n tokens a round."""
    return with_draft(replace(request, options=request.options.updated({"accept": "rejection"})), n)


def adjusted_row(request: Request, tokens: Tokens, n_vocab: int) -> Array:
    """(V,) the fused row after some completion tokens, from whole prefixes."""
    base, tuned, reference = (
        logits_after([*prompt, *tokens], seed, n_vocab + 3 * (role == "base"))[None, :n_vocab]
        for prompt, (role, seed) in zip(request.prompts, SEEDS.items(), strict=True)
    )
    fused = fuse(base, [tuned], [reference], FusionSettings(request.options.alpha))
    shift = float(log_sum_exp(base)[0] - fused.log_z[0])
    return adjust(fused.logits[0], request.options, Counter(tokens), shift)


@dataclass(frozen=True)
class Setting:
    """A request for three tokens, and who drafts how far."""

    options: GenerationOptions
    drafter: int
    n: int

    @property
    def request(self) -> Request:
        """With the same prompt for every context."""
        return rejecting(Request((PROMPT,) * 3, self.options.updated({"max_tokens": 3})), self.n)

    def engine(self) -> Engine:
        """Over fakes of few tokens."""
        contexts = [FakeContext(seed, FEW + 3 * (role == "base")) for role, seed in SEEDS.items()]
        ensemble = Ensemble(contexts, Roles(0, ((1, 2),), (self.drafter,)), FEW)
        return Engine(ensemble, frozenset({END}))

    def joint(self) -> Array64:
        """(V, V, V) exact probabilities of three tokens; after the end there is only the end."""
        total = np.zeros((FEW,) * 3)
        over = np.eye(FEW)[END]
        for first, second in product(range(FEW), repeat=2):
            rows = [
                over if END in before else self.conditional(before)
                for before in ((), (first,), (first, second))
            ]
            total[first, second] = rows[0][first] * rows[1][second] * rows[2]
        return total

    def conditional(self, tokens: Tokens) -> Array64:
        """(V,) probabilities of the next token, by a sort in float64."""
        row = adjusted_row(self.request, tokens, FEW)
        ids = survivors(row, self.options)
        assert ids, "a nucleus is decided by rounding: change the settings"
        return exact(row, ids, self.options.temperature)


ENDING = {END: 2.5}
SETTINGS = {
    "three a round": Setting(GenerationOptions(), drafter=1, n=3),
    "two a round, the base drafts": Setting(GenerationOptions(alpha=1.5), drafter=0, n=2),
    "ends are often drafted": Setting(GenerationOptions(logit_bias=ENDING), drafter=1, n=3),
    "filters and penalties": Setting(
        GenerationOptions(
            top_k=9,
            top_p=0.9,
            temperature=1.3,
            presence_penalty=1.0,
            repetition_penalty=1.2,
            logit_bias={END: 1.0},
        ),
        drafter=1,
        n=3,
    ),
}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_first_three_tokens_follow_the_fused_model(setting: Setting) -> None:
    """Jointly over many seeds, by a chi-square test against the exact product of conditionals."""
    engine, request = setting.engine(), setting.request
    texts = []
    for seed in range(N_TEXTS):
        tokens, _ = run(engine, replace(request, options=request.options.updated({"seed": seed})))
        texts.append((*tokens, END, END)[:3])
    numbers = np.ravel_multi_index(np.array(texts).T.tolist(), (FEW,) * 3)
    # A sound rule would be below in one of 10,000 choices of seeds.
    assert chi_square(numbers.tolist(), setting.joint().ravel()) > 1e-4


def recompute(request: Request, drafter: int) -> list[int]:
    """The same text without engine and caches: each token from its whole prefix and its noise."""
    options = request.options
    role, seed = list(SEEDS.items())[drafter]
    tokens: list[int] = []
    while len(tokens) < options.max_tokens and END not in tokens:
        prefix = [*request.prompts[drafter], *tokens]
        draft = logits_after(prefix, seed, N_VOCAB + 3 * (role == "base"))[:N_VOCAB]
        token, _ = accept(
            adjust(draft, options, Counter(tokens)),
            adjusted_row(request, tuple(tokens), N_VOCAB),
            None,
            options,
            Noise(options.seed, request.choice, len(tokens)),
        )
        tokens.append(token)
    return tokens


@pytest.mark.parametrize("setting", range(80))
def test_every_n_gives_the_same_text(setting: int) -> None:
    """The text is a function of the seed and the drafter, with settings of every kind."""
    request = random_request(np.random.default_rng(setting))
    drafter = setting % 3
    wanted = recompute(request, drafter)
    for n in (1, 2, 3, 5, 8):
        tokens, _ = run(make_engine(drafter=drafter), rejecting(request, n))
        assert tokens == wanted


def test_a_measured_draft_gives_the_same_text() -> None:
    """How far is drafted may depend on clocks and on earlier drafts: the text does not."""
    engine = make_engine()
    for setting in range(1, 80, 3):
        request = random_request(np.random.default_rng(setting))
        automatic = rejecting(request, 1)
        automatic = replace(automatic, options=automatic.options.updated({"draft": "auto"}))
        assert run(engine, automatic)[0] == recompute(request, drafter=1)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_greedy_text_is_that_of_the_other_rule(n: int) -> None:
    """At temperature 0 both rules take the first of the largest; above it they differ."""
    warm = Request(
        ((3, 4, 5, 6),) * 3, GenerationOptions(max_tokens=40, logit_bias={END: -50}, draft=n)
    )
    greedy = replace(warm, options=warm.options.updated({"temperature": 0.0}))
    assert run(make_engine(), rejecting(greedy, n)) == run(make_engine(), greedy)
    assert run(make_engine(), rejecting(warm, n)) != run(make_engine(), warm)


def accepted_share(request: Request) -> float:
    """Of the drafts of some seeds."""
    accepted = drafted = 0
    for seed in range(40):
        engine = make_engine()
        options = request.options.updated({"seed": seed})
        generation = engine.submit(replace(request, options=options))
        while generation.finish_reason is None:
            engine.step()
        accepted += generation.accepted
        drafted += generation.drafted
    return accepted / drafted


def test_more_drafts_are_accepted() -> None:
    """Rejection keeps more drafts than shared noise does."""
    options = GenerationOptions(max_tokens=40, logit_bias={END: -50}, temperature=1.5)
    request = Request(((3, 4, 5),) * 3, options)
    assert accepted_share(rejecting(request, 2)) > accepted_share(with_draft(request, 2)) + 0.02


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_perfect_drafter_is_never_wrong(temperature: float) -> None:
    """Where all three models are one, every draft is accepted, also under penalties."""
    contexts = [FakeContext(5, N_VOCAB) for _ in SEEDS]
    engine = Engine(Ensemble(contexts, Roles(0, ((1, 2),), (1,)), N_VOCAB), frozenset({END}))
    options = GenerationOptions(
        temperature=temperature,
        top_p=0.95,
        repetition_penalty=1.5,
        frequency_penalty=0.7,
        logit_bias={END: -50},
        max_tokens=60,
    )
    generation = engine.submit(rejecting(Request((PROMPT,) * 3, options), 6))
    while generation.finish_reason is None:
        engine.step()
    assert generation.accepted == generation.drafted == 50


def test_neighbours_change_nothing() -> None:
    """Generations that run at once, with either rule, give the texts that they give alone."""
    rng = np.random.default_rng(7)
    requests = [random_request(rng) for _ in range(6)]
    requests = [r if i % 2 else rejecting(r, 1 + i) for i, r in enumerate(requests)]
    engine = make_engine(n_sequences=2, n_batch=40)
    generations = [engine.submit(request) for request in requests]
    while any(generation.finish_reason is None for generation in generations):
        engine.step()
    assert [g.tokens for g in generations] == [run(make_engine(), r)[0] for r in requests]


@pytest.fixture(scope="module")
def atlas() -> Iterator[eftlocal.FusedModel]:
    """The entry as shipped."""
    with eftlocal.load("atlas") as model:
        yield model


def log_likelihoods(model: eftlocal.FusedModel, rule: str, n: int) -> Array64:
    """Of answers at temperature 1 to questions about the world, one number per answer."""
    lines = (FAMILY / "questions.jsonl").read_text(encoding="utf-8").splitlines()[::2]
    totals = []
    for seed, line in enumerate(lines):
        message = {"role": "user", "content": json.loads(line)["question"]}
        options = {"accept": rule, "draft": n, "seed": seed, "max_tokens": 16}
        done = model.chat([message], alpha=0.5, temperature=1.0, **options)
        totals.append(sum(done.logprobs))
    return np.array(totals)


def test_both_rules_are_as_likely_on_atlas(atlas: eftlocal.FusedModel) -> None:
    """Mean log-likelihoods of answers, drafted or not, agree within their standard errors."""
    plain = log_likelihoods(atlas, "coupled", 1)
    for rule in ("coupled", "rejection"):
        drafted = log_likelihoods(atlas, rule, 4)
        error = math.sqrt((plain.var() + drafted.var()) / len(plain))
        assert abs(plain.mean() - drafted.mean()) < 3 * error
