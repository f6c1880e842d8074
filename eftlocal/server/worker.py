"""The thread that owns a model: it takes jobs from a queue, steps the engine, hands out events.

The event loop submits and cancels; nothing else here may be called by two threads at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

from ..generation import TokenEvent
from ..model import FusedModel
from ..stream import Completion, Prepared
from .jobs import Job
from .states import Closing, Overloaded

logger = logging.getLogger("eftlocal.server.worker")

T = TypeVar("T")
_Delivery = tuple[Job, list[TokenEvent]]


@dataclass(frozen=True, slots=True)
class Slot:
    """What a sequence does.

    Attributes:
        sequence: its number.
        state: "idle", "prompt" (being read) or "generating".
        job: id of the job that runs there, 0 for none.
        prompt_tokens, prefilled, cached_tokens, generated_tokens: of the job, 0 for none.
        held_tokens: what the base's cache holds, also after a job.
    """

    sequence: int
    state: str = "idle"
    job: int = 0
    prompt_tokens: int = 0
    prefilled: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    held_tokens: int = 0


class Worker:
    """One model and its thread.

    Args:
        model: it belongs to this worker from now on.
        queue: jobs that may wait for a sequence, at most.
        on_end: called for every job that is over, in any thread, with its completion (None where
            it never ran) and its error (None where there was none).
    """

    def __init__(
        self,
        model: FusedModel,
        *,
        queue: int = 64,
        on_end: Callable[[Job, Completion | None, BaseException | None], None] | None = None,
    ) -> None:
        self.model = model
        self.n_sequences = model.engine.ensemble.n_sequences
        self.idle_since = time.monotonic()
        self._queue = queue
        self._on_end = on_end
        self._wake = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._n_calls = 0
        self._is_closing = False
        self._must_stop = False
        self._thread = threading.Thread(target=self._run, name=f"worker-{model.name}", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Jobs that have a sequence."""
        return len(self._running)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, waits or is being prepared."""
        return not (self._running or self._waiting or self._n_calls)

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs; an error that it did not expect ends it."""
        return self._thread.is_alive()

    async def call(self, function: Callable[[FusedModel], T]) -> T:
        """Have another thread do what needs the model but not its engine: prepare, tokenize.

        The model stays open until it is done.

        Raises:
            Closing: where the worker is ending.
        """
        with self._wake:
            if self._is_closing:
                raise Closing
            self._n_calls += 1
        is_begun = is_left = False

        def begin() -> T:
            nonlocal is_begun
            with self._wake:
                if is_left:
                    raise Closing
                is_begun = True
            try:
                return function(self.model)
            finally:
                self._end_call()

        work = asyncio.ensure_future(run_in_threadpool(begin))
        try:
            return await asyncio.shield(work)
        finally:
            with self._wake:
                is_left = not is_begun
            if is_left:
                # A caller that leaves while it waits for a thread never gets one.
                work.cancel()
                self._end_call()
            # A thread cannot be stopped: who leaves keeps the place among requests until it ends.
            await outlast(work)

    def _end_call(self) -> None:
        with self._wake:
            self._n_calls -= 1
            self._note_idle()

    def submit(self, prepared: Prepared) -> Job:
        """Queue a request; on the event loop.

        Raises:
            Overloaded: where the queue is full.
            Closing: where the worker is ending.
        """
        with self._wake:
            if self._is_closing:
                raise Closing
            # Jobs for which a sequence is free do not wait, they are only not started yet.
            if len(self._waiting) >= self._queue + self.n_sequences - len(self._running):
                raise Overloaded
            job = Job(prepared, self._cancel)
            self._waiting.append(job)
            self._wake.notify()
        return job

    def _cancel(self, job: Job) -> None:
        with self._wake:
            if job in self._waiting:
                self._waiting.remove(job)
                self._end(job, None, None)
            elif job.stream is not None:
                job.stream.cancel()

    def close(self, grace: float = 0.0) -> None:
        """Take no more jobs, give those that there are so many seconds, then free the model.

        Blocks until it is done; a second call makes the grace end earlier.
        """
        deadline = time.monotonic() + grace
        with self._wake:
            self._is_closing = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: self.is_idle, deadline - time.monotonic())
            self._must_stop = True
            self._wake.notify_all()
        self._thread.join()

    def slots(self) -> list[Slot]:
        """What every sequence does; any thread may ask."""
        ensemble = self.model.engine.ensemble
        base = ensemble.contexts[ensemble.roles.base]
        jobs = {job.stream.sequence: job for job in list(self._running) if job.stream}
        slots = []
        for sequence in range(self.n_sequences):
            held = len(base.tokens(sequence))
            slots.append(_slot(sequence, jobs.get(sequence), held))
        return slots

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(lambda: self._waiting or self._running or self._must_stop)
                    if self._must_stop:
                        break
                    self._start_jobs()
                if self._running:
                    self._step()
        finally:
            self._stop()

    def _start_jobs(self) -> None:
        """Give waiting jobs the free sequences; the lock is held."""
        while self._waiting and len(self._running) < self.n_sequences:
            job = self._waiting.popleft()
            try:
                job.stream = self.model.start(job.prepared)
            except Exception as error:
                self._end(job, None, error)
                continue
            job.started = time.perf_counter()
            self._running.append(job)

    def _step(self) -> None:
        failure: Exception | None = None
        try:
            self.model.engine.step()
        except Exception as error:
            logger.exception("a step of %s failed", self.model.name)
            failure = error
        deliveries: list[_Delivery] = []
        for job in list(self._running):
            stream = job.stream
            assert stream is not None
            if failure is not None:
                stream.close()
            events = stream.take()
            if stream.is_running:
                if events:
                    deliveries.append((job, events))
                continue
            job.post(job.arrive, events)
            with self._wake:
                self._running.remove(job)
                self._end(job, stream.completion, stream.error or failure)
        if deliveries:
            deliveries[0][0].post(_deliver, deliveries)

    def _end(self, job: Job, completion: Completion | None, error: BaseException | None) -> None:
        """Report that a job is over; the lock is held."""
        # What counts jobs has counted this one when its client hears of the end.
        if self._on_end:
            self._on_end(job, completion, error)
        job.post(job.end, completion, error)
        self._note_idle()

    def _note_idle(self) -> None:
        if self.is_idle:
            self.idle_since = time.monotonic()
            self._wake.notify_all()

    def _stop(self) -> None:
        """End what still waits or runs, and free the model; in the worker's thread."""
        with self._wake:
            self._is_closing = self._must_stop = True
            while self._waiting:
                self._end(self._waiting.popleft(), None, Closing())
            while self._running:
                job = self._running.pop()
                if job.stream is not None:
                    job.stream.close()
                    job.post(job.arrive, job.stream.take())
                    self._end(job, job.stream.completion, Closing())
            self._wake.wait_for(lambda: self._n_calls == 0)
        self.model.close()


async def outlast(work: asyncio.Future[Any]) -> None:
    """Wait until a future is over, however often the waiting task is cancelled."""
    while not work.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait((work,))
    if not work.cancelled():
        work.exception()


def _deliver(deliveries: list[_Delivery]) -> None:
    """Hand out what one step brought; one call of the event loop for all jobs."""
    for job, events in deliveries:
        job.arrive(events)


def _slot(sequence: int, job: Job | None, held: int) -> Slot:
    if job is None or job.stream is None:
        return Slot(sequence, held_tokens=held)
    done, total = job.prefilled
    timings = job.stream.timings
    return Slot(
        sequence,
        state="generating" if done == total else "prompt",
        job=job.id,
        prompt_tokens=total,
        prefilled=done,
        cached_tokens=timings.cached_tokens,
        generated_tokens=timings.generated_tokens,
        held_tokens=held,
    )
