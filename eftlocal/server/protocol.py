"""HTTP/1.1 connections of uvicorn, with an end for those that take without giving."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from .failures import error_object
from .settings import Limits


class Connection(H11Protocol):
    """A connection that is closed where no whole request head comes, or an answer stays unread.

    uvicorn itself waits without end for the first head, for one that comes byte by byte, for the
    rest of a body that was refused, and for a client that does not read.
    """

    limits = Limits()
    """Replaced in the class that `connection_class` makes."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._idle_end: asyncio.TimerHandle | None = None
        self._unread_end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or send it away where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            transport.write(_answer(503, "the server has too many connections", "Retry-After: 1"))
            transport.close()
            return
        self._look()

    def data_received(self, data: bytes) -> None:
        """Take bytes; only a whole head keeps the connection open."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Go on with the next request, if there is one."""
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the timers with the connection."""
        for timer in (self._idle_end, self._unread_end):
            if timer is not None:
                timer.cancel()
        self._idle_end = self._unread_end = None
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def pause_writing(self) -> None:
        """Give the client some time to read."""
        super().pause_writing()
        wait = self.limits.write_timeout
        self._unread_end = self.loop.call_later(wait, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        if self._unread_end is not None:
            self._unread_end.cancel()
            self._unread_end = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or has a head that is too large."""
        if not (self.cycle and self.cycle.response_started and not self.cycle.response_complete):
            most = f"{self.limits.max_head:,} bytes"
            message = f"this is not a valid HTTP request, or its head has more than {most}"
            self.transport.write(_answer(400, message))
        self.transport.close()

    def _should_upgrade(self) -> bool:
        return False

    def _look(self) -> None:
        """Let the time for the next request run while there is none."""
        if self.cycle is not None and not self.cycle.response_complete:
            if self._idle_end is not None:
                self._idle_end.cancel()
                self._idle_end = None
        elif self._idle_end is None and not self.transport.is_closing():
            self._idle_end = self.loop.call_later(self.limits.keep_alive, self._end_idle)

    def _end_idle(self) -> None:
        self._idle_end = None
        self.transport.close()


def connection_class(limits: Limits) -> type[Connection]:
    """The class of connections with these limits."""
    return type("LimitedConnection", (Connection,), {"limits": limits})


_PHRASES = {400: "Bad Request", 503: "Service Unavailable"}


def _answer(status: int, message: str, *headers: str) -> bytes:
    """A whole answer that ends the connection."""
    kind = "unavailable_error" if status == 503 else "invalid_request_error"
    body = json.dumps(error_object(message, kind)).encode()
    lines = (
        f"HTTP/1.1 {status} {_PHRASES[status]}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode() + body
