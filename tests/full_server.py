"""A server with all routes, in a thread, for tests of Ollama's API, operations and clients."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import uvicorn

from eftlocal.server import ollama, operations
from eftlocal.server.app import create_app
from eftlocal.server.host import Host
from eftlocal.server.metrics import Metrics
from eftlocal.server.openai import routes
from eftlocal.server.places import Waits
from eftlocal.server.service import Service
from eftlocal.server.settings import Served, Settings

from .conftest import Trio

T = TypeVar("T")
Json = dict[str, Any]

RUNTIME = {"threads": 1, "parallel": 2}
ATLAS = Served("atlas", entry="atlas", runtime=RUNTIME)


def made(name: str, trio: Trio, **runtime: Any) -> Served:
    """A trio under a name."""
    files: dict[str, Any] = {role: str(path) for role, path in trio._asdict().items()}
    return Served(name, files=files, runtime={**RUNTIME, **runtime})


@dataclass
class Running:
    """A server that runs.

    Attributes:
        url: without a slash at its end.
        host: its entries.
        loop: that it runs on.
        client: of it.
    """

    url: str
    host: Host
    loop: asyncio.AbstractEventLoop
    client: httpx.Client

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def get(self, path: str, status: int = 200) -> Any:
        """The JSON of an answer with that status."""
        response = self.client.get(path)
        assert response.status_code == status, response.text
        return response.json()

    def post(self, path: str, status: int = 200, **body: Any) -> Json:
        """The same for a request with a body."""
        response = self.client.post(path, json=body)
        assert response.status_code == status, response.text
        answer: Json = response.json()
        return answer

    def open(self, path: str, body: bytes) -> socket.socket:
        """A connection on which a request was sent, and no answer was read."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        connection = socket.create_connection((host, int(port)), timeout=30)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection

    @property
    def jobs(self) -> tuple[int, int]:
        """How many run and wait, over all models."""
        workers = self.host.loaded().values()
        return sum(w.n_running for w in workers), sum(w.n_waiting for w in workers)

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came to be"
            time.sleep(0.01)


@contextmanager
def serving(*served: Served, waits: Waits | None = None, **settings: Any) -> Iterator[Running]:
    """Serve models until the block ends; nothing is loaded before it is asked for."""
    settings_made = Settings(served=served or (ATLAS,), **settings)
    metrics = Metrics()
    host = Host(settings_made, metrics.on_job_end, waits)
    routers = [*routes.routers, operations.router, ollama.router]
    app = create_app(Service(settings_made, host, metrics), routers)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        loop = asyncio.new_event_loop()
        work = server.serve([listener])
        thread = threading.Thread(target=loop.run_until_complete, args=(work,))
        thread.start()
        try:
            with httpx.Client(base_url=url, timeout=60) as client:
                running = Running(url, host, loop, client)
                running.until(lambda: server.started)
                yield running
        finally:
            asyncio.run_coroutine_threadsafe(host.close(0), loop).result(60)
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()
            loop.close()
