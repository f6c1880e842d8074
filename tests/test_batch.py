"""Many requests through one model: the same results as one by one, whatever runs beside them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

import eftlocal
from eftlocal.batch import Job, run_batch
from eftlocal.errors import ContextFull, UsageError
from eftlocal.evaluate.questions import Question, read_questions
from eftlocal.evaluate.systems import FAMILY
from eftlocal.stream import Prepared

PARALLEL = 4


@pytest.fixture(scope="module")
def model() -> Iterator[eftlocal.FusedModel]:
    """Atlas with several sequences in caches of their own."""
    with eftlocal.load("atlas", parallel=PARALLEL, kv_unified="off", draft="off") as loaded:
        yield loaded


def chats(model: eftlocal.FusedModel, count: int) -> list[Job]:
    """Jobs that ask some questions, of different lengths."""
    questions = read_questions(FAMILY / "questions.jsonl", Question)[:: 300 // count][:count]
    return [
        partial(model.prepare_chat, [{"role": "user", "content": q.question}], max_tokens=5 + i)
        for i, q in enumerate(questions)
    ]


def test_results_are_those_of_one_by_one(model: eftlocal.FusedModel) -> None:
    """Tokens and log-probs agree to the last bit, and every job ends once."""
    jobs = chats(model, 12)
    found = list(run_batch(model, jobs))
    assert sorted(index for index, _ in found) == list(range(12))
    with eftlocal.load("atlas", draft="off") as alone:
        for index, outcome in found:
            expected = next(iter(run_batch(alone, [chats(alone, 12)[index]])))[1]
            assert isinstance(outcome, eftlocal.Completion)
            assert isinstance(expected, eftlocal.Completion)
            assert (outcome.tokens, outcome.logprobs) == (expected.tokens, expected.logprobs)


def test_short_jobs_do_not_wait_for_long_ones(model: eftlocal.FusedModel) -> None:
    """A sequence that is free takes the next job while a long one goes on."""
    short = partial(model.prepare_complete, "The", max_tokens=1)
    long = partial(model.prepare_complete, "The", max_tokens=60, logit_bias={2: -100, 7: -100})
    order = [index for index, _ in run_batch(model, [long, *[short] * 20])]
    assert order[-1] == 0


def test_a_job_that_is_refused_stops_no_other(model: eftlocal.FusedModel) -> None:
    """The error takes the place of the completion."""
    jobs: list[Job] = [*chats(model, 3), partial(model.prepare_complete, [1] * 5000)]
    jobs.insert(1, partial(model.prepare_complete, []))
    found = dict(run_batch(model, [*jobs, *chats(model, 2)]))
    assert isinstance(found[1], UsageError) and isinstance(found[4], ContextFull)
    kinds = [type(found[i]) for i in (0, 2, 3, 5, 6)]
    assert kinds == [eftlocal.Completion] * 5


def test_closing_ends_what_runs(model: eftlocal.FusedModel) -> None:
    """After the first result nothing is left in the engine, and no further job is prepared."""
    prepared = 0

    def job() -> Prepared:
        nonlocal prepared
        prepared += 1
        return model.prepare_complete("The capital", max_tokens=prepared * 10)

    batch = run_batch(model, [job] * 50)
    next(batch)
    batch.close()
    assert not model.engine._running and not model.engine._waiting
    assert prepared <= PARALLEL + 1


def test_nothing_to_do(model: eftlocal.FusedModel) -> None:
    """No jobs, no results."""
    assert list(run_batch(model, [])) == []
