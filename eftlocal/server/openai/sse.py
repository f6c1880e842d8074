"""Server-sent events: chunks as JSON, comments that keep a connection open, errors, the end.

Not `sse_starlette`: on SIGTERM it cuts every stream, and ours still get a final event.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from ..disconnect import ClosingStream
from ..failures import of_request

KEEP_ALIVE_SECONDS = 5.0
"""After so long without news, as while a long prompt is read, a stream sends a comment."""

KEEP_ALIVE = ": keep-alive\n\n"
DONE = "data: [DONE]\n\n"


class EventStream(ClosingStream):
    """A stream of chunks that ends with [DONE], also after an error.

    Args:
        request: that is answered.
        chunks: JSON objects; None stands for a while without news.
        on_close: called when the response is over, also where not one chunk was taken.
    """

    def __init__(
        self,
        request: Request,
        chunks: AsyncGenerator[Mapping[str, Any] | None],
        on_close: Callable[[], None],
    ) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_events(request, chunks), "text/event-stream", headers)
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the chunks until they end or the client leaves."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()


def event(data: Mapping[str, Any]) -> str:
    """A JSON object as an event."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"data: {text}\n\n"


async def _events(
    request: Request, chunks: AsyncGenerator[Mapping[str, Any] | None]
) -> AsyncGenerator[str]:
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                yield KEEP_ALIVE if chunk is None else event(chunk)
        except Exception as error:
            yield event(of_request(request, error).object)
        yield DONE
