"""A real server in a thread, on a port of its own, with routes that tests bring along."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.types import ASGIApp

from eftlocal.errors import EftlocalError
from eftlocal.server.app import guard, make_api
from eftlocal.server.process import serve
from eftlocal.server.service import Service
from eftlocal.server.settings import Limits, Served, Settings
from eftlocal.server.sockets import Listener, listen

ATLAS = (Served(name="atlas", entry="atlas"),)


def settings_of(**changes: Any) -> Settings:
    """Settings with a free port; short times."""
    limits = Limits(**changes.pop("limits", {}))
    return replace(Settings(served=ATLAS, port=0, grace=1.0, limits=limits), **changes)


class NoModels:
    """The life of a server that needs no models."""

    def __init__(self, failure: EftlocalError | None = None) -> None:
        self.failure = failure
        self.grace: float | None = None

    async def start(self) -> None:
        """Ready at once, or never."""
        if self.failure is not None:
            raise self.failure

    async def close(self, grace: float) -> None:
        """Nothing runs that would have to end."""
        self.grace = grace


@dataclass
class Running:
    """A server that runs.

    Attributes:
        listener: where.
        draining: ends it when it is set.
        answers: every status that it answered with.
    """

    listener: Listener
    draining: threading.Event
    answers: list[int] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return self.listener.url

    @property
    def address(self) -> tuple[str, int]:
        """The same for a socket."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host.strip("[]"), int(port)

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(self.address, timeout=20)

    def ask(self, raw: bytes, end: bool = False) -> bytes:
        """Send bytes, and return everything that comes until the server closes.

        Args:
            raw: what is sent.
            end: close the sending side after it.
        """
        with self.connect() as client:
            client.sendall(raw)
            if end:
                client.shutdown(socket.SHUT_WR)
            return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """Everything until the other side closes, or for 20 seconds."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def api_of(settings: Settings, routers: Sequence[APIRouter]) -> ASGIApp:
    """The routes behind all checks; they need no models."""
    nothing: Any = None
    return make_api(Service(settings, nothing, nothing), routers)


@contextmanager
def running(settings: Settings, *routers: APIRouter, life: Any = None) -> Iterator[Running]:
    """Serve some routes as `eftlocal serve` would."""
    listener = listen(settings)
    server = Running(listener, threading.Event())
    app = guard(api_of(settings, routers), settings, server.draining.is_set, server.answers.append)

    def work() -> None:
        try:
            serve(app, life or NoModels(), listener, settings, server.draining)
        except BaseException as error:
            server.error = error

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield server
    finally:
        server.draining.set()
        thread.join(30)
        assert not thread.is_alive()


def socket_path(folder: Path) -> Path:
    """A path for a Unix socket that is short enough."""
    return folder / "s"


def run_app(app: ASGIApp, **request: Any) -> tuple[int, dict[str, str], bytes]:
    """One request to an application without a network: (status, headers, body)."""
    headers = {"host": "localhost", **request.pop("headers", {})}
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in headers.items()],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "root_path": "",
        **request,
    }
    scope["raw_path"] = scope["path"].encode()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": request.get("body", b""), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def work() -> None:
        await app(scope, receive, send)

    asyncio.run(work())
    answer = {k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], answer, b"".join(part.get("body", b"") for part in sent[1:])


def error_in(body: bytes) -> dict[str, Any]:
    """The error of an answer, which has exactly OpenAI's form."""
    content = json.loads(body)
    assert set(content) == {"error"}
    error = content["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and "\n" not in error["message"]
    assert isinstance(error["type"], str)
    return error  # type: ignore[no-any-return]
