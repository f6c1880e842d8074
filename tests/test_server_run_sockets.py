"""Where a server listens: ports, IPv6, Unix sockets."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter

from eftlocal.server.sockets import CannotListen, listen

from .serving import running, settings_of, socket_path

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Nothing to wait for."""
    return {"status": "ok"}


def get(path: Path, url: str) -> httpx.Response:
    """One request over a Unix socket."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        return client.get(url)


def test_ports_in_use_and_addresses_that_are_none() -> None:
    """One line each, with the way out."""
    with running(settings_of(), router) as server, pytest.raises(CannotListen, match="is in use"):
        listen(settings_of(port=server.address[1]))
    for host in ("256.1.1.1", "no-such-host.invalid", "x" * 300):
        with pytest.raises(CannotListen, match="no such address"):
            listen(settings_of(host=host, keys=("k",)))
    with pytest.raises(CannotListen, match="cannot listen there"):
        listen(settings_of(host="192.0.2.1", keys=("k",)))


def test_ipv6() -> None:
    """The URL has brackets, and works."""
    try:
        listen(settings_of(host="::1")).close()
    except CannotListen:
        pytest.skip("this machine has no IPv6")
    with running(settings_of(host="::1"), router) as server:
        assert server.url.startswith("http://[::1]:")
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_unix_sockets(tmp_path: Path) -> None:
    """For this user alone; removed at the end; no URL is needed in Host."""
    path = socket_path(tmp_path)
    with running(settings_of(unix_socket=path), router) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert server.url == f"unix:{path}"
        assert get(path, "http://anything/health").json() == {"status": "ok"}
        with pytest.raises(CannotListen, match="another server listens there"):
            listen(settings_of(unix_socket=path))
        assert path.exists()
    assert not path.exists()


def test_stale_unix_sockets_are_replaced(tmp_path: Path) -> None:
    """As kill -9 leaves them; other files never are."""
    path = socket_path(tmp_path)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.exists()
    with running(settings_of(unix_socket=path), router):
        assert get(path, "http://localhost/health").status_code == 200
    path.write_text("mine")
    with pytest.raises(CannotListen, match="no socket"):
        listen(settings_of(unix_socket=path))
    assert path.read_text() == "mine"
    with pytest.raises(CannotListen, match="cannot listen there"):
        listen(settings_of(unix_socket=tmp_path / ("x" * 200)))
    with pytest.raises(CannotListen, match="cannot listen there"):
        listen(settings_of(unix_socket=tmp_path / "missing" / "s"))


def test_a_socket_of_another_server_is_not_removed(tmp_path: Path) -> None:
    """Whoever took the path over keeps it."""
    path = socket_path(tmp_path)
    listener = listen(settings_of(unix_socket=path))
    os.unlink(path)
    path.write_text("another one")
    listener.close()
    assert path.read_text() == "another one"
