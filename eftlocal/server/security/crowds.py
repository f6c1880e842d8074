"""How large a request's head may be, how many requests there may be; none while it ends."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from ..failures import ApiError, failure_of
from ..states import Closing, Overloaded, Unavailable

_ALWAYS = frozenset({"/health", "/v1/health", "/metrics"})
"""What watches a server is answered in any case."""


class HeadLimit:
    """Answers 431 where the request line and headers are too large.

    What arrives in one piece passes the limit of the HTTP parser.

    Args:
        app: what gets the request otherwise.
        most: bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "http":
            size = len(scope["path"]) + len(scope["query_string"])
            # Each header takes four bytes more: ": " and the end of its line.
            size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
            if size > self._most:
                message = f"the head of the request is too large; send at most {self._most:,} bytes"
                await failure_of(ApiError(431, message)).response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


class RequestLimit:
    """Answers 503 where there are too many requests, or the server takes no more.

    Args:
        app: what gets the request otherwise.
        most: requests under way at once.
        is_draining: whether new requests are refused.
    """

    def __init__(self, app: ASGIApp, most: int, is_draining: Callable[[], bool]) -> None:
        self._app = app
        self._most = most
        self._is_draining = is_draining
        self._n_running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 503 and Retry-After."""
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            await self._app(scope, receive, send)
            return
        error: Unavailable | None = None
        if self._is_draining():
            error = Closing()
        elif self._n_running >= self._most:
            error = Overloaded()
        if error is not None:
            await failure_of(error).response()(scope, receive, send)
            return
        self._n_running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._n_running -= 1
