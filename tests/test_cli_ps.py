"""`eftlocal ps` and `eftlocal stop` against a real server; and where there is none."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from eftlocal.cli.ps import processor_text, time_left

from .cli_helpers import run
from .conftest import Trio
from .full_server import ATLAS, Running, made, serve


@pytest.fixture(scope="module")
def server(trio: Trio) -> Iterator[Running]:
    """A server of two entries."""
    with serve(ATLAS, made("other", trio), load=False) as running:
        yield running


def test_loaded_models_are_listed_and_unloaded(server: Running) -> None:
    """One by name, then all the others."""
    server.load("atlas")
    server.load("other")
    server.load("other", keep_alive=3600)
    result = run("ps", "--url", server.url)
    assert result.exit_code == 0, result.output
    head, first, second = result.output.splitlines()
    assert head.split() == ["NAME", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert first.startswith("atlas ")
    assert first.endswith("100% CPU   1024     forever")
    assert second.startswith("other ")
    assert second.endswith("1 hour from now")
    found = json.loads(run("ps", "--json", "--url", server.url).output)["models"]
    assert [row["name"] for row in found] == ["atlas", "other"]
    assert found[0]["until"] is None
    assert datetime.fromisoformat(found[1]["until"]) > datetime.now(UTC) + timedelta(minutes=58)
    assert found[0]["size"] > 10_000_000
    assert found[0]["gpu_size"] == 0

    stopped = run("stop", "other", "--url", server.url)
    assert (stopped.exit_code, stopped.output) == (0, "other is unloaded\n")
    assert list(server.host.loaded()) == ["atlas"]
    assert run("stop", env={"EFTLOCAL_URL": server.url}).output == "atlas is unloaded\n"
    assert server.host.loaded() == {}
    assert run("stop", "--url", server.url).output == "no model is loaded\n"
    empty = run("ps", "--url", server.url)
    assert empty.output.split() == head.split()


def test_what_runs_is_finished_first(server: Running) -> None:
    """The command says that it does not wait; the job ends as it would."""
    server.load("other")

    async def begin() -> None:
        worker = await server.host.worker("other")
        job = worker.submit(worker.model.prepare_complete("Once", regex="[ab]{3000,}"))
        ended.append(asyncio.ensure_future(job.result()))

    ended: list[asyncio.Future[object]] = []
    server.do(begin())
    result = run("stop", "other", "--url", server.url)
    assert result.output in (
        "other is unloaded when its requests are done\n",
        "other is unloaded\n",
    )
    server.until(lambda: ended[0].done() and "other" not in server.host.loaded())
    assert ended[0].exception() is None


def test_errors_are_one_line(server: Running, tmp_path: Path) -> None:
    """No server, another server, an unknown model, a URL that is none."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    for args in (("ps",), ("stop",), ("stop", "atlas")):
        result = run(*args, "--url", url)
        assert result.exit_code == 1
        assert result.output.startswith(
            f"eftlocal: no server answers at {url} (Connection refused)"
        )
        assert result.output.count("\n") == 1
    result = run("ps", "--url", f"unix:{tmp_path / 'none'}")
    assert result.exit_code == 1
    assert "No such file" in result.output
    result = run("stop", "nobody", "--url", server.url)
    assert result.exit_code == 1
    assert "no model entry is called 'nobody'" in result.output
    for bad in ("ftp://x", "http://", "http://x:99999999", "http://x/?y=1"):
        result = run("ps", "--url", bad)
        assert result.exit_code == 2
        assert "is not allowed; use http://" in result.output
    assert run("ps", "--url", f"{server.url}/nothing").exit_code == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"models": ["x"]}',
        b"",
    ],
)
def test_other_servers_are_recognised(answer: bytes) -> None:
    """Whatever answers, it is one line."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=work)
        thread.start()
        result = run("ps", "--url", f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert result.exit_code == 1
    assert "is no such server" in result.output
    assert result.output.count("\n") == 1


def test_keys_are_sent(trio: Trio) -> None:
    """From the environment; without one the server's wish is told."""
    with serve(made("a", trio), load=False, keys=("secret-key",)) as server:
        refused = run("ps", "--url", server.url)
        assert refused.exit_code == 1
        assert "wants a key: set EFTLOCAL_API_KEY" in refused.output
        allowed = run("ps", "--url", server.url, env={"EFTLOCAL_API_KEY": "secret-key"})
        assert allowed.exit_code == 0
        assert run("ps", "--url", server.url, "--api-key", "secret-key").exit_code == 0


def test_a_unix_socket_works(tmp_path: Path) -> None:
    """With unix:PATH."""
    path = tmp_path / "s"
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"models": []}'
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def work() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(65536))
                connection.sendall(answer)

        thread = threading.Thread(target=work)
        thread.start()
        result = run("ps", "--url", f"unix:{path}")
        thread.join()
    assert result.output == "NAME  SIZE  PROCESSOR  CONTEXT  UNTIL\n"
    assert heard[0].startswith(b"GET /api/ps HTTP/1.1\r\n")
    assert b"Host: localhost\r\n" in heard[0]


def test_shares_and_times_are_said_as_ollama_says_them() -> None:
    """Bytes on GPUs as a share; times in the largest unit."""
    assert processor_text(100, 72) == "28%/72% CPU/GPU"
    assert processor_text(100, 0) == processor_text(0, 0) == "100% CPU"
    assert processor_text(100, 100) == "100% GPU"
    now = datetime.now(UTC)
    for seconds, text in ((240, "4 minutes"), (1, "1 second"), (7200, "2 hours"), (90000, "1 day")):
        assert time_left(now + timedelta(seconds=seconds), now) == f"{text} from now"
    assert time_left(now, now) == "now"
