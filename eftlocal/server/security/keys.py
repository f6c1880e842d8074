"""API keys: any one of them lets a request in, and comparing tells nothing about them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ...errors import UsageError
from ..failures import ApiError, failure_of

_OPEN = frozenset({"/health", "/v1/health"})
"""Paths that need no key."""

_PAGE = "/page/"


def read_key_file(path: Path) -> tuple[str, ...]:
    """The keys of a file: one per line, lines that begin with # left out.

    Raises:
        UsageError: where it cannot be read or has none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot read the keys: {error.strerror}") from None
    keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise UsageError(f"{path}: there is no key in it; write one per line")
    return keys


def check_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Every key once; keys have to be sendable in a header.

    Raises:
        UsageError: for one that is not; the message does not repeat it.
    """
    found = tuple(dict.fromkeys(keys))
    for key in found:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError("an API key is empty or has blanks or special characters; use ASCII")
    return found


class KeyCheck:
    """Asks every request for a key, but those to /health and those that read the page.

    Args:
        app: what gets the request then.
        keys: none lets everybody in.
    """

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401."""
        if scope["type"] == "http" and self._digests and not _is_open(scope):
            given = _given(Headers(scope=scope))
            if not self._is_key(given):
                what = "is not valid" if given else "is missing; send Authorization: Bearer KEY"
                headers = {"WWW-Authenticate": 'Bearer realm="eftlocal"'}
                error = ApiError(401, f"the API key {what}", None, "invalid_api_key", headers)
                await failure_of(error).response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_key(self, given: str) -> bool:
        """Compare with all keys, whatever the first ones say."""
        digest = _digest(given.encode("latin-1", "replace"))
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found


def _is_open(scope: Scope) -> bool:
    """Whether a request needs no key; looks at the same path, to the letter, as routes do."""
    path = scope["path"]
    if path in _OPEN:
        return True
    # A browser sends no key when it opens an address: the page asks for one itself.
    return scope["method"] in ("GET", "HEAD") and (path == "/" or path.startswith(_PAGE))


def _digest(key: bytes) -> bytes:
    # Digests have one length, so that comparing them does not tell that of a key.
    return hashlib.sha256(key).digest()


def _given(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("x-api-key", "").strip()
