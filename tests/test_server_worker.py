"""The worker: jobs of several clients in one thread, the queue, cancellation, failures, the end."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anyio.to_thread import current_default_thread_limiter

import eftlocal
from eftlocal.errors import BackendError
from eftlocal.server.jobs import Job
from eftlocal.server.states import Closing, Overloaded
from eftlocal.server.worker import Worker
from eftlocal.stream import Completion

LONG: dict[str, Any] = {"max_tokens": 400, "temperature": 0, "draft": "off"}
COUNTRIES = ("Chile", "France", "Peru", "Japan", "Kenya", "Norway", "Cuba")
ENDLESS = "One, two, three, four, five, six,"


def question(country: str) -> list[dict[str, str]]:
    """A conversation that asks for a capital."""
    return [{"role": "user", "content": f"What is the capital of {country}?"}]


@pytest.fixture(scope="module")
def alone() -> Iterator[eftlocal.FusedModel]:
    """The embedded family, which runs one request at a time."""
    with eftlocal.load("atlas", threads=1, draft="off") as model:
        yield model


@asynccontextmanager
async def worker(**options: Any) -> AsyncIterator[Worker]:
    """A worker with two sequences; it has ended afterwards, whatever happened."""
    # In caches of their own, sequences do not change each other's rounding.
    model = eftlocal.load("atlas", threads=1, parallel=2, ctx=512, kv_unified="off")
    running = Worker(model, **options)
    try:
        yield running
    finally:
        await asyncio.to_thread(running.close)


def without_end(model: eftlocal.FusedModel) -> dict[int, float]:
    """A bias against end tokens, so that a generation lasts."""
    return dict.fromkeys(model.engine.eog, -1000.0)


def endless(running: Worker) -> Job:
    """A job of 400 tokens."""
    bias = without_end(running.model)
    return running.submit(running.model.prepare_complete(ENDLESS, logit_bias=bias, **LONG))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within ten seconds")


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run an async test."""
    asyncio.run(asyncio.wait_for(test(), 60))


def test_every_job_gets_its_own_text(alone: eftlocal.FusedModel) -> None:
    """Seven requests over two sequences give exactly what each of them gives by itself."""

    async def test() -> None:
        async with worker() as running:
            prepared = [running.model.prepare_chat(question(name)) for name in COUNTRIES]
            jobs = [running.submit(one) for one in prepared]
            completions = await asyncio.gather(*(job.result() for job in jobs))
        for name, completion in zip(COUNTRIES, completions, strict=True):
            single = alone.chat(question(name))
            assert (completion.text, completion.logprobs) == (single.text, single.logprobs)

    run(test)


def test_batches_hold_every_event_once() -> None:
    """The texts of all batches are the completion's text, and tokens come in order."""

    async def test() -> None:
        async with worker() as running, endless(running) as job:
            events = [event async for batch in job.batches() for event in batch]
            assert "".join(event.text for event in events) == job.completion.text
            assert [event.token for event in events] == list(job.completion.tokens)
            assert job.prefilled == (job.prepared.prompt_tokens,) * 2

    run(test)


def test_the_queue_is_bounded() -> None:
    """Two jobs run, two wait, the fifth is refused; a cancelled one makes room at once."""

    async def test() -> None:
        async with worker(queue=2) as running:
            jobs = [endless(running) for _ in range(2)]
            await until(lambda: running.n_running == 2)
            jobs += [endless(running) for _ in range(2)]
            with pytest.raises(Overloaded) as refused:
                endless(running)
            assert refused.value.retry_after >= 1
            jobs[-1].cancel()
            assert running.n_waiting == 1
            jobs.append(endless(running))
            for job in jobs:
                job.cancel()
            await until(lambda: running.n_running == 0)

    run(test)


def test_without_a_queue_free_sequences_are_used() -> None:
    """Two jobs at once are taken although none may wait; a third is refused."""

    async def test() -> None:
        async with worker(queue=0) as running:
            jobs = [endless(running), endless(running)]
            with pytest.raises(Overloaded):
                endless(running)
            for job in jobs:
                job.cancel()

    run(test)


def test_cancelling_frees_the_sequence_and_nothing_else() -> None:
    """A job that is left ends, the one beside it goes on, and the next one has its place."""

    async def test() -> None:
        async with worker() as running:
            kept = endless(running)
            async with endless(running) as left:
                async for _ in left.batches():
                    break
            await until(lambda: running.n_running == 1)
            text = await running.submit(running.model.prepare_chat(question("Chile"))).result()
            assert "Santiago" in text.text
            assert len((await kept.result()).tokens) == 400
            assert {slot.state for slot in running.slots()} == {"idle"}

    run(test)


def test_a_failing_step_ends_its_jobs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where llama.cpp fails, those that ran are told, and later jobs run as before."""

    async def test() -> None:
        ended: list[tuple[Completion | None, BaseException | None]] = []

        def note(_: Job, completion: Completion | None, error: BaseException | None) -> None:
            ended.append((completion, error))

        async with worker(on_end=note) as running:
            jobs = [endless(running), endless(running)]
            await until(lambda: running.n_running == 2)
            context = running.model.engine.ensemble.contexts[0]

            def fail(*_: object) -> None:
                monkeypatch.undo()
                raise BackendError("no memory")

            monkeypatch.setattr(context, "submit", fail)
            for job in jobs:
                with pytest.raises(BackendError):
                    await job.result()
            good = await running.submit(running.model.prepare_chat(question("Peru"))).result()
            assert "Lima" in good.text
            assert [isinstance(error, BackendError) for _, error in ended] == [True, True, False]

    run(test)


def test_closing_lets_jobs_finish_within_the_grace() -> None:
    """What can end in time does, also what waits; nothing new is taken."""

    async def test() -> None:
        async with worker() as running:
            prepared = [running.model.prepare_chat(question(name)) for name in COUNTRIES]
            jobs = [running.submit(one) for one in prepared]
            closing = asyncio.create_task(asyncio.to_thread(running.close, 30.0))
            completions = await asyncio.gather(*(job.result() for job in jobs))
            assert all(completion.finish_reason == "stop" for completion in completions)
            await closing
            with pytest.raises(Closing):
                await running.call(lambda model: model.prepare_complete(ENDLESS))
            with pytest.raises(Closing):
                running.submit(prepared[0])

    run(test)


def test_closing_ends_what_takes_longer() -> None:
    """After the grace every job is told that the server ends, those in the queue too."""

    async def test() -> None:
        async with worker() as running:
            jobs = [endless(running) for _ in range(3)]
            await until(lambda: running.n_running == 2)
            start = time.monotonic()
            await asyncio.to_thread(running.close, 0.05)
            assert time.monotonic() - start < 20
            for job in jobs:
                with pytest.raises(Closing):
                    await job.result()
            assert jobs[0].completion.tokens

    run(test)


def test_a_model_in_use_is_not_freed() -> None:
    """What another thread does with the model is done before its memory is given back."""

    async def test() -> None:
        async with worker() as running:
            is_in, go_on = threading.Event(), threading.Event()

            def slow(model: eftlocal.FusedModel) -> list[int]:
                is_in.set()
                go_on.wait(30)
                return model.tokenize("One, two")

            call = asyncio.create_task(running.call(slow))
            await asyncio.to_thread(is_in.wait, 30)
            assert not running.is_idle
            closing = asyncio.create_task(asyncio.to_thread(running.close))
            await asyncio.sleep(0.1)
            assert not closing.done()
            go_on.set()
            assert await call
            await closing

    run(test)


def test_no_thread_stays() -> None:
    """A closed worker leaves nothing behind."""

    async def test() -> None:
        async with worker() as running:
            await running.submit(running.model.prepare_chat(question("Chile"))).result()
            name = f"worker-{running.model.name}"
        assert name not in {thread.name for thread in threading.enumerate()}

    run(test)


def test_a_caller_that_leaves_before_it_has_a_thread_counts_no_longer() -> None:
    """Where all threads are taken, callers wait; those that leave do not keep the worker busy."""

    async def test() -> None:
        async with worker() as running:
            go_on = threading.Event()
            n_threads = int(current_default_thread_limiter().total_tokens)
            blocked = [
                asyncio.create_task(running.call(lambda _: go_on.wait(30)))
                for _ in range(n_threads)
            ]
            left = asyncio.create_task(running.call(lambda model: model.tokenize("One")))
            await asyncio.sleep(0.1)
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            go_on.set()
            await asyncio.gather(*blocked)
            assert running.is_idle

    run(test)


def test_a_failure_before_a_job_has_its_sequence_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """No job is lost between the queue and the sequences."""

    async def test() -> None:
        async with worker() as running:

            def fail(*_: object) -> None:
                monkeypatch.undo()
                raise BackendError("no memory")

            monkeypatch.setattr(running.model.engine.ensemble, "reuse", fail)
            with pytest.raises(BackendError):
                await endless(running).result()
            good = await running.submit(running.model.prepare_chat(question("Peru"))).result()
            assert "Lima" in good.text

    run(test)


def test_a_caller_that_leaves_stays_until_its_thread_is_over() -> None:
    """Threads cannot be stopped, so leaving does not make room for more of them."""

    async def test() -> None:
        async with worker() as running:
            is_in, go_on = threading.Event(), threading.Event()

            def slow(_: eftlocal.FusedModel) -> None:
                is_in.set()
                go_on.wait(30)

            left = asyncio.create_task(running.call(slow))
            await asyncio.to_thread(is_in.wait, 30)
            for _ in range(3):
                left.cancel()
                await asyncio.sleep(0.02)
                assert not left.done()
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await left
            assert running.is_idle

    run(test)


def test_calls_that_are_left_at_any_moment_are_counted_right() -> None:
    """Whatever a cancellation meets, the worker is idle afterwards and can be closed."""

    async def test() -> None:
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            async with worker() as running:
                for i in range(600):
                    call = asyncio.create_task(running.call(lambda model: model.n_vocab))
                    for _ in range(i % 5):
                        await asyncio.sleep(0)
                    call.cancel()
                    await asyncio.gather(call, return_exceptions=True)
                await until(lambda: running.is_idle)
        finally:
            sys.setswitchinterval(before)

    run(test)
