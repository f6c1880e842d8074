"""Ctrl-C while models work: a request to stop that never raises inside the engine.

While an `Interrupts` is active SIGINT only sets a flag and calls the cancel function of what is
running; KeyboardInterrupt is raised by `check`, at a place that the caller chose.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_BOUNCE_SECONDS = 0.5
"""A second Ctrl-C within this time is a key held too long, not another wish."""


class Interrupts:
    """Counts Ctrl-C; use as a context manager around everything that touches models."""

    def __init__(self) -> None:
        self.count = 0
        self._counting = False
        self._last = 0.0
        self._cancel: Callable[[], None] | None = None
        self._previous: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self._counting:
            return
        now = time.monotonic()
        if self.count == 0 or now - self._last > _BOUNCE_SECONDS:
            self.count += 1
        self._last = now
        if self._cancel is not None:
            self._cancel()

    @contextmanager
    def during(self) -> Iterator[None]:
        """Count Ctrl-C in this block, from zero; elsewhere it is ignored."""
        self.count = 0
        self._counting = True
        try:
            yield
        finally:
            self._counting = False
            self._cancel = None

    def cancel_with(self, cancel: Callable[[], None]) -> None:
        """Call `cancel` at each Ctrl-C until the block of `during` ends, and for earlier ones."""
        self._cancel = cancel
        if self.count:
            cancel()

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C came since `during` began."""
        if self.count:
            raise KeyboardInterrupt
