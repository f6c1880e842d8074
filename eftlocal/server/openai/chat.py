"""POST /v1/chat/completions."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ...model import FusedModel
from ..disconnect import run_until_disconnect
from ..service import Service, ServiceDep
from .answer import Answer, Kind
from .chat_choice import ChatChoice
from .messages import plain_messages
from .options import chat_changes, named_fields, with_seed
from .pieces import pieces_of
from .schemas import ChatRequest

router = APIRouter()

_KIND = Kind("chatcmpl", "chat.completion", "chat.completion.chunk")


@router.post("/v1/chat/completions", tags=["OpenAI"], response_model=None)
@router.post("/chat/completions", include_in_schema=False, response_model=None)
async def chat_completions(body: ChatRequest, request: Request, service: ServiceDep) -> Response:
    """Answer a conversation, in one piece or as server-sent events."""
    return await run_until_disconnect(request, _respond(body, request, service))


async def _respond(body: ChatRequest, request: Request, service: Service) -> Response:
    worker = await service.host.worker(body.model)
    answer = await worker.call(lambda model: _prepare(body, model))
    return await answer.send(request, worker)


def _prepare(body: ChatRequest, model: FusedModel) -> Answer:
    """Everything that can be wrong with a request is found here, in a thread of its own."""
    changes = chat_changes(body, model.n_vocab)
    messages = plain_messages(body.messages)
    with named_fields(body):
        changes, seed = with_seed(changes, model.options)
        one = model.prepare_chat(
            messages,
            tools=body.tools,
            tool_choice=body.tool_choice,
            parallel_tool_calls=body.parallel_tool_calls,
            **changes,
        )
    prepared = [one.with_choice(choice) for choice in range(body.choices)]
    pieces = pieces_of(model) if body.logprobs or body.reports_tokens else None
    choices = [ChatChoice(i, item, body, pieces) for i, item in enumerate(prepared)]
    return Answer(_KIND, body, prepared, choices, seed)
