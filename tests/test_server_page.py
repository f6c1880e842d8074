"""The page's files over HTTP: who gets them, with which headers, and nothing beside them."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import eftlocal.server.page as page
from eftlocal.server.settings import Settings
from eftlocal.server.sockets import Listener

from .full_server import ATLAS, Running, serve
from .serve_process import serving

FOLDER = Path(page.__file__).parent
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
MOST_LINES = 2600
OWN = sorted(path for path in FOLDER.iterdir() if path.suffix in (".css", ".html", ".js", ".mjs"))
KEY = "the-key"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server that asks for keys; nothing is loaded for the page."""
    with serve(ATLAS, load=False, keys=(KEY,)) as running:
        yield running


def test_a_browser_gets_the_page(server: Running) -> None:
    """Without a key, and under a policy that lets nothing run but its own files."""
    answer = server.client.get("/", headers={"accept": BROWSER})
    assert answer.status_code == 200
    assert answer.text == (FOLDER / "index.html").read_text(encoding="utf-8")
    headers = answer.headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-cache"
    assert "accept" in headers["vary"].lower()
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    head = server.client.head("/", headers={"accept": BROWSER})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == headers["content-length"]


@pytest.mark.parametrize(
    "accept", ["*/*", "", "text/*", "application/json", "text/html;q=0", "text/htmlx"]
)
def test_programs_get_the_words_of_ollama(server: Running, accept: str) -> None:
    """Clients look for them; caches keep both answers apart."""
    answer = server.client.get("/", headers={"accept": accept})
    assert answer.text == "Ollama is running (eftlocal speaks its API)"
    assert answer.headers["content-type"].startswith("text/plain")
    assert "accept" in answer.headers["vary"].lower()
    assert "etag" not in answer.headers
    assert server.client.head("/", headers={"accept": accept}).content == b""


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*")), ids=lambda path: path.name)
def test_every_file_has_its_type(server: Running, path: Path) -> None:
    """Scripts, style sheets and licences, to the byte; no Python, no folder, no page twice."""
    name = path.relative_to(FOLDER).as_posix()
    answer = server.client.get(f"/page/{name}")
    kinds = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css"}
    kind = "text/plain" if path.name == "LICENSE" else kinds.get(path.suffix)
    if kind is None:
        assert answer.status_code == 404
        return
    assert answer.status_code == 200
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["/", "/page/vendor/markdown-it.mjs"])
def test_an_unchanged_file_is_not_sent_again(server: Running, name: str) -> None:
    """304 for the ETag that came with it, the file for another."""
    first = server.client.get(name, headers={"accept": BROWSER})
    tag = first.headers["etag"]
    again = server.client.get(name, headers={"accept": BROWSER, "if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tag
    other = server.client.get(name, headers={"accept": BROWSER, "if-none-match": '"other"'})
    assert (other.status_code, other.content) == (200, first.content)


@pytest.mark.parametrize("name", ["", "nothing.js", "vendor", "vendor/", "x" * 5000, "a\0.js"])
def test_what_is_not_there_is_an_error_object(server: Running, name: str) -> None:
    """As at every other address."""
    answer = server.client.get(f"/page/{name}".replace("\0", "%00"))
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


def raw(server: Running, method: str, target: str) -> int:
    """The status of a request whose address goes out as it is written here."""
    with socket.create_connection(server.address, timeout=30) as connection:
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode("latin-1"))
        return int(connection.makefile("rb").readline().split()[1])


TRICKS = (
    *("/page/../v1/models", "/page/../metrics", "/page/./../v1/models", "/page//v1/models"),
    *("/page/%2e%2e/v1/models", "/page/..%2fv1/models", "/page/%2e%2e%2fv1%2fmodels"),
    *("/page/..%5cv1%5cmodels", "/page%2f..%2fv1%2fmodels", "/page/..;/v1/models"),
    *("/page/__init__.py", "/page/../page/__init__.py", "/page/../settings.py"),
    *("/page/%2fetc%2fpasswd", "/page//etc/passwd", "/page/../../../../../etc/passwd"),
    *("/page/vendor/../../run.py", "/page/%c0%ae%c0%ae/x.js", "/page/__pycache__"),
    *("/page/index.html", "/page/%252e%252e/settings.py"),
)
LOCKED = (
    *("//", "/./", "/page", "//page/main.js", "/%2e/v1/models", "/..//v1/models", "/Page/x.js"),
    *("//v1/models", "/v1/models", "/v1/models?/page/", "/v1/models/page/", "/docs", "/props"),
    *("http://localhost/page/main.js", "http://localhost/v1/models", "/health/", "*"),
    *("/\\page/main.js", "/%2fpage/main.js", "/metrics#/page/", "/page%00/"),
)


@pytest.mark.parametrize("target", TRICKS)
def test_no_address_below_the_page_leads_out_of_it(server: Running, target: str) -> None:
    """They are what they seem, files of the page that are not there; or they need a key."""
    for method in ("GET", "HEAD"):
        assert raw(server, method, target) in (401, 404)


@pytest.mark.parametrize("target", LOCKED)
def test_everything_else_needs_a_key(server: Running, target: str) -> None:
    """What only looks like the page, and what there is beside it."""
    assert raw(server, "GET", target) in (400, 401)


@pytest.mark.parametrize("target", ["/", "/page/vendor/markdown-it.mjs"])
def test_the_page_is_only_read_without_a_key(server: Running, target: str) -> None:
    """Other methods are unknown there, and only with a key one is told so."""
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "get"):
        assert raw(server, method, target) in (400, 401)
    answer = server.client.post(target, headers={"x-api-key": KEY})
    assert answer.status_code == 405


def test_the_page_is_in_no_document(server: Running) -> None:
    """The API is what programs use; the page is not a part of it."""
    document = server.client.get("/openapi.json", headers={"x-api-key": KEY}).json()
    assert not [path for path in document["paths"] if path == "/" or path.startswith("/page")]


def test_our_own_part_of_the_page_is_small() -> None:
    """What is not vendored stays within a number of lines, none of them long."""
    lines = [line for path in OWN for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) < MOST_LINES
    assert max(map(len, lines)) <= 100


def test_nothing_is_loaded_from_elsewhere() -> None:
    """Our own files name no other server, and the page is right below any prefix of a proxy."""
    for path in OWN:
        text = path.read_text(encoding="utf-8")
        assert "//cdn" not in text and "@import" not in text
        for quote in ('"', "'", "(", "`"):
            assert f"src={quote}http" not in text and f"href={quote}http" not in text
            assert f"src={quote}/" not in text and f"href={quote}/" not in text
            assert f"fetch({quote}/" not in text and f"from {quote}/" not in text


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
        ("http://0.0.0.0:81", "http://127.0.0.1:81/"),
        ("http://[::]:81", "http://[::1]:81/"),
        ("http://[::1]:81", "http://[::1]:81/"),
        ("http://10.1.2.3:81", "http://10.1.2.3:81/"),
        ("http://box.local:81", "http://box.local:81/"),
    ],
)
def test_the_page_s_address(url: str, address: str) -> None:
    """As a browser on the same machine reaches it."""
    with socket.socket() as unused:
        assert Listener(unused, url).page == address
        assert Listener(unused, "unix:/run/s", Path("/run/s")).page is None


def fake_browser(folder: Path, name: str = "browser", code: int = 0) -> Path:
    """A program to be opened as a browser, which writes its arguments to the file `seen`."""
    program, seen = folder / name, folder / "seen"
    program.write_text(f'#!/bin/sh\necho "$@" >>{seen}\nexit {code}\n')
    program.chmod(stat.S_IRWXU)
    return program


@pytest.mark.skipif(os.name == "nt", reason="the browser is a shell script")
def test_open_opens_the_page(tmp_path: Path) -> None:
    """Once, where the server answers, without the key; the server goes on."""
    env = {"BROWSER": str(fake_browser(tmp_path)), "EFTLOCAL_API_KEY": KEY}
    with serving(tmp_path, "--open", "--host", "0.0.0.0", env=env) as server:
        port = server.url.rpartition(":")[2]
        assert line_of(tmp_path / "seen") == f"http://127.0.0.1:{port}/\n"
        page = httpx.get(f"http://127.0.0.1:{port}/", headers={"accept": BROWSER})
        assert page.status_code == 200
        assert f"the page: http://127.0.0.1:{port}/," in server.log
        assert "--open" not in server.log and KEY not in server.log
        assert server.terminate() == 0


@pytest.mark.skipif(os.name == "nt", reason="the browser is a shell script")
@pytest.mark.parametrize(("name", "code"), [("", 0), ("browser", 1), ("lynx", 0)])
def test_without_a_browser_the_server_goes_on(name: str, code: int, tmp_path: Path) -> None:
    """None at all, one that fails, one that shows text alone: a line says where the page is."""
    if name:
        fake_browser(tmp_path, name, code)
    # No desktop, and no other programs.
    env = {"PATH": f"{tmp_path}:/nowhere", "DISPLAY": "", "WAYLAND_DISPLAY": "", "BROWSER": name}
    with serving(tmp_path, "--open", env=env) as server:
        line = server.wait_for("--open")
        assert f"no browser can be opened here; the page is at {server.url}/" in line
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert server.terminate() == 0
        assert server.log.count("--open") == 1
        assert "Traceback" not in server.log
    assert (tmp_path / "seen").exists() == (name == "browser")


def test_nothing_is_opened_unasked() -> None:
    """Servers that run as a service have nobody who looks."""
    assert Settings(served=(ATLAS,)).open_page is False


def line_of(path: Path) -> str:
    """The text of a file that another process writes, as soon as it has a whole line."""
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"no line in {path.name}"
        time.sleep(0.02)
    return path.read_text()
