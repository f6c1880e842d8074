"""Real connections: what is no HTTP, what is slow, what never ends, and Unix sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from eftlocal.errors import ModelFileError
from eftlocal.server import docs
from eftlocal.server.logs import JsonFormatter, PlainFormatter

from .serving import NoModels, Running, error_in, read_all, running, settings_of

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Nothing to wait for."""
    return {"status": "ok"}


@router.post("/size")
async def size(request: Request) -> dict[str, int]:
    """How large the body was."""
    request.state.tokens = (3, 4)
    return {"size": len(await request.body())}


@router.get("/forever")
async def forever(request: Request) -> StreamingResponse:
    """A stream without end, which is heard to end."""

    async def chunks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
                await asyncio.sleep(0)
        finally:
            ENDED.set()

    return StreamingResponse(chunks())


@router.get("/slow")
async def slow() -> dict[str, str]:
    """Takes a while."""
    await asyncio.sleep(0.5)
    return {}


ENDED = threading.Event()

POST = b"POST /size HTTP/1.1\r\nHost: localhost\r\n"
LAST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def answers(raw: bytes) -> tuple[int, bytes]:
    """Status and body of the one answer in some bytes."""
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), raw[:200]
    assert body.count(b"HTTP/1.1") == 0
    return int(head.split()[1]), body


NOT_HTTP = {
    "no method": b"hello\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a1030352362c10") + b"\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "length is no number": POST + b"Content-Length: -1\r\n\r\n",
    "length with a sign": POST + b"Content-Length: +3\r\n\r\nabc",
    "unknown coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "blank before the colon": b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "folded header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\x00\r\n\r\n",
    "control character": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: \x01\x00\r\n\r\n",
    "blank in the target": b"GET /he alth HTTP/1.1\r\nHost: localhost\r\n\r\n",
}

LARGE_HEADS = {
    "value": b"GET /health HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n",
    "headers": b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
    "target": b"GET /health?" + b"x" * 100_000 + b" HTTP/1.1\r\n",
}


@pytest.fixture(scope="module")
def server() -> object:
    """A server with small limits."""
    limits = {"max_body": 100_000, "body_timeout": 0.5, "keep_alive": 1, "write_timeout": 0.5}
    with running(settings_of(limits=limits), router, docs.router) as server:
        yield server


@pytest.mark.parametrize("raw", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_no_http_is_an_error_object(server: Running, raw: bytes) -> None:
    """400 as JSON, and the connection ends: nothing after it is taken for a request."""
    smuggled = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    status, body = answers(server.ask(raw + smuggled))
    assert status == 400
    assert "HTTP" in error_in(body)["message"]


@pytest.mark.parametrize("head", LARGE_HEADS.values(), ids=LARGE_HEADS)
def test_large_heads_are_refused(server: Running, head: bytes) -> None:
    """However they arrive: in one piece they are 431, slowly they are no HTTP any more."""
    rest = b"Host: localhost\r\nConnection: close\r\n\r\n"
    assert answers(server.ask(head + rest))[0] in (400, 431)
    with server.connect() as client:
        client.sendall(head[:60_000])
        time.sleep(0.05)
        with suppress(OSError):
            client.sendall(head[60_000:] + rest)
        assert answers(read_all(client))[0] in (400, 431)


@pytest.mark.parametrize("head", [b"GET /", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_endless_heads_are_cut_off(server: Running, head: bytes) -> None:
    """The server closes long before 50 MB."""
    with server.connect() as client, suppress(ConnectionError):
        for _ in range(500):
            client.sendall(head + b"x" * 100_000)
            head = b""
        raise AssertionError("all of it was taken")


def test_a_length_beside_chunks_smuggles_nothing(server: Running) -> None:
    """Chunks win, as RFC 9112 says; what follows is a request of its own or nothing."""
    raw = POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    found = server.ask(raw + LAST)
    assert found.count(b"HTTP/1.1 ") in (1, 2)
    assert b'"size":5' not in found


def test_requests_in_a_row_are_answered_in_order(server: Running) -> None:
    """Pipelining and keep-alive work behind all checks."""
    one = POST + b"Content-Length: 2\r\n\r\n{}"
    found = server.ask(one * 3 + LAST)
    assert found.count(b'{"size":2}') == 3
    assert found.endswith(b'{"status":"ok"}')


def test_large_bodies_are_not_read(server: Running) -> None:
    """413 comes at once, with a length and in chunks; 100 MB are never taken."""
    announced = POST + b"Content-Length: 100000000\r\n\r\n"
    with server.connect() as client:
        started = time.monotonic()
        client.sendall(announced)
        head = client.recv(1000)
        assert time.monotonic() - started < 5
        assert answers(head)[0] == 413
    status, body = answers(server.ask(announced + b"x" * 1_000_000))
    assert (status, "100,000 bytes" in error_in(body)["message"]) == (413, True)
    chunk = b"20000\r\n" + b"x" * 0x20000 + b"\r\n"
    status, _ = answers(server.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3))
    assert status == 413
    for content in (b"x" * 100_000_000, (b"x" * 1_000_000 for _ in range(100))):
        assert httpx.post(f"{server.url}/size", content=content).status_code == 413


def test_who_waits_for_a_word_is_answered_without_one(server: Running) -> None:
    """`Expect: 100-continue`: the answer is 413 instead of "go on"; small bodies get theirs."""
    found = server.ask(POST + b"Expect: 100-continue\r\nContent-Length: 100000000\r\n\r\n")
    assert answers(found)[0] == 413
    with server.connect() as client:
        expecting = b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        client.sendall(POST + expecting)
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"{}")
        assert answers(read_all(client))[1] == b'{"size":2}'


def test_slow_bodies_end_with_408(server: Running) -> None:
    """A body that comes byte by byte, or not at all."""
    status, body = answers(server.ask(POST + b"Content-Length: 10\r\n\r\n{"))
    assert (status, "did not arrive" in error_in(body)["message"]) == (408, True)
    with server.connect() as client:
        client.sendall(POST + b"Content-Length: 1000\r\n\r\n")
        found = b""
        for _ in range(100):
            try:
                client.sendall(b"x")
                client.settimeout(0.05)
                found += client.recv(1000)
            except TimeoutError:
                continue
            except OSError:
                break
        assert found.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("start", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: l"])
def test_connections_without_a_whole_head_are_closed(server: Running, start: bytes) -> None:
    """Also where bytes go on coming."""
    with server.connect() as client:
        client.sendall(start)
        client.settimeout(0.1)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            try:
                if start:
                    client.sendall(b"x")
                if client.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() < deadline


def test_half_closed_connections_count_as_left(server: Running) -> None:
    """TCP does not tell a client that is gone from one that only has no more to send."""
    assert server.ask(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n", end=True) == b""
    assert b'"size"' not in server.ask(POST + b"Content-Length: 9\r\n\r\n{}", end=True)
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_who_does_not_read_is_left(server: Running) -> None:
    """An unread answer ends after a while, and so does what makes it."""
    ENDED.clear()
    with server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /forever HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert ENDED.wait(20)
    ENDED.clear()
    with server.connect() as client:
        client.sendall(b"GET /forever HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.recv(1000)
    assert ENDED.wait(20)


def test_upgrades_are_ignored(server: Running) -> None:
    """Neither WebSockets nor h2c, and no warning for every request."""
    for upgrade in (b"websocket", b"h2c"):
        head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n"
        assert answers(server.ask(head + b"Upgrade: " + upgrade + b"\r\n\r\n"))[0] == 200


def test_the_page_of_docs_needs_no_other_server(server: Running) -> None:
    """All that it loads is here, and its policy forbids everything else."""
    page = httpx.get(f"{server.url}/docs")
    assert page.status_code == 200
    assert "https://" not in page.text and "http://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for part in ("start.js", "swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"docs/{part}" in page.text or part == "start.js"
        assert httpx.get(f"{server.url}/docs/{part}").status_code == 200


def test_headers(server: Running) -> None:
    """No name of the server; an id for every answer; nothing is sniffed or framed."""
    headers = httpx.get(f"{server.url}/health").headers
    assert "server" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    other = httpx.get(f"{server.url}/health").headers
    assert headers["x-request-id"] != other["x-request-id"]


def test_too_many_connections(caplog: pytest.LogCaptureFixture) -> None:
    """One more than allowed is told so; when others leave it is let in."""
    with running(settings_of(limits={"max_connections": 3}), router) as server:
        held = [server.connect() for _ in range(3)]
        for client in held:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.recv(1000)
        status, body = answers(server.ask(b""))
        assert (status, error_in(body)["type"]) == (503, "unavailable_error")
        for client in held:
            client.close()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{server.url}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                continue
        assert time.monotonic() < deadline


def test_the_log_has_one_line_per_request(caplog: pytest.LogCaptureFixture) -> None:
    """Method, path, status, time, tokens; no query, no body, no key, no forged line."""
    caplog.set_level(logging.INFO, "eftlocal.access")
    settings = settings_of(keys=("the-key",))
    with running(settings, router) as server:
        headers = {"Authorization": "Bearer the-key"}
        httpx.post(f"{server.url}/size?secret=1", json={"secret": 2}, headers=headers)
        httpx.get(f"{server.url}/no%0d%0aforged", headers={"x-api-key": "wrong-key"})
    lines = [record.getMessage() for record in caplog.records if record.name == "eftlocal.access"]
    assert len(lines) == 2
    assert lines[0].startswith("127.0.0.1 POST /size 200 ") and "3+4 tokens" in lines[0]
    assert "GET /no%0d%0aforged 401 " in lines[1].replace("%0D%0A", "%0d%0a")
    assert not any(word in line for line in lines for word in ("secret", "key", "\n"))
    record = next(item for item in caplog.records if item.name == "eftlocal.access")
    content = json.loads(JsonFormatter().format(record))
    assert {"time", "level", "message", "path", "status", "ms", "generated_tokens"} <= set(content)
    record.msg, record.args = "a\nforged\x1b[2J line", ()
    assert PlainFormatter().format(record).count("\n") == 0


def test_requests_under_way_end_before_the_server() -> None:
    """What runs is answered while new requests get 503; health still says something."""
    life = NoModels()

    class Slow(NoModels):
        async def close(self, grace: float) -> None:
            life.grace = grace
            await asyncio.sleep(0.3)

    results: list[int] = []
    with running(settings_of(), router, life=Slow()) as server:
        thread = threading.Thread(
            target=lambda: results.append(httpx.get(f"{server.url}/slow").status_code)
        )
        thread.start()
        time.sleep(0.2)
        server.draining.set()
        refused = httpx.get(f"{server.url}/slow")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert httpx.get(f"{server.url}/health").status_code == 200
        thread.join()
    assert results == [200]
    assert life.grace == 1.0


def test_a_server_that_cannot_start_ends_with_the_reason() -> None:
    """What loading raised comes out of `serve`."""
    error = ModelFileError("x.gguf: damaged")
    with running(settings_of(), router, life=NoModels(error)) as server:
        deadline = time.monotonic() + 10
        while server.error is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert server.error is error
