"""What a host knows of each entry: its state, its worker, and when it is unloaded."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from ..registry import Entry
from .facts import FactsReader
from .loads import Load
from .served import Footprint
from .settings import Served
from .states import LoadFailed
from .worker import Worker

_SETTLE = 0.1
"""Seconds after the last use in which the next job of the same request may come."""

_UNCLAIMED = 30.0
"""Seconds for which a new worker waits for the request that was told to try again."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long things may take, in seconds.

    Attributes:
        patience: a request waits so long for a load, or for room, before it is refused.
        retry_failed: a load that failed is not tried again for so long.
    """

    patience: float = 0.25
    retry_failed: float = 5.0


@dataclass(frozen=True, slots=True)
class EntryState:
    """What an entry does now.

    Attributes:
        name: of the entry.
        state: "unloaded", "loading", "loaded" or "failed".
        progress: of a load, 0 to 1.
        failure: why the last load failed; "" where it did not.
        footprint: what it takes; None where it was never loaded, or that is not known.
        loaded_at: time.time of the end of the load; 0 where it is not loaded.
        expires_at: time.time at which it is unloaded if nothing asks for it; None is never.
        is_busy: whether requests run or wait.
    """

    name: str
    state: str
    progress: float
    failure: str
    footprint: Footprint | None
    loaded_at: float
    expires_at: float | None
    is_busy: bool


class Place:
    """One entry and what is there of it.

    Args:
        served: how it is loaded.
        entry: what it is made of.
        idle_timeout: seconds without a request after which it is unloaded; 0 is never, None
            what the entry says.
        waits: how long things may take.

    Attributes:
        state: "unloaded", "loading", "loaded" or "failed".
        worker: where it is loaded.
        load, task: while it is loaded.
        is_blocked: the load waits until another entry is idle.
        closing: the end of the worker that was unloaded last.
        failure: why the last load failed.
        footprint: what it takes, from the last load.
        timeout: seconds without a request after which it is unloaded; None is never.
        used: time.monotonic of the last request.
        leases: requests that hold the worker, with a job or without.
        facts: what its files say.
    """

    def __init__(
        self, served: Served, entry: Entry, idle_timeout: float | None, waits: Waits
    ) -> None:
        self.served = served
        self.entry = entry
        chosen = entry.idle_timeout if idle_timeout is None else idle_timeout
        self._default_timeout = chosen or None
        self._waits = waits
        self.state = "unloaded"
        self.worker: Worker | None = None
        self.load: Load | None = None
        self.task: asyncio.Task[Worker] | None = None
        self.is_blocked = False
        self.closing: asyncio.Future[None] | None = None
        self.failure: LoadFailed | None = None
        self.footprint: Footprint | None = None
        self.timeout = self._default_timeout
        self.used = 0.0
        self.leases = 0
        self.facts = FactsReader(entry)
        self._failed_at = 0.0
        self._loaded_at = 0.0
        self._kept_until = 0.0

    def hand_out(self, keep_alive: float | None) -> Worker:
        """The worker for a request, which says how long the entry is kept; see `Host.worker`."""
        assert self.worker is not None
        self.used = time.monotonic()
        self._kept_until = 0.0
        if keep_alive is None:
            self.timeout = self._default_timeout
        else:
            self.timeout = keep_alive if keep_alive >= 0 else None
        return self.worker

    def let_go(self) -> None:
        """Have it unloaded as soon as nobody uses it."""
        self.timeout = self._kept_until = 0.0

    def lease_to(self, task: asyncio.Task[Any] | None) -> None:
        """Count as busy until a task is over."""
        if task is not None:
            self.leases += 1
            task.add_done_callback(self.end_lease)

    def end_lease(self, _: object = None) -> None:
        """Note that a lease is over."""
        self.leases -= 1
        self.used = time.monotonic()

    def take_worker(self) -> Worker | None:
        """The worker, for the last time: it is going to be closed."""
        worker, self.worker = self.worker, None
        if worker is not None:
            self._loaded_at = 0.0
            if self.state == "loaded":
                self.state = "unloaded"
        return worker

    def loaded(self, worker: Worker) -> None:
        """Note that a load is done."""
        self.state, self.worker = "loaded", worker
        self.used, self._loaded_at = time.monotonic(), time.time()
        self.timeout = self._default_timeout
        self._kept_until = self.used + _UNCLAIMED

    def failed(self, failure: LoadFailed | None) -> None:
        """Note that a load failed, or (None) was ended."""
        self.state = "failed" if failure else "unloaded"
        self.failure, self._failed_at = failure, time.monotonic()
        if failure is not None and failure.__cause__ is not None:
            # Frames keep half a model alive.
            cause = failure.__cause__.with_traceback(None)
            cause.__cause__ = cause.__context__ = failure.__context__ = None

    def load_ended(self, task: asyncio.Task[Worker]) -> None:
        """Note that the task of a load is over, even one that never ran."""
        self.load = self.task = None
        self.is_blocked = False
        if not task.cancelled():
            task.exception()  # kept in `failure`; nobody else may ask for it

    def check_failure(self) -> None:
        """Raise `LoadFailed` where the last load failed just now."""
        recent = time.monotonic() - self._failed_at < self._waits.retry_failed
        if self.failure is not None and recent:
            raise self.failure.with_traceback(None)

    @property
    def is_busy(self) -> bool:
        """Whether somebody uses the worker, or is about to."""
        if self.worker is None:
            return False
        if self.leases or not self.worker.is_idle:
            return True
        return time.monotonic() - self.idle_since < _SETTLE

    @property
    def idle_since(self) -> float:
        """time.monotonic of the last request or of the end of the last job."""
        return max(self.used, self.worker.idle_since if self.worker else 0.0)

    @property
    def is_due(self) -> bool:
        """Whether it was idle for as long as it is kept."""
        if self.worker is None or self.timeout is None or self.is_busy:
            return False
        return time.monotonic() >= max(self.idle_since + self.timeout, self._kept_until)

    def describe(self) -> EntryState:
        """What it does now."""
        expires_at = None
        if self.worker is not None and self.timeout is not None:
            idle = 0.0 if self.is_busy else time.monotonic() - self.idle_since
            expires_at = time.time() + max(0.0, self.timeout - idle)
        return EntryState(
            name=self.served.name,
            state=self.state,
            progress=self.load.progress if self.load else float(self.worker is not None),
            failure=str(self.failure or ""),
            footprint=self.footprint,
            loaded_at=self._loaded_at,
            expires_at=expires_at,
            is_busy=self.is_busy,
        )
