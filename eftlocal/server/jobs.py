"""One completion under way in a server: the event loop's view of a stream in a worker's thread."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Self

from ..generation import TokenEvent
from ..stream import Completion, Prepared, Stream

_ids = itertools.count(1)


class Job:
    """A prepared request that waits for a sequence, runs, or is over.

    Use it as an async context manager: leaving it ends the generation. Made by `Worker.submit`;
    belongs to one event loop, except for `cancel`.

    Attributes:
        prepared: what is to be generated.
        created: time.perf_counter of the request.
        started: the same when it got a sequence; 0 while it waits.
        cancelled: whether somebody ended it.
    """

    def __init__(self, prepared: Prepared, on_cancel: Callable[[Job], None]) -> None:
        self.id = next(_ids)
        self.prepared = prepared
        self.created = time.perf_counter()
        self.started = 0.0
        self.cancelled = False
        self.stream: Stream | None = None
        self._loop = asyncio.get_running_loop()
        self._on_cancel = on_cancel
        self._arrived = asyncio.Event()
        self._events: list[TokenEvent] = []
        self._completion: Completion | None = None
        self._error: BaseException | None = None
        self._is_over = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End the generation before its next step; does nothing where it is over."""
        if not self._is_over and not self.cancelled:
            self.cancelled = True
            self._on_cancel(self)

    async def batches(self) -> AsyncIterator[list[TokenEvent]]:
        """The events as they come, each with its text; ends when all have been handed out.

        Raises:
            EftlocalError: what ended the generation, where that was an error.
        """
        while not self._is_over or self._events:
            await self._arrived.wait()
            self._arrived.clear()
            events, self._events = self._events, []
            if events:
                yield events
        if self._error is not None:
            raise self._error

    async def result(self) -> Completion:
        """The completion, when it is whole.

        Raises:
            EftlocalError: as `batches` does.
        """
        async for _ in self.batches():
            pass
        return self.completion

    @property
    def completion(self) -> Completion:
        """What was generated; only after `batches` has ended."""
        assert self._completion is not None, "the generation is not over"
        return self._completion

    @property
    def prefilled(self) -> tuple[int, int]:
        """Prompt tokens of the base that have been read, and all of them."""
        total = self.prepared.prompt_tokens
        return (0 if self.stream is None else self.stream.prefilled), total

    def arrive(self, events: list[TokenEvent]) -> None:
        """Take events; on the event loop."""
        self._events += events
        self._arrived.set()

    def end(self, completion: Completion | None, error: BaseException | None) -> None:
        """Take the end; on the event loop."""
        self._completion = completion
        self._error = error
        self._is_over = True
        self._arrived.set()

    def post(self, action: Callable[..., None], *args: object) -> None:
        """Have the event loop do something, from any thread; nothing where it has been closed."""
        try:
            self._loop.call_soon_threadsafe(action, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
