"""The application: routes, their errors, and the checks that every request passes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.types import ASGIApp

from .. import __version__
from .access import AccessLog
from .failures import add_handlers
from .security.bodies import BodyReader, refuse_bad
from .security.crowds import HeadLimit, RequestLimit
from .security.hosts import HostCheck
from .security.keys import KeyCheck
from .security.origins import OriginCheck
from .service import Service
from .settings import Settings

_DESCRIPTION = (
    "Models fused token by token (emulated fine-tuning), behind the APIs of OpenAI and Ollama. "
    "All options of `eftlocal complete` are fields of requests."
)
_TEXT_OR_NULL = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _TEXT_OR_NULL,
                "code": _TEXT_OR_NULL,
            },
        }
    },
}
_ERROR_ANSWER = {
    "description": "What is wrong, in one sentence",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}


class Api(FastAPI):
    """FastAPI, with our form of errors in the OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """The document: every operation may answer with an error object, none with a 422."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas["Error"] = _ERROR_SCHEMA
            for path in document.get("paths", {}).values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    for status in ("4XX", "5XX"):
                        operation["responses"].setdefault(status, _ERROR_ANSWER)
            self.openapi_schema = document
        return self.openapi_schema


def make_api(service: Service, routers: Sequence[APIRouter]) -> Api:
    """The routes, with errors answered as `failures` says, but without any check.

    Args:
        service: what `service.ServiceDep` gives to routes.
        routers: all routes.
    """
    api = Api(
        title="eftlocal",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(refuse_bad)],
    )
    api.state.service = service
    for router in routers:
        api.include_router(router)
    add_handlers(api)
    return api


def guard(
    app: ASGIApp,
    settings: Settings,
    is_draining: Callable[[], bool] = lambda: False,
    on_answer: Callable[[int], None] | None = None,
) -> ASGIApp:
    """Put the checks before an application, the outermost last.

    Keys come before everything that costs something; origins before keys, since browsers send
    preflights without them.
    """
    app = BodyReader(app, settings.limits)
    app = RequestLimit(app, settings.limits.max_requests, is_draining)
    app = KeyCheck(app, settings.keys)
    app = OriginCheck(app, settings.cors_origins)
    app = HostCheck(app, settings)
    app = HeadLimit(app, settings.limits.max_head)
    return AccessLog(app, bool(settings.cors_origins), on_answer)


def create_app(
    service: Service,
    routers: Sequence[APIRouter] | None = None,
    is_draining: Callable[[], bool] = lambda: False,
) -> ASGIApp:
    """The whole application.

    Args:
        service: the parts of the server.
        routers: routes; None takes all that there are.
        is_draining: whether new requests are refused.
    """
    api = make_api(service, all_routers() if routers is None else routers)
    return guard(api, service.settings, is_draining, service.metrics.answered)


def all_routers() -> list[APIRouter]:
    """The routes of all APIs."""
    from . import docs, ollama, operations, page
    from .openai import routes

    return [*routes.routers, ollama.router, operations.router, docs.router, page.router]
