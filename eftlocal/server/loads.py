"""One load of a model entry: in a thread, with progress, and an end that can be asked for."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import threading
import time
from contextlib import suppress

from ..errors import (
    BackendError,
    ContextFull,
    HubError,
    ModelFileError,
    NotDownloaded,
    PromptError,
    RegistryError,
    UsageError,
    VocabularyMismatch,
)
from ..model import FusedModel
from .settings import Served
from .states import Closing, LoadFailed
from .worker import Worker, outlast

logger = logging.getLogger("eftlocal.server.host")

_FIRST_GUESS = 300e6
"""Bytes that a disk reads in a second, until the progress of the load says more."""

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (NotDownloaded, "a file of it is not downloaded (eftlocal pull gets it)"),
    (HubError, "a file of it cannot be had from the hub"),
    (ModelFileError, "a file of it is missing or damaged"),
    (VocabularyMismatch, "its models have different vocabularies"),
    (RegistryError, "its model entry is not valid"),
    (UsageError, "an option of it is not allowed"),
    (PromptError, "its chat template cannot be used"),
    (ContextFull, "its context is too short"),
    (MemoryError, "there is too little memory"),
    (BackendError, "llama.cpp could not load it"),
)


class Load:
    """A load under way.

    Args:
        served: what is loaded.
        n_bytes: of its files; 0 where that is not known.
        verbose: have llama.cpp's own log.

    Attributes:
        progress: 0 to 1.
    """

    def __init__(self, served: Served, n_bytes: int = 0, verbose: bool = False) -> None:
        self._served = served
        self._verbose = verbose
        self._n_bytes = n_bytes
        self._started = time.monotonic()
        self._must_stop = threading.Event()
        self.progress = 0.0

    async def run(self) -> FusedModel:
        """Load in a thread; where this is cancelled, the thread is over before it raises.

        Raises:
            LoadFailed: why, without paths; the log has the error itself.
            Closing: where `abort` was called.
        """
        work = asyncio.ensure_future(asyncio.to_thread(self._load))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self.abort()
            await outlast(work)
            if work.exception() is None:
                await outlast(asyncio.ensure_future(asyncio.to_thread(work.result().close)))
            raise

    def abort(self) -> None:
        """End the load at its next sign of progress."""
        self._must_stop.set()

    def retry_after(self) -> int:
        """Seconds that it will still take, as far as can be told; 1 to 600."""
        elapsed = time.monotonic() - self._started
        if self.progress > 0.02:
            left = elapsed * (1 - self.progress) / self.progress
        else:
            left = self._n_bytes / _FIRST_GUESS - elapsed
        return min(600, max(1, round(left)))

    def _load(self) -> FusedModel:
        name = self._served.name
        try:
            return self._served.load(self._report, self._verbose)
        except Closing:
            raise
        except Exception as error:
            logger.error("%s cannot be loaded: %s: %s", name, type(error).__name__, error)
            reasons = (text for kind, text in _REASONS if isinstance(error, kind))
            raise LoadFailed(name, next(reasons, "an internal error")) from error

    def _report(self, progress: float) -> None:
        if self._must_stop.is_set():
            raise Closing
        self.progress = progress


def close_worker(worker: Worker, grace: float) -> None:
    """Close a worker and give its memory back to the system; blocks until that is done."""
    worker.close(grace)
    del worker
    # What a model leaves in reference cycles, and in malloc's free lists.
    gc.collect()
    _trim()


def _trim() -> None:
    """Ask the C library for what it keeps of freed memory; only glibc can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
