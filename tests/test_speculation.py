"""Drafting as far as it pays: the same texts, with costs that are made up and acceptance learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from eftlocal.context import Block
from eftlocal.drafting import Acceptance, Costs
from eftlocal.engine import Engine
from eftlocal.ensemble import Ensemble, Roles
from eftlocal.generation import Request
from eftlocal.options import GenerationOptions
from eftlocal.speculation import Draft

from .fakes import END, FakeContext

N_VOCAB = 24


def make_engine(seeds: tuple[int, int, int] = (1, 2, 3), **sizes: Any) -> Engine:
    """Base, tuned, reference; equal seeds are equal models."""
    contexts = [FakeContext(seed, **sizes) for seed in seeds]
    return Engine(Ensemble(contexts, Roles(0, ((1, 2),), (1,)), N_VOCAB), frozenset({END}))


class GivenCosts(Costs):
    """Costs that do not depend on how fast the fakes really are."""

    def add(self, context: int, n_tokens: int, seconds: float) -> None:
        """Stay as given."""

    def add_proposal(self, seconds: float) -> None:
        """Stay as given."""


def set_costs(engine: Engine, batch: Callable[[int], float]) -> None:
    """Let decodes of M tokens take batch(M) in the base, a twentieth in the others."""
    engine._is_measured = True
    steps = (1.0, 0.05, 0.05)
    engine.ensemble.costs = GivenCosts(
        [{m: step * batch(m) for m in range(1, 33)} for step in steps]
    )


def tokens(engine: Engine, **options: object) -> tuple[list[int], list[float]]:
    """What a request yields."""
    settings = GenerationOptions(max_tokens=60, logit_bias={END: -50}, draft="auto").updated(
        options
    )
    events = list(engine.stream(Request(((3, 4, 5),) * 3, settings)))
    return [event.token for event in events], [event.logprob for event in events]


@pytest.fixture
def cheap() -> Callable[[int], float]:
    """Batches cost hardly more than steps."""
    return lambda m: 1 + 0.02 * m


@pytest.mark.parametrize("temperature", [0, 0.7])
@pytest.mark.parametrize("slope", [0.02, 0.3, 1.0])
def test_auto_says_the_same(temperature: float, slope: float) -> None:
    """Coupled, any plan gives the text and log-probabilities of plain decoding."""
    plain = tokens(make_engine(), draft="off", temperature=temperature)
    engine = make_engine()
    set_costs(engine, lambda m: 1 + slope * (m - 1))
    assert tokens(engine, draft="auto", temperature=temperature) == plain


def test_auto_drafts_where_that_pays_and_only_there(cheap: Callable[[int], float]) -> None:
    """Cheap batches are used; batches that cost like single steps are not."""
    rounds = {}
    for name, batch in (("cheap", cheap), ("dear", lambda m: float(m))):
        engine = make_engine(seeds=(1, 1, 1))
        set_costs(engine, batch)
        generation = engine.submit(
            Request(
                ((3, 4, 5),) * 3,
                GenerationOptions(max_tokens=60, logit_bias={END: -50}, draft="auto"),
            )
        )
        while generation.finish_reason is None:
            engine.step()
        rounds[name] = generation.rounds, generation.drafted
    assert rounds["cheap"][0] < 20
    assert rounds["dear"] == (60, 0)


def test_acceptance_is_learnt_without_drafting() -> None:
    """Where little is drafted, probes tell how good drafts would be."""
    learnt = {}
    for seeds in ((1, 1, 1), (1, 77, 3)):
        engine = make_engine(seeds)
        set_costs(engine, lambda m: 1 + 0.85 * (m - 1))
        for seed in range(6):
            tokens(engine, seed=seed)
        learnt[seeds] = engine.speculation.acceptance
        assert sum(learnt[seeds].checked) > 28 + 40
    assert learnt[1, 1, 1].mean > learnt[1, 77, 3].mean + 0.1


def test_bad_drafts_are_given_up(cheap: Callable[[int], float]) -> None:
    """A drafter that is hardly ever right ends up with short drafts."""
    drafted = {}
    for seeds in ((1, 1, 1), (1, 77, 3)):
        engine = make_engine(seeds)
        set_costs(engine, lambda m: 1 + 0.4 * (m - 1))
        for seed in range(8):
            tokens(engine, seed=seed)
        generation = engine.submit(
            Request(
                ((3, 4, 5),) * 3,
                GenerationOptions(max_tokens=60, logit_bias={END: -50}, draft="auto"),
            )
        )
        while generation.finish_reason is None:
            engine.step()
        drafted[seeds] = generation.drafted / generation.rounds
    assert drafted[1, 1, 1] > 2 * drafted[1, 77, 3]


def test_measuring_leaves_the_caches_empty() -> None:
    """What decodes take is found out once, before the first prompt, and leaves no trace."""
    engine, other = make_engine(), make_engine()
    assert tokens(engine, draft="auto") == tokens(other, draft="off")
    assert all(1 in known and 16 in known for known in engine.ensemble.costs.known)
    evaluated = engine.ensemble.contexts[0].n_evaluated  # type: ignore[attr-defined]
    tokens(engine, draft="auto", seed=1)
    assert engine.ensemble.contexts[0].n_evaluated - evaluated < 150  # type: ignore[attr-defined]


def test_contexts_that_cannot_rewind_are_not_drafted_for() -> None:
    """Then one token is decided per round, with auto as with a number."""
    plain = tokens(make_engine(), draft="off")
    for draft in ("auto", 4):
        assert tokens(make_engine(can_rewind=False), draft=draft) == plain


def test_sequences_together_say_what_they_say_alone(cheap: Callable[[int], float]) -> None:
    """Two generations with auto drafts share rounds and change nothing in each other."""
    engine = make_engine(n_sequences=2)
    set_costs(engine, cheap)
    options = [
        GenerationOptions(max_tokens=40, seed=seed, logit_bias={END: -50}, draft="auto")
        for seed in (0, 1)
    ]
    together = [engine.submit(Request(((3, 4, 5),) * 3, each)) for each in options]
    while any(generation.finish_reason is None for generation in together):
        engine.step()
    for generation, each in zip(together, options, strict=True):
        alone = engine.submit(Request(((3, 4, 5),) * 3, each.updated({"draft": "off"})))
        while alone.finish_reason is None:
            engine.step()
        assert generation.tokens == alone.tokens


def test_an_unsure_drafter_stops_early(cheap: Callable[[int], float]) -> None:
    """Rows whose drafts were never accepted end a draft, however long the plan is."""
    drafted = {}
    for rate in (0.0, 1.0):
        engine = make_engine(seeds=(1, 1, 1))
        set_costs(engine, cheap)
        many = 1e6
        # Only the surest rows, which the fakes do not have, are frequent: the mean stays 1.
        engine.speculation.acceptance = Acceptance([rate] * 6 + [many], [1.0] * 6 + [many])
        request = Request(
            ((3, 4, 5),) * 3, GenerationOptions(max_tokens=9, logit_bias={END: -50}, draft="auto")
        )
        generation = engine.submit(request)
        while not generation.tokens:
            engine.step()
        assert generation.plan is not None and generation.plan.n > 4
        drafted[rate] = generation.drafted
    assert drafted[0.0] == 0
    assert drafted[1.0] > 4


def test_every_draft_is_learnt_at_its_own_sureness() -> None:
    """The second draft of a round counts where the drafter's second row was."""
    engine = make_engine()
    generation = engine.submit(Request(((3, 4, 5),) * 3, GenerationOptions(draft="auto")))
    draft = Draft(generation, 3, tokens=[7, 8], sureness=[0.1, 0.999])
    before = list(engine.speculation.acceptance.checked)
    assert engine.speculation.learn(draft, 1, 8)
    assert not engine.speculation.learn(draft, 0, 9)
    after = engine.speculation.acceptance.checked
    assert [a - b for a, b in zip(after, before, strict=True)] == [1, 0, 0, 0, 0, 0, 1]
    assert (generation.checked, generation.agreed) == (2, 1)


@pytest.mark.parametrize("n_ctx", [*range(40, 48), 256])
def test_padded_blocks_change_nothing(n_ctx: int) -> None:
    """Blocks of three are scored as four; texts, caches and the end of the context stay."""
    plain = tokens(make_engine(n_ctx=n_ctx), draft="off")
    engine = make_engine(n_ctx=n_ctx)
    set_costs(engine, lambda m: 1.0 if m % 4 == 0 else 2.0)
    sizes = []
    base = engine.ensemble.contexts[0]
    submit = base.submit
    base.submit = lambda blocks: (sizes.append(len(blocks[0].tokens)), submit(blocks))  # type: ignore
    assert tokens(engine, draft=3) == plain
    assert 4 in sizes and (3 not in sizes or n_ctx < 60)
    assert len(base.tokens(0)) == 3 + len(plain[0]) - 1


def test_sequences_are_decoded_in_their_order(cheap: Callable[[int], float]) -> None:
    """Whoever was admitted first, blocks of a decode come by ascending sequence."""
    engine = make_engine(n_sequences=3)
    set_costs(engine, cheap)
    seen = []
    base = engine.ensemble.contexts[0]
    submit = base.submit

    def look(blocks: Sequence[Block]) -> None:
        seen.append([block.sequence for block in blocks])
        submit(blocks)

    base.submit = look  # type: ignore[method-assign]
    for i, n in enumerate((2, 5, 7, 3, 4)):
        options = GenerationOptions(max_tokens=9 + 5 * (i % 3), seed=i, draft=n)
        engine.submit(Request(((3, 4, 5 + i),) * 3, options))
    for _ in range(60):
        engine.step()
    assert [0, 1, 2] in seen and all(each == sorted(each) for each in seen)


def test_all_models_are_submitted_before_any_is_waited_for() -> None:
    """So that a GPU is never idle between two models."""
    engine = make_engine()
    contexts = engine.ensemble.contexts
    waiting = []
    for context in contexts:
        rows = context.rows

        def fetch(rows: Callable[[], object] = rows) -> object:
            waiting.append(sum(other.is_waiting for other in contexts))  # type: ignore[attr-defined]
            return rows()

        context.rows = fetch  # type: ignore[assignment, method-assign]
    tokens(engine, draft="off", max_tokens=3)
    # Prefill asks for no rows; then the drafter alone, and base and reference together.
    assert waiting == [0, 0, 0] + [1, 2, 1] * 3


def make_mixture() -> Engine:
    """A base and two experts, each with a drafter of its own."""
    contexts = [FakeContext(seed, n_sequences=3) for seed in range(1, 6)]
    roles = Roles(0, ((1, 2), (3, 4)), (1, 3))
    return Engine(Ensemble(contexts, roles, N_VOCAB), frozenset({END}))


def test_the_expert_that_weighs_most_drafts() -> None:
    """By the size of its weight; the first one where there are no weights or equal ones."""
    roles = make_mixture().ensemble.roles
    assert [roles.drafter(w) for w in (None, (0.5, 0.5), (0.2, 0.8), (0.3, -0.9))] == [1, 1, 3, 3]


def test_generations_with_different_drafters_share_rounds() -> None:
    """Each says what it says alone and plainly, whoever drafts for its neighbours."""
    engine = make_mixture()
    requests = [
        Request(
            ((3, 4, 5 + i),) * 5,
            GenerationOptions(max_tokens=30, seed=i, logit_bias={END: -50}, draft=3 + i),
            weights=weights,
        )
        for i, weights in enumerate(((0.1, 0.9), None, (0.9, 0.1)))
    ]
    together = [engine.submit(request) for request in requests]
    assert [generation.drafter for generation in together] == [3, 1, 1]
    while any(generation.finish_reason is None for generation in together):
        engine.step()
    for generation, request in zip(together, requests, strict=True):
        plain = replace(request, options=request.options.updated({"draft": "off"}))
        assert generation.tokens == [event.token for event in make_mixture().stream(plain)]
        assert 0 < generation.accepted < generation.drafted


@pytest.mark.parametrize("held", [0, 5, 34, 40])
def test_measuring_leaves_caches_as_they_are(held: int) -> None:
    """Whatever they hold, and where there is no room for large blocks."""
    ensemble = make_engine(n_ctx=40).ensemble
    before = list(range(3, 3 + held))
    for context in ensemble.contexts:
        for start in range(0, held, 16):
            context.decode([Block(0, before[start : start + 16], 0)])
    ensemble.measure(1.0)
    assert all(context.tokens(0) == before for context in ensemble.contexts)
    known = [max(sizes, default=0) for sizes in ensemble.costs.known]
    assert known == [{0: 16, 5: 16, 34: 4, 40: 0}[held]] * 3
