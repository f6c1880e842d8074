"""The model entries that a server offers: loaded on demand, kept while they fit, unloaded idle.

Everything here runs on one event loop; loading and unloading happen in threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from ..options import GenerationOptions, RuntimeOptions
from ..registry import Entry
from ..stream import Completion
from .facts import Facts
from .jobs import Job
from .loads import Load, close_worker
from .places import EntryState, Place, Waits
from .served import Footprint, entry_of, find_name, footprint
from .settings import Settings
from .states import Closing, LoadFailed, Loading, Overloaded
from .worker import Worker

logger = logging.getLogger("eftlocal.server.host")

OnJobEnd = Callable[[str, Job, Completion | None, BaseException | None], None]
"""Called with the entry's name and what `Worker`'s on_end gets."""

_STEP = 0.05
"""Seconds between two looks at whether something became idle."""


class Host:
    """Entries and their workers.

    Args:
        settings: what is served, and how it is loaded and unloaded.
        on_job_end: called for every job that is over, in any thread; must be quick.
        waits: how long things may take.

    Raises:
        RegistryError: where an entry that is to be served does not exist.
    """

    def __init__(
        self, settings: Settings, on_job_end: OnJobEnd | None = None, waits: Waits | None = None
    ) -> None:
        self._settings = settings
        self._on_job_end = on_job_end
        self._waits = waits or Waits()
        self._places = {
            served.name: Place(served, entry_of(served), settings.idle_timeout, self._waits)
            for served in settings.served
        }
        self._one_load = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self.is_closing = False

    def names(self) -> list[str]:
        """The names of all entries that are served, loaded or not."""
        return list(self._places)

    def entries(self) -> list[Entry]:
        """All entries that are served, loaded or not."""
        return [place.entry for place in self._places.values()]

    def find(self, name: str | None) -> Entry:
        """The entry of that name or alias, with ":latest" or without; None is the first.

        Raises:
            RegistryError: where no such entry is served.
        """
        return self._find(name).entry

    def state(self, name: str | None) -> EntryState:
        """What one entry does now; see `find`."""
        return self._find(name).describe()

    def states(self) -> list[EntryState]:
        """What every entry does now."""
        return [place.describe() for place in self._places.values()]

    def loaded(self) -> dict[str, Worker]:
        """The workers that there are, by the names of their entries; loads nothing."""
        places = self._places.items()
        return {name: place.worker for name, place in places if place.worker is not None}

    async def worker(
        self, name: str | None = None, wait: bool = False, keep_alive: float | None = None
    ) -> Worker:
        """The worker of an entry, which is loaded where it is not.

        Until the task that calls this is over the entry counts as busy, so that it is not unloaded
        while a prompt is prepared, which takes a thread and no job.

        Args:
            name: of the entry, or an alias; None is the first entry.
            wait: for a load, or for room to load, however long it takes.
            keep_alive: seconds without a request after which it is unloaded; 0 is as soon as it
                is idle, below 0 never; None is what the settings or the entry say.

        Raises:
            RegistryError: where no such entry is served.
            Loading: while it is loaded.
            Overloaded: where it can only be loaded when a busy entry has become idle.
            LoadFailed: where it cannot be loaded.
            Closing: where the server ends.
        """
        place = self._find(name)
        while True:
            if self.is_closing:
                raise Closing
            if place.worker is not None and place.worker.is_alive:
                place.lease_to(asyncio.current_task())
                return place.hand_out(keep_alive)
            place.check_failure()
            task = self._start_load(place)
            await asyncio.wait((task,), timeout=None if wait else self._waits.patience)
            if not task.done():
                raise _no_room() if place.is_blocked else Loading(self._retry_after())
            if task.cancelled():
                raise Closing(message="the model is being unloaded")
            error = task.exception()
            if error is not None and not (wait and isinstance(error, Overloaded)):
                raise error
            if error is not None:
                await asyncio.sleep(_STEP)

    @asynccontextmanager
    async def use(
        self, name: str | None = None, wait: bool = False, keep_alive: float | None = None
    ) -> AsyncIterator[Worker]:
        """`worker` for a block: the entry counts as busy until its end."""
        worker = await self.worker(name, wait, keep_alive)
        place = self._find(name)
        place.leases += 1
        try:
            yield worker
        finally:
            place.end_lease()

    async def facts(self, name: str | None = None) -> Facts:
        """What the files of an entry say; reads their headers in a thread, once."""
        return await asyncio.to_thread(self._find(name).facts.read)

    def options(self, name: str | None = None) -> GenerationOptions:
        """What an entry generates with where a request says nothing else."""
        place = self._find(name)
        options = GenerationOptions().updated(place.entry.options)
        return options.updated(place.served.generation)

    def changes(self, name: str | None = None) -> Mapping[str, Any]:
        """What the command line changes in the options of an entry."""
        return self._find(name).served.generation

    def runtime(self, name: str | None = None) -> RuntimeOptions:
        """How an entry is loaded."""
        place = self._find(name)
        return RuntimeOptions().updated(place.entry.runtime).updated(place.served.runtime)

    def preload(self, name: str | None = None) -> None:
        """Begin to load an entry, and return at once; `states` says how it goes."""
        place = self._find(name)
        if place.worker is None:
            self._start_load(place)

    async def release(self, name: str | None = None) -> None:
        """Unload an entry as soon as no request uses it; waits for that only where none does.

        Raises:
            RegistryError: where no such entry is served.
        """
        place = self._find(name)
        place.let_go()
        if place.task is not None:
            place.task.cancel()
            await asyncio.wait((place.task,))
        if place.worker is not None and not place.is_busy:
            await self._unload(place)

    def drain(self) -> None:
        """Take no more requests; those that run go on until `close`."""
        self.is_closing = True

    async def close(self, grace: float = 5.0) -> None:
        """End all loads and workers; requests get so many seconds."""
        self.drain()
        if self._watch is not None:
            self._watch.cancel()
        tasks = [place.task for place in self._places.values() if place.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(self._unload(place, grace) for place in self._places.values()))

    def _find(self, name: str | None) -> Place:
        if name is None:
            return next(iter(self._places.values()))
        return self._places[find_name(self.entries(), name)]

    def _retry_after(self) -> int:
        """Seconds until all loads that were asked for are done."""
        loads = [place.load for place in self._places.values() if place.load is not None]
        return sum(load.retry_after() for load in loads) or 1

    def _start_load(self, place: Place) -> asyncio.Task[Worker]:
        if self._watch is None:
            self._watch = asyncio.create_task(self._unload_idle())
        if place.task is None:
            place.task = asyncio.create_task(self._load(place))
            place.task.add_done_callback(place.load_ended)
        return place.task

    async def _load(self, place: Place) -> Worker:
        try:
            place.state, place.failure = "loading", None
            async with self._one_load:
                await self._unload(place)
                n_bytes = await self._make_room(place)
                place.load = Load(place.served, n_bytes, self._settings.verbose)
                model = await place.load.run()
            on_end = self._on_job_end and partial(self._on_job_end, place.served.name)
            worker = Worker(model, queue=self._settings.queue, on_end=on_end)
            place.loaded(worker)
            logger.info("%s is loaded (%.1f s)", model.name, model.load_seconds)
            return worker
        except BaseException as error:
            place.failed(error if isinstance(error, LoadFailed) else None)
            raise

    async def _make_room(self, place: Place) -> int:
        """Unload others, least recently used first, until this one fits; returns its file sizes.

        Raises:
            Overloaded: where that needs one that stays busy.
        """
        deadline = time.monotonic() + self._waits.patience
        while True:
            others = [other for other in self._places.values() if other.worker is not None]
            await asyncio.gather(*(self._closed(other) for other in self._places.values()))
            if await self._fits(place, others):
                return place.footprint.n_bytes if place.footprint else 0
            idle = [other for other in others if other.worker and not other.is_busy]
            if idle:
                await self._unload(min(idle, key=lambda other: other.used))
            elif time.monotonic() > deadline:
                raise _no_room()
            else:
                place.is_blocked = True
                await asyncio.sleep(_STEP)

    async def _fits(self, place: Place, others: Sequence[Place]) -> bool:
        """Whether an entry fits beside others; alone it is always tried."""
        reserved = sum(other.footprint.mapped for other in others if other.footprint)
        place.footprint = found = await asyncio.to_thread(_footprint, place, reserved)
        if not others:
            return True
        most = self._settings.max_loaded
        # Files that are missing or not understood must not push others out.
        return (not most or len(others) < most) and (found is None or found.fits)

    async def _unload(self, place: Place, grace: float = 0.0) -> None:
        """Free the model of an entry, where there is one."""
        worker = place.take_worker()
        if worker is not None:
            place.closing = asyncio.ensure_future(asyncio.to_thread(close_worker, worker, grace))
        await self._closed(place)

    async def _closed(self, place: Place) -> None:
        """Wait until a model that is being unloaded is gone."""
        if place.closing is not None:
            with suppress(Exception):
                await asyncio.shield(place.closing)

    async def _unload_idle(self) -> None:
        """Unload every entry whose time is over; runs as long as the host."""
        while True:
            await asyncio.sleep(_STEP)
            for place in self._places.values():
                if place.is_due:
                    logger.info("%s is unloaded: nothing asked for it", place.served.name)
                    await self._unload(place)


def _no_room() -> Overloaded:
    message = "every loaded model is busy, and there is no room for another one"
    return Overloaded(message=message)


def _footprint(place: Place, reserved: int) -> Footprint | None:
    try:
        return footprint(place.entry, place.served, reserved)
    except Exception as error:
        logger.warning("what %s needs is not known: %s", place.entry.name, error)
        return None
