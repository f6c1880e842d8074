"""Server-sent events: chunks as JSON, comments that keep a connection open, errors, the end.

Not `sse_starlette`: on SIGTERM it cuts every stream, and ours still get a final event.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import Request

from ..disconnect import UNBUFFERED, ClosingStream, compact
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
        super().__init__(_events(request, chunks), "text/event-stream", UNBUFFERED, on_close)


def event(data: Mapping[str, Any]) -> str:
    """A JSON object as an event."""
    return f"data: {compact(data)}\n\n"


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
