"""The page at `/`: a chat in the browser that uses the public API alone.

Its files lie in this folder and are served as they are; nothing is built, and nothing is loaded
from other servers.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from ..ollama.catalogue import GREETING

router = APIRouter(include_in_schema=False)

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # What a model writes cannot become markup, whatever a script does with it.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_TYPES = {
    "": "text/plain; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
}
"""What is served, by suffix. The system's own table may lack one, or have another type for it."""

# Browsers ask each time whether a file has changed, so that no page mixes two versions.
_SAFE = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
_PAGE = {
    **_SAFE,
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
}

_files = StaticFiles(directory=Path(__file__).parent)


@router.api_route("/", methods=["GET", "HEAD"])
async def root(request: Request) -> Response:
    """The page for browsers; for everybody else the words that clients of Ollama look for."""
    if not _wants_html(request.headers.get("accept", "")):
        return PlainTextResponse(GREETING, headers={**_SAFE, "Vary": "Accept"})
    response = await _files.get_response("index.html", request.scope)
    response.headers.update(_PAGE)
    return response


@router.api_route("/page/{name:path}", methods=["GET", "HEAD"])
async def file(name: str, request: Request) -> Response:
    """A script, a style sheet or a licence of the page."""
    kind = _TYPES.get(PurePosixPath(name).suffix)
    if kind is None:
        raise HTTPException(404)
    response = await _files.get_response(name, request.scope)
    response.headers.update({**_SAFE, "Content-Type": kind})
    return response


def _wants_html(accept: str) -> bool:
    """Whether an Accept header names HTML itself, as only browsers do."""
    kinds = [[part.strip() for part in kind.split(";")] for kind in accept.lower().split(",")]
    return any(kind == "text/html" and "q=0" not in more for kind, *more in kinds)
