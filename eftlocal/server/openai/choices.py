"""Several completions of one request, as many at a time as the model has sequences."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from ...generation import TokenEvent
from ...stream import Completion, Prepared
from ..jobs import Job
from ..states import Overloaded
from ..worker import Worker

# How long a choice that finds the queue full waits before it tries again.
_RETRY_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class News:
    """What happened to one choice.

    Attributes:
        choice: its index.
        events: new tokens.
        completion: the whole, where this is its end.
    """

    choice: int
    events: Sequence[TokenEvent] = ()
    completion: Completion | None = None


_Item = News | BaseException


class Choices:
    """Runs completions and tells what they bring, in any order.

    A request with many choices takes no more places in the queue than there are sequences, so that
    others get their turn.

    Args:
        worker: of the model.
        prepared: one per choice.

    Raises:
        Overloaded, Closing: where the first of them finds no place.
    """

    def __init__(self, worker: Worker, prepared: Sequence[Prepared]) -> None:
        self._worker = worker
        # Two prompts that are read by turns lie mixed in a common cache, which changes the last
        # digits of what llama.cpp computes, and of scores; reading them by turns gains nothing.
        self._has_scores = any(item.request.echo for item in prepared)
        self._rest = list(enumerate(prepared))[:0:-1]
        self._first = worker.submit(prepared[0])
        self._jobs = {self._first}
        self._queue: asyncio.Queue[_Item] = asyncio.Queue(maxsize=16)
        self._n_open = len(prepared)

    async def news(self, idle_seconds: float | None = None) -> AsyncGenerator[News | None]:
        """What happens, until all choices are over; closing this ends them.

        Args:
            idle_seconds: after so long without news there is a None.

        Raises:
            EftlocalError: what ended a choice, where that was an error.
        """
        width = 1 if self._has_scores else min(self._n_open, self._worker.n_sequences)
        tasks = [asyncio.ensure_future(self._run_first())]
        tasks += [asyncio.ensure_future(self._run_rest()) for _ in range(width - 1)]
        try:
            while self._n_open:
                item = await self._next(idle_seconds)
                if isinstance(item, BaseException):
                    raise item
                yield item
                self._n_open -= item is not None and item.completion is not None
        finally:
            self.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def cancel(self) -> None:
        """End what runs."""
        for job in self._jobs:
            job.cancel()

    async def _next(self, idle_seconds: float | None) -> _Item | None:
        try:
            async with asyncio.timeout(idle_seconds):
                return await self._queue.get()
        except TimeoutError:
            return None

    async def _run_first(self) -> None:
        try:
            await self._follow(0, self._first)
            await self._take_rest()
        except Exception as error:
            await self._queue.put(error)

    async def _run_rest(self) -> None:
        try:
            await self._take_rest()
        except Exception as error:
            await self._queue.put(error)

    async def _take_rest(self) -> None:
        while self._rest:
            choice, prepared = self._rest.pop()
            await self._follow(choice, await self._submit(prepared))

    async def _submit(self, prepared: Prepared) -> Job:
        while True:
            try:
                job = self._worker.submit(prepared)
            except Overloaded:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self._jobs.add(job)
                return job

    async def _follow(self, choice: int, job: Job) -> None:
        async with job:
            async for events in job.batches():
                await self._queue.put(News(choice, events))
            await self._queue.put(News(choice, completion=job.completion))
        self._jobs.discard(job)
