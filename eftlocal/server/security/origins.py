"""Browsers: pages of other origins are refused unless they are allowed, and get CORS headers then.

A browser sends what a page asks for even where the page may not read the answer, so leaving out
CORS headers is not enough: a cross-site request would still run a model.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...errors import UsageError
from ..failures import ApiError, failure_of

_METHODS = "GET, POST, DELETE, HEAD, OPTIONS"
_EXPOSED = "Retry-After, X-Request-Id"
_DAY = "86400"
_PORTS = {"http": ":80", "https": ":443"}


def origin_of(text: str) -> str:
    """An origin as browsers write it, such as https://app.example:8443; "*" is any.

    Raises:
        UsageError: where it is none.
    """
    if text == "*":
        return text
    parts = urlsplit(text)
    try:
        plain = bool(parts.scheme and parts.netloc) and parts.port != 0
    except ValueError:
        plain = False
    if not plain or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise UsageError(
            f"cors_origin = {text!r} is not allowed; use one such as https://app.example, or *"
        )
    scheme, place = parts.scheme.lower(), parts.netloc.lower()
    return f"{scheme}://{place.removesuffix(_PORTS.get(scheme, ' '))}"


class OriginCheck:
    """Refuses cross-site requests of browsers, and answers preflights.

    Args:
        app: what gets the request otherwise.
        allowed: origins as `origin_of` returns them.
    """

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...]) -> None:
        self._app = app
        self._allowed = frozenset(origin.lower() for origin in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, answer it with 403, or answer a preflight."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        is_allowed = origin is not None and not self._allowed.isdisjoint((origin.lower(), "*"))
        if origin is None:
            refused = _is_foreign(scope["method"], headers)
        else:
            refused = not is_allowed and not _is_own(origin, headers.get("host", ""))
        if refused:
            message = (
                "a page of another site asked for this; "
                "--cors-origin ORIGIN of eftlocal serve allows that"
            )
            failure = failure_of(ApiError(403, message, code="origin_not_allowed"))
            await failure.response()(scope, receive, send)
        elif is_allowed and origin is not None:
            await self._share(origin, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _share(self, origin: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass a request on and let the page read the answer."""
        headers = Headers(scope=scope)
        # Keys travel in headers that pages set themselves: no credentials of the browser.
        shared = {"Access-Control-Allow-Origin": "*" if "*" in self._allowed else origin}
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            wanted = headers.get("access-control-request-headers", "Authorization, Content-Type")
            shared |= {
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": wanted,
                "Access-Control-Max-Age": _DAY,
                "Vary": "Origin, Access-Control-Request-Headers",
            }
            if headers.get("access-control-request-private-network") == "true":
                shared["Access-Control-Allow-Private-Network"] = "true"
            await Response(status_code=204, headers=shared)(scope, receive, send)
            return
        shared["Access-Control-Expose-Headers"] = _EXPOSED

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.update(shared)
                answer.add_vary_header("Origin")
            await send(message)

        await self._app(scope, receive, with_headers)


def _is_own(origin: str, host: str) -> bool:
    """Whether a page comes from this server itself; a proxy may have added TLS."""
    scheme, _, place = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    if port is None or not host:
        return False
    return place.removesuffix(port) == host.lower().removesuffix(port)


def _is_foreign(method: str, headers: Headers) -> bool:
    """Whether another site's page embeds this, or posts a form; following a link is all right."""
    if headers.get("sec-fetch-site") not in ("cross-site", "same-site"):
        return False
    follows_link = headers.get("sec-fetch-mode") == "navigate" and method == "GET"
    return not (follows_link and headers.get("sec-fetch-dest") == "document")
