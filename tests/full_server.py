"""A real server with all routes on a free port, in a thread of this process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx
import pytest
import uvicorn

from eftlocal.server.app import create_app
from eftlocal.server.host import Host
from eftlocal.server.metrics import Metrics
from eftlocal.server.places import Waits
from eftlocal.server.service import Service
from eftlocal.server.settings import Served, Settings
from eftlocal.server.worker import Worker

from .conftest import Trio

T = TypeVar("T")
Json = dict[str, Any]

RUNTIME = {"threads": 1, "parallel": 2}
EXACT = {"kv_unified": "off", "cache_type": "f32", "flash_attention": "off"}
"""Runtime options with which rounding is too small to change a token."""
ATLAS = Served("atlas", entry="atlas", runtime=RUNTIME)

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
ENDLESS: Json = {"max_tokens": 900, "logit_bias": {"2": -100, "6": -100}}
"""A reply of atlas that takes a second or two: no end token can come."""
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


def made(name: str, trio: Trio, **runtime: Any) -> Served:
    """A trio under a name."""
    files: dict[str, Any] = {role: str(path) for role, path in trio._asdict().items()}
    return Served(name, files=files, runtime={**RUNTIME, **runtime})


def exact(trio: Trio) -> Served:
    """A model of 32-bit floats throughout: what it samples depends on no caches and no batches."""
    return replace(made("exact", trio, **EXACT), generation={"draft": "off"})


@dataclass
class Running:
    """A server that runs.

    Attributes:
        address: for sockets.
        host: its entries.
        loop: that it runs on.
        client: of this server.
    """

    address: tuple[str, int]
    host: Host
    loop: asyncio.AbstractEventLoop
    client: httpx.Client

    @property
    def url(self) -> str:
        """Where clients connect to; without a slash at its end."""
        host, port = self.address
        return f"http://{host}:{port}"

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def load(self, name: str | None = None, keep_alive: float | None = None) -> None:
        """Load an entry, and wait for it; None is the first."""
        self.do(self.host.worker(name, wait=True, keep_alive=keep_alive))

    @property
    def worker(self) -> Worker:
        """Of the first model that is loaded; there must be one."""
        return next(iter(self.host.loaded().values()))

    @property
    def jobs(self) -> tuple[int, int]:
        """How many run and wait, over all models."""
        workers = self.host.loaded().values()
        return sum(w.n_running for w in workers), sum(w.n_waiting for w in workers)

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until something holds; fails where that takes too long."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came to be"
            time.sleep(0.005)

    def until_jobs(self, running: int, waiting: int, seconds: float = 30.0) -> None:
        """Wait until so many jobs run and wait."""
        self.until(lambda: self.jobs == (running, waiting), seconds)

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

    def refused(self, path: str, **body: Any) -> Json:
        """The error object of an answer that is a 400, in OpenAI's form."""
        error: Json = self.post(path, 400, **body)["error"]
        assert error["type"] == "invalid_request_error"
        assert set(error) == {"message", "type", "param", "code"}
        return error

    def chat(self, **body: Any) -> Json:
        """A chat completion about France."""
        return self.post(CHAT, **{"messages": FRANCE, **body})

    def stream(self, path: str, **body: Any) -> list[Json]:
        """The chunks of a stream, which ends as it should."""
        if path == CHAT:
            body = {"messages": FRANCE, **body}
        response = self.client.post(path, json={"stream": True, **body})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return read_events(response.text)

    def open(self, path: str, body: str) -> socket.socket:
        """A connection on which a request was sent, and no answer was read."""
        connection = socket.create_connection(self.address, timeout=30)
        content = body.encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        return connection


def read_events(text: str) -> list[Json]:
    """The JSON of server-sent events; comments are left out, [DONE] must be the last."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    *chunks, last = [block.removeprefix("data: ") for block in blocks]
    assert last == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def about(value: Any) -> Any:
    """JSON to compare with, in which numbers may differ as they do between caches and batches.

    llama.cpp computes a token a little differently when others are computed with it.
    """
    if isinstance(value, float):
        return pytest.approx(value, abs=0.02)
    if isinstance(value, dict):
        return {key: about(item) for key, item in value.items()}
    return [about(item) for item in value] if isinstance(value, list | tuple) else value


@contextmanager
def serve(
    *served: Served, load: bool = True, waits: Waits | None = None, **settings: Any
) -> Iterator[Running]:
    """Serve models until the block ends.

    Args:
        served: the models.
        load: the first one before the block begins; else nothing before it is asked for.
        waits: how long things may take.
        settings: of the server.
    """
    chosen = Settings(served=served, **settings)
    metrics = Metrics()
    host = Host(chosen, metrics.on_job_end, waits)
    app = create_app(Service(chosen, host, metrics))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_until_complete, args=(server.serve([listener]),))
        thread.start()
        try:
            url = "http://{}:{}".format(*address)
            with httpx.Client(base_url=url, timeout=60) as client:
                running = Running(address, host, loop, client)
                running.until(lambda: server.started)
                if load:
                    running.load()
                yield running
        finally:
            asyncio.run_coroutine_threadsafe(host.close(0), loop).result(60)
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()
            loop.close()
