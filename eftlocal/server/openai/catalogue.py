"""GET /v1/models and /v1/models/{id}; embeddings, which these models do not have."""

from __future__ import annotations

import time
from typing import Any, NoReturn

from fastapi import APIRouter

from ..failures import ApiError
from ..service import ServiceDep

router = APIRouter()

_STARTED = int(time.time())


@router.get("/v1/models", tags=["OpenAI"])
@router.get("/models", include_in_schema=False)
async def list_models(service: ServiceDep) -> dict[str, Any]:
    """The models that requests may name; the first is what a request without a name gets."""
    return {"object": "list", "data": [_model(name) for name in service.host.names()]}


@router.get("/v1/models/{name:path}", tags=["OpenAI"])
@router.get("/models/{name:path}", include_in_schema=False)
async def get_model(name: str, service: ServiceDep) -> dict[str, Any]:
    """One of them, by its name or an alias."""
    return _model(service.host.find(name).name)


@router.post("/v1/embeddings", tags=["OpenAI"], response_model=None, status_code=501)
@router.post("/embeddings", include_in_schema=False, response_model=None, status_code=501)
async def embeddings() -> NoReturn:
    """Not supported: three models fused token by token have no embedding of a text."""
    message = "embeddings are not supported: fusing token distributions gives none"
    raise ApiError(501, message)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "eftlocal"}
