"""POST /api/chat."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request

from ...model import FusedModel
from ..disconnect import run_until_disconnect
from ..service import ServiceDep
from .answer import Ready, load_or_unload, respond
from .messages import openai_messages
from .options import changes_of
from .reply import chat_form
from .routing import OllamaRoute
from .schemas import ChatBody

router = APIRouter(route_class=OllamaRoute)


@router.post("/api/chat", response_model=None)
async def chat(body: ChatBody, request: Request, service: ServiceDep) -> Response:
    """Answer a conversation, line by line or in one piece."""
    if not body.messages:
        return await run_until_disconnect(request, load_or_unload(body, service, chat_form))

    def prepare(model: FusedModel) -> Ready:
        messages = openai_messages(body.messages or ())
        changes = changes_of(body, model)
        return Ready(model.prepare_chat(messages, tools=body.tools, **changes), chat_form)

    return await run_until_disconnect(request, respond(request, body, service, prepare))
