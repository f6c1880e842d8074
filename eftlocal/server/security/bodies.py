"""Request bodies: read whole, up to a size and for a time, and parsed before a route sees them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..failures import ApiError, failure_of
from ..settings import Limits
from .strict_json import parse_object

_LINGER_SECONDS = 1.0
_LINGER_BYTES = 4 * 1024 * 1024
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})


class BodyReader:
    """Reads and checks the body of a request.

    What is not one JSON object is an error of the route that would have taken it, see `refuse_bad`:
    an unknown address stays a 404. Whatever the content type says, a body is JSON: curl says
    x-www-form-urlencoded by itself.

    Args:
        app: gets the request with the whole body as one message.
        limits: max_body and body_timeout.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body, or answer it with 408, 413 or 415."""
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(Headers(scope=scope), receive)
        except ApiError as error:
            await _refuse(error, scope, receive, send)
            return
        if body is None:
            return
        state = scope.setdefault("state", {})
        try:
            state["json"] = parse_object(body) if body else None
        except ApiError as error:
            state["body_error"] = error
            body = b"{}"
        scope = {**scope, "headers": list(scope["headers"])}
        headers = MutableHeaders(scope=scope)
        headers["content-type"] = "application/json"
        await self._app(scope, _replayed(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body, None where the client left.

        Raises:
            ApiError: 413, 408 or 415.
        """
        most = self._limits.max_body
        too_large = ApiError(413, f"the body is too large; send at most {most:,} bytes")
        if int(headers.get("content-length") or 0) > most:
            raise too_large
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(415, "the body is compressed; send it as it is")
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_large
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            seconds = self._limits.body_timeout
            raise ApiError(408, f"the body did not arrive within {seconds:g} seconds") from None


def refuse_bad(request: Request) -> None:
    """Dependency of all routes: raise what was wrong with the JSON of the body."""
    error = getattr(request.state, "body_error", None)
    if error is not None:
        raise error


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A channel that gives the body once, then whatever the connection says."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without reading the rest, and close the connection.

    A connection that is closed while bytes arrive is reset, and then many clients lose the answer:
    so a little of the rest is read and dropped before the end.
    """
    failure = failure_of(error)
    response = failure.response()
    response.headers["connection"] = "close"
    held: list[Message] = []

    async def hold(message: Message) -> None:
        held.append(message)

    await response(scope, receive, hold)
    *most, last = held
    for message in most:
        await send(message)
    await send({**last, "more_body": True})
    if "expect" not in Headers(scope=scope):
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await _drop(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drop(receive: Receive) -> None:
    dropped = 0
    more = True
    while more and dropped < _LINGER_BYTES:
        message = await receive()
        dropped += len(message.get("body", b""))
        more = bool(message.get("more_body"))
