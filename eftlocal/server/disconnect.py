"""End the work of a request as soon as its client leaves.

For answers in one piece: `await run_until_disconnect(request, coroutine)`. For streams: return a
`ClosingStream`, whose generator is closed (its `finally` runs) before the response is over.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from .states import ClientLeft

T = TypeVar("T")


async def run_until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine, and cancel it where the client leaves first.

    The coroutine is over, its `finally` blocks included, before this returns or raises.

    Args:
        request: whose body has been read; reading it here would lose it.
        work: what makes the answer.

    Raises:
        ClientLeft: where the client closed the connection first.
        Exception: whatever `work` raises.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_until_left(request.receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        await _end(watch)
        await _end(task)


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait until it is over; its result no longer matters."""
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()


UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers with which proxies pass on each chunk as it comes."""


def compact(chunk: Mapping[str, Any]) -> str:
    """A chunk as JSON on one line."""
    return json.dumps(chunk, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class ClosingStream(StreamingResponse):
    """A streaming response that closes its generator however it ends.

    Starlette leaves a generator that was cancelled between two chunks to the garbage collector.
    Here its `finally` blocks, which cancel jobs, have run when the response is over; and the
    client's leaving is seen while no chunk is sent, with every version of the ASGI protocol.

    Args:
        chunks: an async generator of text or bytes.
        media_type: such as "application/x-ndjson".
        headers: more headers.
        on_close: called when the response is over, also where not one chunk was taken.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[str | bytes],
        media_type: str,
        headers: Mapping[str, str] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(chunks, headers=headers, media_type=media_type)
        self._chunks = chunks
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the chunks until they end or the client leaves."""
        try:
            await self._send(receive, send)
        finally:
            if self._on_close is not None:
                self._on_close()

    async def _send(self, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self.stream_response(send))
        watch = asyncio.ensure_future(_until_left(receive))
        try:
            await asyncio.wait((sending, watch), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                # A connection that broke while a chunk was sent is a client that left.
                with suppress(OSError):
                    sending.result()
        finally:
            await _end(watch)
            await _end(sending)
            await self._chunks.aclose()
