"""What all routes of Ollama's API share: their errors, their lines, their times."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request

from ..disconnect import UNBUFFERED, ClosingStream, compact
from ..failures import of_request

Json = dict[str, Any]

NEVER = "9999-12-31T23:59:59Z"
"""When a model is unloaded that is kept for ever; Ollama's clients show years far ahead so."""


class OllamaError(BaseModel):
    """An answer that is an error."""

    error: str


ERROR_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"model": OllamaError, "description": "What is wrong, in one sentence"}
    for status in ("4XX", "5XX")
}


class OllamaRoute(APIRoute):
    """A route whose errors are {"error": "one sentence"}, as Ollama's are."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with errors answered."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:
                failure = of_request(request, error)
                headers = dict(failure.headers)
                return JSONResponse({"error": failure.message}, failure.status, headers)

        return answered


class JsonLines(ClosingStream):
    """A stream of one JSON object per line; an error is the last one.

    Args:
        request: that is answered.
        chunks: the objects.
        on_close: called when the response is over, also where not one chunk was taken.
    """

    def __init__(
        self, request: Request, chunks: AsyncGenerator[Json], on_close: Callable[[], None]
    ) -> None:
        super().__init__(_lines(request, chunks), "application/x-ndjson", UNBUFFERED, on_close)


async def _lines(request: Request, chunks: AsyncGenerator[Json]) -> AsyncGenerator[str]:
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                yield _line(chunk)
        except Exception as error:
            yield _line({"error": of_request(request, error).message})


def _line(chunk: Mapping[str, Any]) -> str:
    return f"{compact(chunk)}\n"


def timestamp(seconds: float | None = None) -> str:
    """A time.time, or now, as RFC 3339 in UTC."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    """A duration as Ollama gives it."""
    return max(0, round(seconds * 1e9))
