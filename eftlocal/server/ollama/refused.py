"""What Ollama's API has and this server does not: a clear 501, and 404 or 405 for the rest."""

from __future__ import annotations

from typing import NoReturn

from fastapi import APIRouter
from starlette.requests import Request

from ..failures import ApiError
from .routing import OllamaRoute

router = APIRouter(route_class=OllamaRoute)

_EMBEDDINGS = "embeddings are not supported: fusing token distributions gives none"
_FILES = "models are not {done} over HTTP; use `eftlocal {command}` on the server"
_REFUSED = {
    ("POST", "/api/embed"): _EMBEDDINGS,
    ("POST", "/api/embeddings"): _EMBEDDINGS,
    ("POST", "/api/pull"): _FILES.format(done="downloaded", command="pull"),
    ("POST", "/api/push"): "models are not uploaded; this server only runs them",
    ("POST", "/api/create"): _FILES.format(done="made", command="models add"),
    ("POST", "/api/copy"): _FILES.format(done="copied", command="models add"),
    ("DELETE", "/api/delete"): _FILES.format(done="removed", command="models remove"),
}
_ROUTES = {"/api/chat": "POST", "/api/generate": "POST", "/api/show": "POST"}
_ROUTES |= dict.fromkeys(("/api/tags", "/api/ps", "/api/version"), "GET")
_ANY = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


@router.api_route("/api/{rest:path}", methods=_ANY, include_in_schema=False, response_model=None)
async def refuse(rest: str, request: Request) -> NoReturn:
    """Say why there is no answer."""
    path = f"/api/{rest}"
    sentence = _REFUSED.get((request.method, path))
    if sentence is None and path.startswith("/api/blobs/"):
        sentence = _FILES.format(done="made", command="models add")
    if sentence is not None:
        raise ApiError(501, sentence)
    known = _ROUTES.get(path) or next((m for m, p in _REFUSED if p == path), None)
    if known is not None:
        message = f"this address does not know the method {request.method}; use {known}"
        raise ApiError(405, message, headers={"Allow": known})
    raise ApiError(404, "there is nothing at this address; /docs lists what there is")
