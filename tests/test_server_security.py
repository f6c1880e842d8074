"""What a stranger's request meets before any route: names, origins, keys, crowds."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from starlette.types import Receive, Scope, Send

from eftlocal.errors import UsageError
from eftlocal.server.app import guard
from eftlocal.server.security.crowds import RequestLimit
from eftlocal.server.security.hosts import host_name
from eftlocal.server.security.origins import origin_of
from eftlocal.server.settings import Settings, is_loopback

from .serving import ATLAS, api_of, error_in, run_app, settings_of

PUBLIC = {"host": "0.0.0.0", "insecure": True}
KEYED = {"host": "0.0.0.0", "keys": ("k",)}
KEY = {"authorization": "Bearer k"}

router = APIRouter()


@router.get("/health")
@router.get("/thing")
@router.post("/thing")
async def thing() -> dict[str, str]:
    """What everybody wants to reach."""
    return {"answer": "yes"}


def ask(settings: Settings, path: str = "/thing", **request: Any) -> tuple[int, dict[str, str]]:
    """Status and headers of one request through all checks."""
    app = guard(api_of(settings, [router]), settings)
    status, headers, body = run_app(app, path=path, **request)
    if status >= 400:
        assert error_in(body)["message"]
    return status, headers


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "127.3.2.1:80"),
        *("[::1]", "[::1]:8080", "localhost.:80", "::1"),
    ],
)
def test_names_of_this_machine_are_let_in(host: str) -> None:
    """The loopback's names, with any port."""
    assert ask(settings_of(), headers={"host": host})[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example"),
        *(
            "10.0.0.1",
            "0.0.0.0",
            "",
            "[::1",
            "127.0.0.1@evil.example",
            "2130706433",
            "[::ffff:a00:1]",
        ),
        *("127.0.0.1:80:80", "localhost evil.example", "127.1"),
    ],
)
def test_rebound_names_are_refused(host: str) -> None:
    """A name that somebody's DNS points here is 403, whatever the path and method."""
    for request in ({}, {"path": "/health"}, {"method": "OPTIONS"}, {"path": "/nowhere"}):
        assert ask(settings_of(), headers={"host": host}, **request)[0] == 403


def test_allowed_names_are_let_in() -> None:
    """--allow-host adds names; "*" is any."""
    named = settings_of(allow_hosts=("llm.example", "Other.Example:9"))
    for host, status in {
        "llm.example": 200, "LLM.EXAMPLE:1": 200, "other.example": 200, "localhost": 200,
        "x.llm.example": 403, "example": 403,
    }.items():  # fmt: skip
        assert ask(named, headers={"host": host})[0] == status, host
    assert ask(settings_of(allow_hosts=("*",)), headers={"host": "evil.example"})[0] == 200


def test_open_addresses_without_keys_take_addresses_but_no_foreign_names() -> None:
    """Rebinding needs a name that somebody else controls; keys make names unimportant."""
    machine = socket.gethostname()
    for host, open_status in {
        "10.1.2.3:80": 200, "[fe80::1]": 200, machine: 200, f"{machine}.local": 200,
        "localhost": 200, "evil.example": 403,
    }.items():  # fmt: skip
        assert ask(settings_of(**PUBLIC), headers={"host": host})[0] == open_status, host
        assert ask(settings_of(**KEYED), headers={"host": host, **KEY})[0] == 200, host
    named = settings_of(**KEYED, allow_hosts=("llm.example",))
    assert ask(named, headers={"host": "llm.example", **KEY})[0] == 200
    assert ask(named, headers={"host": "other.example", **KEY})[0] == 403


def test_unix_sockets_take_any_name_unless_some_are_allowed() -> None:
    """No browser reaches them, and proxies pass names on."""
    path = Path("/run/x.sock")
    assert ask(settings_of(unix_socket=path), headers={"host": "anything"})[0] == 200
    named = settings_of(unix_socket=path, allow_hosts=("llm.example",))
    assert ask(named, headers={"host": "anything"})[0] == 403
    assert ask(named, headers={"host": "localhost"})[0] == 200


CROSS = {"origin": "https://evil.example"}
FOLLOWED = {
    "sec-fetch-site": "cross-site",
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
}
"""What browsers send for a link that was clicked."""


@pytest.mark.parametrize(
    "headers",
    [
        CROSS,
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "https://localhost:8080.evil.example"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    ],
)
def test_pages_of_other_origins_are_refused(headers: dict[str, str]) -> None:
    """Also as preflights and without a body; they get no CORS headers."""
    for method in ("GET", "POST", "OPTIONS"):
        status, answer = ask(
            settings_of(), method=method, headers={"host": "localhost:8080", **headers}
        )
        assert status == 403
        assert not [name for name in answer if name.startswith("access-control")]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost:8080"},
        {"origin": "HTTP://LOCALHOST:8080"},
        {"origin": "https://localhost:8080"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
        {"sec-fetch-site": "same-origin"},
        FOLLOWED,
    ],
)
def test_own_pages_and_links_are_let_in(headers: dict[str, str]) -> None:
    """/docs uses the API of its own server; a link leads to a page."""
    assert ask(settings_of(), headers={"host": "localhost:8080", **headers})[0] == 200


def test_an_origin_without_port_is_that_of_the_standard_port() -> None:
    """http://localhost is port 80, and no other."""
    own = {"origin": "http://localhost"}
    assert ask(settings_of(), headers={"host": "localhost:80", **own})[0] == 200
    assert ask(settings_of(), headers={"host": "localhost", **own})[0] == 200
    assert ask(settings_of(), headers={"host": "localhost:8080", **own})[0] == 403


def test_posted_forms_are_refused() -> None:
    """A form of another site may navigate with POST; older browsers send Origin alone."""
    assert ask(settings_of(), method="POST", headers=FOLLOWED)[0] == 403


def test_cors_is_for_allowed_origins_alone() -> None:
    """Allowed pages may read answers, errors too; preflights need no key."""
    settings = settings_of(cors_origins=("https://app.example",), keys=("k",))
    page = {"origin": "https://app.example"}
    status, headers = ask(settings, headers={**page, **KEY})
    assert (status, headers["access-control-allow-origin"]) == (200, "https://app.example")
    assert "origin" in headers["vary"].lower()
    assert "cross-origin-resource-policy" not in headers
    status, headers = ask(settings, headers=page)
    assert (status, headers["access-control-allow-origin"]) == (401, "https://app.example")
    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-stainless-os",
    }
    status, headers = ask(settings, method="OPTIONS", headers={**page, **preflight})
    assert status == 204
    assert headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert "POST" in headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in headers
    assert ask(settings, method="OPTIONS", headers={**CROSS, **preflight})[0] == 403
    assert ask(settings, headers={**CROSS, **KEY})[0] == 403


def test_any_origin() -> None:
    """--cors-origin "*" is for everybody."""
    status, headers = ask(settings_of(cors_origins=("*",)), headers=CROSS)
    assert (status, headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://App.Example", "https://app.example"),
        ("https://app.example:443/", "https://app.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("tauri://localhost", "tauri://localhost"),
        ("*", "*"),
    ],
)
def test_origins_are_written_as_browsers_do(text: str, origin: str) -> None:
    """Lower case, and no port where it is the scheme's own."""
    assert origin_of(text) == origin


@pytest.mark.parametrize(
    "text",
    ["app.example", "https://", "https://a/b", "https://a?x", "", "http://u@a", "http://a:x"],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    """A mistake must not silently allow nothing."""
    with pytest.raises(UsageError, match="cors_origin"):
        origin_of(text)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True), ("::1", True), ("[::1]", True), ("localhost", True),
        ("127.9.9.9", True), ("0.0.0.0", False), ("::", False), ("192.168.0.5", False),
        ("", False), ("example.org", False), ("localhost.example", False), ("*", False),
    ],
)  # fmt: skip
def test_open_addresses_need_a_key_or_a_word(host: str, local: bool) -> None:
    """What other machines reach is refused where nobody said so."""
    assert is_loopback(host) is local
    if not local:
        with pytest.raises(UsageError, match="--insecure"):
            Settings(served=ATLAS, host=host)
    assert Settings(served=ATLAS, host=host, keys=("k",)).is_local is local
    assert Settings(served=ATLAS, host=host, insecure=True).is_local is local


def test_names_with_ports_and_brackets() -> None:
    """Host headers are taken apart as RFC 3986 writes them."""
    assert host_name(" [2001:DB8::1]:80 ") == "2001:db8::1"
    assert host_name("A.example.:443") == "a.example"


def test_too_many_requests_are_sent_away() -> None:
    """The limit counts requests under way; health is always answered."""
    statuses: list[int] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("outer"):
            nested = {**scope, "outer": False}
            for path in ("/thing", "/health"):
                await limit({**nested, "path": path}, receive, note)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def note(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    limit = RequestLimit(inner, 1, lambda: False)
    for _ in range(3):
        assert run_app(limit, path="/thing", outer=True)[0] == 200
    assert statuses == [503, 200] * 3


def test_a_server_that_ends_takes_no_more() -> None:
    """503 with Retry-After, but health and metrics go on."""
    settings = settings_of()
    app = guard(api_of(settings, [router]), settings, lambda: True)
    status, headers, body = run_app(app, path="/thing")
    assert (status, headers["retry-after"]) == (503, "1")
    assert "shutting down" in error_in(body)["message"]
    assert run_app(app, path="/health")[0] == 200
