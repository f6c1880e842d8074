"""POST /api/generate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request

from ...model import FusedModel
from ..disconnect import run_until_disconnect
from ..failures import ApiError
from ..service import ServiceDep
from .answer import Context, Ready, load_or_unload, respond
from .messages import context_of, messages_of
from .options import changes_of
from .reply import generate_form
from .routing import OllamaRoute
from .schemas import GenerateBody

router = APIRouter(route_class=OllamaRoute)

_REFUSED = {
    "suffix": "suffix is not supported: these models continue a text, they fill no gaps",
    "template": "template is not supported: the model's own is used; raw = true uses none",
    "images": "images are not supported: these models read text only",
}


@router.post("/api/generate", response_model=None)
async def generate(body: GenerateBody, request: Request, service: ServiceDep) -> Response:
    """Answer a prompt, or with raw continue it, line by line or in one piece."""
    for name, message in _REFUSED.items():
        if getattr(body, name):
            raise ApiError(400, message, param=name)
    if body.raw and (body.context or body.system):
        raise ApiError(400, "raw goes with neither system nor context", param="raw")
    if not body.prompt:
        return await run_until_disconnect(request, load_or_unload(body, service, generate_form))
    return await run_until_disconnect(
        request, respond(request, body, service, lambda model: _prepare(body, model))
    )


def _prepare(body: GenerateBody, model: FusedModel) -> Ready:
    changes = changes_of(body, model)
    prompt = body.prompt or ""
    if body.raw:
        return Ready(model.prepare_complete(prompt, **changes), generate_form, is_raw=True)
    messages = _conversation(body, prompt)
    prepared = model.prepare_chat(messages, **changes)
    return Ready(prepared, generate_form, context=_remembers(messages))


def _conversation(body: GenerateBody, prompt: str) -> list[dict[str, Any]]:
    """What was said so far, and the prompt; a new system text replaces the old one."""
    earlier = messages_of(body.context or ())
    if body.system:
        earlier = [message for message in earlier if message["role"] != "system"]
        earlier.insert(0, {"role": "system", "content": body.system})
    return [*earlier, {"role": "user", "content": prompt}]


def _remembers(messages: Sequence[Mapping[str, Any]]) -> Context:
    return lambda answer: context_of([*messages, {"role": "assistant", "content": answer}])
