"""How `eftlocal serve` begins and ends: SIGTERM, Ctrl-C, kill -9, errors, its log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from .cli_helpers import environment
from .serve_process import READY, serving
from .serving import error_in, socket_path

ENDLESS: dict[str, Any] = {
    "prompt": "The capital of France is",
    "max_tokens": 25_000,
    "temperature": 1,
    "logit_bias": {"2": -100, "6": -100},
    "stream": True,
}
"""A text that atlas's end tokens cannot end, and that takes a minute or so."""
LONG = ("--ctx", "30000")


class Reader(threading.Thread):
    """Reads a stream to its end, in a thread."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.body = body
        self.events: list[str] = []
        self.first = threading.Event()
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Keep all events."""
        try:
            with httpx.stream(
                "POST", f"{self.url}/v1/completions", json=self.body, timeout=60
            ) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        self.events.append(line.removeprefix("data: "))
                        self.first.set()
        except httpx.HTTPError as error:
            self.error = error
        self.first.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_streams_get_a_last_event(tmp_path: Path, number: signal.Signals) -> None:
    """Under load: new requests get 503, streams an error and [DONE], the exit code is 0."""
    with serving(tmp_path, "--grace", "1", "--parallel", "2", *LONG) as server:
        readers = [Reader(server.url, ENDLESS | {"seed": seed}) for seed in range(5)]
        deadline = time.monotonic() + 30
        while sum(reader.first.is_set() for reader in readers) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        started = time.monotonic()
        server.process.send_signal(number)
        server.wait_for("ending")
        refused = httpx.get(f"{server.url}/v1/models")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        health = httpx.get(f"{server.url}/health")
        assert (health.status_code, health.json()["status"]) == (503, "draining")
        assert server.wait() == 0
        assert time.monotonic() - started < 5
        for reader in readers:
            reader.join(10)
            assert reader.error is None
            assert reader.events[-1] == "[DONE]"
            error = error_in(reader.events[-2].encode())
            assert "shutting down" in error["message"]
        assert "Traceback" not in server.log


def test_short_requests_finish(tmp_path: Path) -> None:
    """What ends within the grace ends as if nothing had happened, and the server does not wait."""
    with serving(tmp_path, "--grace", "30", *LONG) as server:
        reader = Reader(server.url, ENDLESS | {"max_tokens": 300})
        assert reader.first.wait(30)
        server.process.terminate()
        assert server.wait() == 0
        reader.join(10)
        assert reader.events[-1] == "[DONE]"
        last = json.loads(reader.events[-2])
        assert last["choices"][0]["finish_reason"] == "length"


def test_an_idle_server_ends_at_once(tmp_path: Path) -> None:
    """Also with open connections."""
    with serving(tmp_path, "--grace", "20") as server, httpx.Client() as client:
        assert client.get(f"{server.url}/health").status_code == 200
        started = time.monotonic()
        server.process.terminate()
        assert server.wait() == 0
        assert time.monotonic() - started < 10


def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Even where the first one would wait for long; the socket file is gone."""
    path = socket_path(tmp_path)
    with serving(tmp_path, "--grace", "600", *LONG, "--unix-socket", str(path)) as server:
        transport = httpx.HTTPTransport(uds=str(path))
        with (
            httpx.Client(transport=transport, base_url="http://x") as client,
            client.stream("POST", "/v1/completions", json=ENDLESS, timeout=60) as answer,
        ):
            next(answer.iter_lines())
            server.process.terminate()
            server.wait_for("ending")
            started = time.monotonic()
            server.process.terminate()
            assert server.wait() == 128 + signal.SIGTERM
            assert time.monotonic() - started < 5
    assert not path.exists()


STUCK = """
import sys, threading, time
from tests.serving import NoModels, api_of, settings_of
from eftlocal.server.process import serve
from eftlocal.server.sockets import listen

class Stuck(NoModels):
    async def close(self, grace):
        time.sleep(1000)

settings = settings_of(grace=0.2)
listener = listen(settings)
print("ready", file=sys.stderr, flush=True)
serve(api_of(settings, []), Stuck(), listener, settings, threading.Event())
"""


def test_it_ends_even_where_something_hangs(tmp_path: Path) -> None:
    """An event loop that never comes back does not keep the process alive."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        time.sleep(0.5)
        started = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0
        assert time.monotonic() - started < 10


def test_kill_leaves_nothing_to_repair(tmp_path: Path) -> None:
    """After SIGKILL the next server takes over the socket file."""
    path = socket_path(tmp_path)
    for _ in range(2):
        with serving(tmp_path, "--unix-socket", str(path)) as server:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
                assert client.get("http://x/health").json() == {"status": "ok"}
            server.process.kill()
            server.wait()
            assert path.exists()


def test_it_answers_before_the_model_is_there(tmp_path: Path) -> None:
    """Health says loading or ok from the moment that it listens."""
    with serving(tmp_path, ready=False) as server:
        statuses = {httpx.get(f"{server.url}/health").json()["status"] for _ in range(3)}
        assert statuses <= {"loading", "ok"}
        server.wait_for(READY)
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


def test_the_ready_line(tmp_path: Path) -> None:
    """One line on stderr with address, models, the page and the API; nothing on stdout."""
    with serving(tmp_path, "-m", "atlas", "-m", "atlas-experts", "--log-level", "error") as server:
        (line,) = server.lines
        url = server.url
        assert line == (
            f"eftlocal serves atlas, atlas-experts at {url} "
            f"(the page: {url}/, the API: {url}/docs)\n"
        )
        names = [item["id"] for item in httpx.get(f"{url}/v1/models").json()["data"]]
        assert names == ["atlas", "atlas-experts"]
        server.process.terminate()
        assert server.wait() == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""


def test_every_line_of_the_log_is_json(tmp_path: Path) -> None:
    """Ours, the web server's, and the ready line."""
    with serving(tmp_path, "--log-json", "--log-level", "debug") as server:
        httpx.get(f"{server.url}/health?secret")
        httpx.post(f"{server.url}/v1/completions", content=b"{")
        server.process.terminate()
        assert server.wait() == 0
        lines = [json.loads(line) for line in server.lines]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    assert any(line["logger"].startswith("uvicorn") for line in lines)
    (ready,) = [line for line in lines if READY in line["message"]]
    assert ready["models"] == ["atlas"]
    assert [line["status"] for line in lines if line["logger"] == "eftlocal.access"] == [200, 400]
    assert "secret" not in server.log


def test_what_cannot_start_is_one_line(tmp_path: Path) -> None:
    """A port in use and a file that is damaged: exit code 1, and where the file is."""
    with serving(tmp_path) as server:
        port = server.url.rpartition(":")[2]
        with serving(tmp_path, "--port", port, ready=False) as other:
            assert other.wait() == 1
            assert other.log.endswith(
                f"eftlocal: 127.0.0.1:{port} is in use by another program; "
                "choose another --port, or 0 for a free one\n"
            )
            assert other.log.count("\n") == 1
    wrong = tmp_path / "wrong.gguf"
    wrong.write_text("hello")
    files = [part for role in ("base", "tuned", "reference") for part in (f"--{role}", str(wrong))]
    with serving(tmp_path, *files, ready=False) as broken:
        assert broken.wait() == 1
        assert broken.lines[-1].startswith(f"eftlocal: {wrong}: ")
        assert "Traceback" not in broken.log


def test_keys_are_nowhere(tmp_path: Path) -> None:
    """A key from the environment is asked for, and the log never has it."""
    env = {"EFTLOCAL_API_KEY": "from-env other"}
    with serving(tmp_path, "--log-level", "debug", env=env) as server:
        url = f"{server.url}/v1/models"
        assert httpx.get(url).status_code == 401
        for key in ("from-env", "other"):
            assert httpx.get(url, headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert httpx.get(url, headers={"x-api-key": "wrong-key"}).status_code == 401
        assert "from-env" not in server.log and "wrong-key" not in server.log
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=False)
    assert "from-env" not in listed.stdout
