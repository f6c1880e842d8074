"""A real server on a free port, in a thread of this process, for tests of HTTP routes."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest
import uvicorn

from eftlocal.server.app import create_app
from eftlocal.server.host import Host
from eftlocal.server.metrics import Metrics
from eftlocal.server.openai.routes import routers
from eftlocal.server.service import Service
from eftlocal.server.settings import Served, Settings
from eftlocal.server.worker import Worker

from .conftest import Trio

T = TypeVar("T")
EXACT = {"kv_unified": "off", "cache_type": "f32", "flash_attention": "off"}
"""Runtime options with which rounding is too small to change a token."""
Json = dict[str, Any]

ATLAS = Served("atlas", entry="atlas", runtime={"threads": 1, "parallel": 2})
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
ENDLESS: Json = {"max_tokens": 900, "logit_bias": {"2": -100, "6": -100}}
"""A reply of atlas that takes a second or two: no end token can come."""
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


def exact(trio: Trio) -> Served:
    """A model of 32-bit floats throughout: what it samples depends on no caches and no batches."""
    files: dict[str, Any] = {role: str(path) for role, path in trio._asdict().items()}
    runtime = {"threads": 1, "parallel": 2, **EXACT}
    return Served("exact", files=files, runtime=runtime, generation={"draft": "off"})


@dataclass
class Running:
    """A server that runs.

    Attributes:
        url: without a slash at its end.
        address: for sockets.
        service: its parts.
        loop: that it runs on.
        client: of this server.
    """

    url: str
    address: tuple[str, int]
    service: Service
    loop: asyncio.AbstractEventLoop
    client: httpx.Client

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @property
    def worker(self) -> Worker:
        """Of the first model, which must be loaded."""
        return next(iter(self.service.host.loaded().values()))

    def post(self, path: str, **body: Any) -> Json:
        """The JSON of an answer that is no error."""
        response = self.client.post(path, json=body)
        assert response.status_code == 200, response.text
        answer: Json = response.json()
        return answer

    def chat(self, **body: Any) -> Json:
        """A chat completion about France."""
        return self.post(CHAT, **{"messages": FRANCE, **body})

    def refused(self, path: str, **body: Any) -> Json:
        """The error object of an answer that is a 400."""
        response = self.client.post(path, json=body)
        assert response.status_code == 400, response.text
        error: Json = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert set(error) == {"message", "type", "param", "code"}
        return error

    def stream(self, path: str, **body: Any) -> list[Json]:
        """The chunks of a stream, which ends as it should."""
        if path == CHAT:
            body = {"messages": FRANCE, **body}
        response = self.client.post(path, json={"stream": True, **body})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return read_events(response.text)

    def wait_until_idle(self, seconds: float = 20.0) -> None:
        """Wait until no job is there; fails where that takes too long."""
        deadline = time.monotonic() + seconds
        while self.worker.n_running or self.worker.n_waiting:
            assert time.monotonic() < deadline, "jobs go on"
            time.sleep(0.005)


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
def serve(*served: Served, **settings: Any) -> Iterator[Running]:
    """Serve models until the block ends; the first is loaded then."""
    made = Settings(served=served, **settings)
    service = Service(made, Host(made), Metrics())
    config = uvicorn.Config(create_app(service, routers), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
        url = f"http://{address[0]}:{address[1]}"
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_until_complete, args=(server.serve([listener]),))
        thread.start()
        with httpx.Client(base_url=url, timeout=60) as client:
            running = Running(url, address, service, loop, client)
            try:
                running.do(_load(service.host))
                yield running
            finally:
                running.do(service.host.close(0))
                server.should_exit = True
                thread.join(30)
                loop.close()


async def _load(host: Host) -> None:
    await host.worker(wait=True)
