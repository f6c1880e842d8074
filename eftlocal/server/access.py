"""One line of the log per request, an id that answers and the log share, and the last resort.

The log never has contents, query strings, headers or keys.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .failures import CLIENT_LEFT, Failure, error_object

logger = logging.getLogger("eftlocal.server")
access_logger = logging.getLogger("eftlocal.access")

_LONGEST_PATH = 200
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(slots=True)
class _Exchange:
    """What became of one request; `status` is 0 until the answer begins."""

    request_id: str
    status: int = 0
    is_complete: bool = False
    has_left: bool = False


class AccessLog:
    """The outermost layer: logs every request and answers what nobody else could.

    A route may set `request.state.tokens = (prompt tokens, generated tokens)` for the log.

    Args:
        app: the application, behind its checks.
        shares: whether pages of other origins may read answers.
        on_answer: called with the status of every answer.
    """

    def __init__(
        self, app: ASGIApp, shares: bool = False, on_answer: Callable[[int], None] | None = None
    ) -> None:
        self._app = app
        self._on_answer = on_answer
        self._headers = dict(_HEADERS)
        if shares:
            del self._headers["Cross-Origin-Resource-Policy"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log it when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = _Exchange(secrets.token_hex(8))
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        try:
            await self._run(exchange, scope, receive, send)
        finally:
            if not exchange.is_complete:
                exchange.has_left = True
            if self._on_answer is not None and exchange.status:
                self._on_answer(exchange.status)
            _log(scope, exchange, time.perf_counter() - started)

    async def _run(self, exchange: _Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        async def noted_receive() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and not exchange.is_complete:
                exchange.has_left = True
            return message

        async def noted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers["X-Request-Id"] = exchange.request_id
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                exchange.is_complete = True

        try:
            await self._app(scope, noted_receive, noted_send)
        except Exception:
            if not scope["state"].get("reported"):
                logger.exception("request %s failed", exchange.request_id)
            if exchange.status == 0:
                await _last_resort(exchange).response()(scope, receive, noted_send)


def _last_resort(exchange: _Exchange) -> Failure:
    message = f"internal error (request {exchange.request_id})"
    return Failure(500, error_object(message, "server_error"))


def _log(scope: Scope, exchange: _Exchange, seconds: float) -> None:
    raw_path = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    path = raw_path.decode("ascii", "backslashreplace")[:_LONGEST_PATH]
    client = scope.get("client")
    status = exchange.status or CLIENT_LEFT
    fields: dict[str, Any] = {
        "client": client[0] if client else "-",
        "method": scope["method"][:20],
        "path": path,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "request_id": exchange.request_id,
    }
    line = f"{fields['client']} {fields['method']} {path} {status} {seconds * 1000:.0f} ms"
    tokens = scope["state"].get("tokens")
    if tokens:
        fields["prompt_tokens"], fields["generated_tokens"] = tokens
        line += f" {tokens[0]}+{tokens[1]} tokens"
    if exchange.has_left and not exchange.is_complete:
        fields["left"] = True
        line += " (client left)"
    access_logger.info("%s %s", line, exchange.request_id, extra={"fields": fields})
