"""uvicorn in this process: listens first, starts then, and ends within seconds when it is told to.

The first SIGTERM or SIGINT lets running requests finish for `grace` seconds, while new ones get
503; then streams get a last event. The second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp

from ..errors import EftlocalError
from .protocol import connection_class
from .settings import Settings
from .sockets import Listener

logger = logging.getLogger("eftlocal.server")

_LAST_SECONDS = 0.5
"""For answers to be sent after the grace."""
_MARGIN = 0.9
"""Seconds after the grace at which the process ends in any case."""


class Life(Protocol):
    """What lives as long as a server."""

    async def start(self) -> None:
        """Get ready; until then it answers what it can. An error ends the server."""

    async def close(self, grace: float) -> None:
        """Take nothing new, and end what runs within so many seconds."""


class Server(uvicorn.Server):
    """uvicorn with an end of our own.

    Args:
        config: of uvicorn.
        life: started when it listens, closed when a signal comes.
        listener: where it listens.
        draining: set as soon as the first signal has come.
        grace: seconds that running requests get.

    Attributes:
        failure: what `life.start` raised.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        life: Life,
        listener: Listener,
        draining: threading.Event,
        grace: float,
    ) -> None:
        super().__init__(config)
        self.failure: EftlocalError | None = None
        self._life = life
        self._listener = listener
        self._draining = draining
        self._grace = grace
        self._tasks: list[asyncio.Task[None]] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end with the first signal; end with the second."""
        if self._draining.is_set():
            self._leave(128 + sig)
        self._draining.set()
        watchdog = threading.Timer(self._grace + _MARGIN, self._leave, (0,))
        watchdog.daemon = True
        watchdog.start()

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listen, then begin to load."""
        await super().startup(sockets)  # type: ignore[arg-type]
        self._tasks.append(asyncio.create_task(self._start()))

    async def on_tick(self, counter: int) -> bool:
        """Notice, ten times a second, that a signal has come."""
        if self._draining.is_set() and len(self._tasks) == 1:
            self._tasks.append(asyncio.create_task(self._end()))
        return await super().on_tick(counter)

    async def _start(self) -> None:
        try:
            await self._life.start()
        except EftlocalError as error:
            if not self._draining.is_set():
                self.failure = error
                self._draining.set()

    async def _end(self) -> None:
        logger.info("ending: running requests get %g seconds", self._grace)
        try:
            await self._life.close(self._grace)
        finally:
            self.should_exit = True

    def _leave(self, code: int) -> None:
        self._listener.close()
        os._exit(code)


def serve(
    app: ASGIApp, life: Life, listener: Listener, settings: Settings, draining: threading.Event
) -> None:
    """Serve an application until a signal comes or `life` fails to start.

    Raises:
        EftlocalError: what `life.start` raised.
    """
    limits = settings.limits
    config = uvicorn.Config(
        app,
        http=connection_class(limits),
        loop="asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=limits.keep_alive,
        timeout_graceful_shutdown=_LAST_SECONDS,  # type: ignore[arg-type]
        h11_max_incomplete_event_size=limits.max_head,
    )
    server = Server(config, life, listener, draining, settings.grace)
    try:
        server.run([listener.socket])
    finally:
        listener.close()
        logger.info("ended")
    if server.failure is not None:
        raise server.failure
