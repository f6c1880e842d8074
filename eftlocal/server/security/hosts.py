"""The Host header: a name that an attacker's DNS points at this machine is refused.

DNS rebinding makes a page of evil.example reach 127.0.0.1 as "evil.example", from inside the
browser's same-origin rule (CVE-2024-28224). Only the Host header tells it from the real thing.
"""

from __future__ import annotations

import ipaddress
import re
import socket

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..failures import ApiError, failure_of
from ..settings import Settings, is_loopback

_HOST = re.compile(
    r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^\[\]:/@\s]+))(?::[0-9]*)?|(?P<bare>[0-9a-f:.]+)"
)


def host_name(host: str) -> str:
    """The name in a Host header, in lower case without port, brackets, final dot.

    Returns:
        "" for what is no name.
    """
    found = _HOST.fullmatch(host.strip().lower())
    if found is None:
        return ""
    return found["address"] or found["bare"] or found["name"].removesuffix(".")


class HostCheck:
    """Refuses requests for names that this server does not have.

    - On an address that only this machine reaches: names of the loopback, and allowed ones.
    - On an open address without keys: any IP address too, and the name of this machine; rebinding
      needs a name that somebody else controls.
    - With keys, or at a Unix socket, which no browser reaches: any name, unless some are allowed;
      then only those and the loopback's.

    Args:
        app: what gets the request otherwise.
        settings: `allow_hosts` ("*" allows all), and where the server listens.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._names = {host_name(name) for name in settings.allow_hosts}
        needs_no_check = settings.unix_socket is not None or not is_loopback(settings.host)
        trusted = settings.unix_socket is not None or bool(settings.keys)
        self._any = "*" in settings.allow_hosts
        self._any |= needs_no_check and trusted and not self._names
        self._any_address = needs_no_check and not trusted
        if self._any_address:
            name = socket.gethostname().lower()
            self._names |= {name, f"{name}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 403."""
        if scope["type"] == "http" and not self._any:
            host = Headers(scope=scope).get("host")
            # HTTP/1.0 has no Host header; browsers always send one.
            if host is not None and not self._is_known(host_name(host)):
                message = (
                    "the Host header names no address of this server; "
                    "--allow-host NAME of eftlocal serve allows another name"
                )
                failure = failure_of(ApiError(403, message, code="host_not_allowed"))
                await failure.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_known(self, name: str) -> bool:
        if name in self._names or is_loopback(name):
            return True
        if not self._any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
