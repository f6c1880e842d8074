"""Constraints in the round: same text for every n, nothing else changed, failures stay alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.constraints import Compiler
from eftlocal.engine import Engine
from eftlocal.ensemble import Ensemble, Roles
from eftlocal.errors import ConstraintError
from eftlocal.generation import Generation, Request
from eftlocal.masking import Constraint, Mask, Matcher
from eftlocal.options import GenerationOptions
from eftlocal.sampling import Noise, adjust, sample

from .fakes import END, FakeContext, logits_after
from .test_engine import N_VOCAB, SEEDS, make_engine, random_request, run
from .words import FakeWords

PIECES = [b"", b"", b"", b"a", b"b", b"c", b"ab", b"bc", b"abc", b"x", b"xx", b"1", b"2", b"12"]
WORDS = FakeWords([*PIECES, b"{", b"}", b'"', b":", b",", b'":', b'{"', b"1}", b"[", b"]"])
COMPILER = Compiler(WORDS, N_VOCAB, frozenset({END}))
REGEXES = (
    "(a|b|c)*",
    "a{3,9}(bc|12)+x",
    "([abc]{2}[12])+",
    r'\{"a":[12]{1,3}(,"b":\["(abc|x)*"\])?\}',
    "abcabcabc",
    "x|[ab]+(1|2)",
)


def constrained(request: Request, options: dict[str, Any], n: int) -> Request:
    """The request with a constraint, deciding up to n tokens a round."""
    made = request.options.updated(options | {"draft": n})
    return replace(request, options=made, constraint=COMPILER.compile(made))


def text_of(tokens: list[int]) -> str:
    """The tokens' bytes."""
    return b"".join(WORDS.pieces[token] for token in tokens).decode()


def recompute(request: Request) -> tuple[list[int], list[float]]:
    """The same text from whole prefixes, a fresh matcher, and the set of allowed tokens alone."""
    assert request.constraint
    options, tokens, logprobs = request.options, list[int](), list[float]()
    while len(tokens) < options.max_tokens:
        matcher = request.constraint.start()
        for token in tokens:
            matcher.consume(token)
        if matcher.is_ended:
            break
        base, tuned, reference = (
            logits_after([*prompt, *tokens], seed, width)[:N_VOCAB].astype(np.float64)
            for prompt, seed, width in zip(
                request.prompts, SEEDS.values(), (N_VOCAB + 3, N_VOCAB, N_VOCAB), strict=True
            )
        )
        fused = base + float(options.alpha) * (tuned - reference)
        log_z = np.log(np.exp(fused).sum())
        counts = {token: tokens.count(token) for token in tokens}
        shift = float(np.log(np.exp(base).sum()) - log_z)
        row = adjust(fused.astype(np.float32), options, counts, shift)
        row[[token for token in range(N_VOCAB) if not matcher.mask()[token]]] = -np.inf
        token = sample(row, options, Noise(options.seed, request.choice, len(tokens)))
        tokens.append(token)
        logprobs.append(float(fused[token] - log_z))
        if token == END:
            break
    return tokens, logprobs


@settings(deadline=None, max_examples=80)
@given(setting=st.integers(0, 10_000), regex=st.sampled_from(REGEXES), drafter=st.integers(0, 2))
def test_every_n_gives_the_same_text(setting: int, regex: str, drafter: int) -> None:
    """With n = 1 to 9 it is what a recomputation says that knows no cache and no rollback."""
    request = random_request(np.random.default_rng(setting))
    tokens, logprobs = recompute(constrained(request, {"regex": regex}, 1))
    for n in (1, 2, 3, 5, 9):
        got, got_logprobs = run(
            make_engine(drafter=drafter), constrained(request, {"regex": regex}, n)
        )
        assert got == tokens
        np.testing.assert_allclose(got_logprobs, logprobs, atol=1e-5)
    if len(tokens) < request.options.max_tokens:
        assert re.fullmatch(regex, text_of(tokens))


@settings(deadline=None, max_examples=40)
@given(setting=st.integers(0, 10_000), regex=st.sampled_from(REGEXES))
def test_rejection_gives_one_text_for_every_n(setting: int, regex: str) -> None:
    """It is another text than that of coupled noise, and matches all the same."""
    request = random_request(np.random.default_rng(setting))
    options = {"regex": regex, "accept": "rejection"}
    texts = {tuple(run(make_engine(), constrained(request, options, n))[0]) for n in (1, 2, 4, 8)}
    assert len(texts) == 1
    tokens = list(texts.pop())
    if len(tokens) < request.options.max_tokens:
        assert re.fullmatch(regex, text_of(tokens))


def test_rejection_draws_from_the_constrained_distribution() -> None:
    """The first token's frequencies are those of the fused row without what is not allowed."""
    request = Request(((3, 4, 5),) * 3, GenerationOptions(max_tokens=2, draft=2))
    counts = np.zeros(N_VOCAB)
    wanted = constrained(request, {"regex": "[abcx]+", "accept": "rejection"}, 2)
    engine = make_engine()
    n_texts = 3000
    for seed in range(n_texts):
        options = wanted.options.updated({"seed": seed})
        counts[run(engine, replace(wanted, options=options))[0][0]] += 1
    base, tuned, reference = (
        logits_after((3, 4, 5), seed, width)[:N_VOCAB].astype(np.float64)
        for seed, width in zip(SEEDS.values(), (N_VOCAB + 3, N_VOCAB, N_VOCAB), strict=True)
    )
    assert wanted.constraint
    weights = np.exp(base + tuned - reference) * wanted.constraint.start().mask()
    expected = n_texts * weights / weights.sum()
    assert not counts[expected == 0].any()
    expected, counts = expected[expected > 5], counts[expected > 5]
    # The 0.9999 quantile of chi-square with 8 degrees of freedom is 31.8.
    assert len(expected) <= 9
    assert ((counts - expected) ** 2 / expected).sum() < 31.8


def test_an_ended_text_stops() -> None:
    """Without an end token; a text that only may end takes one."""
    request = Request(((3, 4, 5),) * 3, GenerationOptions(max_tokens=50))
    for n in (1, 4):
        generation = finished(make_engine(), constrained(request, {"regex": "(abcabc|12)"}, n))
        assert generation.finish_reason == "stop"
        assert END not in generation.tokens
        generation = finished(make_engine(), constrained(request, {"regex": "(abc)*"}, n))
        assert generation.finish_reason in ("stop", "length")
        assert (END in generation.tokens) == (generation.finish_reason == "stop")


def finished(engine: Engine, request: Request) -> Generation:
    """A generation that has run to its end."""
    generation = engine.submit(request)
    while generation.finish_reason is None:
        engine.step()
    return generation


def test_drafts_are_masked_too() -> None:
    """With a perfect drafter all drafts are taken, which only holds where its rows are masked."""
    contexts = [FakeContext(5, N_VOCAB) for _ in SEEDS]
    engine = Engine(Ensemble(contexts, Roles(0, ((1, 2),), (1,)), N_VOCAB), frozenset({END}))
    options = GenerationOptions(max_tokens=60, temperature=1.0)
    request = Request(((3, 4, 5),) * 3, options)
    generation = finished(engine, constrained(request, {"regex": "([abc]{2}[12]){40}"}, 6))
    assert generation.accepted == generation.drafted == 50


class _Failing:
    """A constraint that allows everything until a text has so many tokens."""

    def __init__(self, after: int, harmless: frozenset[int]) -> None:
        self.after = after
        self.harmless = harmless

    def start(self) -> Matcher:
        return _FailingMatcher(self)


class _FailingMatcher:
    def __init__(self, constraint: _Failing) -> None:
        self._constraint = constraint
        self._tokens: list[int] = []

    @property
    def is_ended(self) -> bool:
        return False

    def mask(self) -> Mask:
        bad = [t for t in self._tokens if t not in self._constraint.harmless]
        if len(bad) >= self._constraint.after:
            raise ConstraintError("too complex")
        mask = np.ones(N_VOCAB, np.bool_)
        mask[END] = False
        return mask

    def consume(self, token: int) -> None:
        self._tokens.append(token)

    def rollback(self, n_tokens: int) -> None:
        del self._tokens[len(self._tokens) - n_tokens :]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_failure_ends_one_generation_only(n: int) -> None:
    """The neighbour's text is as if it were alone, and the sequence can be used again."""
    request = Request(((3, 4, 5),) * 3, GenerationOptions(max_tokens=30, draft=n))
    other = constrained(request, {"regex": "([abc]{2}[12])+"}, n)
    alone = run(make_engine(), other)[0]
    engine = make_engine(n_sequences=2)
    constraint: Constraint = _Failing(7, frozenset())
    failing, neighbour = (
        engine.submit(replace(request, constraint=constraint)),
        engine.submit(other),
    )
    while neighbour.finish_reason is None or failing.finish_reason is None:
        engine.step()
    assert (failing.finish_reason, len(failing.tokens)) == ("error", 7)
    assert isinstance(failing.error, ConstraintError)
    assert neighbour.tokens == alone
    assert run(engine, other)[0] == alone


def _failures() -> Iterator[tuple[int, frozenset[int]]]:
    rng = np.random.default_rng(7)
    for after in (1, 2, 4):
        yield after, frozenset(int(t) for t in rng.integers(3, N_VOCAB, 12))


@pytest.mark.parametrize(("after", "harmless"), list(_failures()))
def test_drafts_cannot_make_it_fail(after: int, harmless: frozenset[int]) -> None:
    """A constraint that fails after some tokens fails for the same text with every n."""
    for setting in range(10):
        request = random_request(np.random.default_rng(setting))
        request = replace(request, constraint=_Failing(after, harmless))
        ends = set()
        for n in (1, 2, 4, 8):
            options = request.options.updated({"draft": n})
            generation = finished(make_engine(), replace(request, options=options))
            ends.add((tuple(generation.tokens), generation.finish_reason))
        assert len(ends) == 1
