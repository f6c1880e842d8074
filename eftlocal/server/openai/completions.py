"""POST /v1/completions; with echo and logprobs it scores texts, as lm-eval asks for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ...model import FusedModel
from ...stream import Prepared
from ..disconnect import run_until_disconnect
from ..failures import ApiError
from ..service import Service, ServiceDep
from .answer import Answer, Kind
from .fields import MAX_CHOICES
from .options import completion_changes, named_fields, with_seed
from .pieces import Pieces, pieces_of
from .schemas import CompletionRequest
from .text_choice import Place, TextChoice

router = APIRouter()

_KIND = Kind("cmpl", "text_completion", "text_completion")

Prompt = str | list[int]


@router.post("/v1/completions", tags=["OpenAI"], response_model=None)
@router.post("/completions", include_in_schema=False, response_model=None)
async def completions(body: CompletionRequest, request: Request, service: ServiceDep) -> Response:
    """Continue texts or token ids, in one piece or as server-sent events."""
    return await run_until_disconnect(request, _respond(body, request, service))


async def _respond(body: CompletionRequest, request: Request, service: Service) -> Response:
    worker = await service.host.worker(body.model)
    answer = await worker.call(lambda model: _prepare(body, model))
    return await answer.send(request, worker)


def _prepare(body: CompletionRequest, model: FusedModel) -> Answer:
    """Everything that can be wrong with a request is found here, in a thread of its own."""
    prompts = _prompts(body)
    changes = completion_changes(body, model.n_vocab)
    has_logprobs, echo = body.logprobs is not None, bool(body.echo)
    ways: dict[str, Any] = {"echo": echo and has_logprobs, "generate": body.max_tokens != 0}
    with named_fields(body):
        changes, seed = with_seed(changes, model.options)
        first = model.prepare_complete(prompts[0], **ways, **changes)
        ones = [first]
        for prompt in prompts[1:]:
            ones.append(model.prepare_complete(prompt, like=first, **ways, **changes))
    pieces = pieces_of(model) if has_logprobs or echo or body.reports_tokens else None
    prepared: list[Prepared] = []
    choices: list[TextChoice] = []
    for prompt, one in zip(prompts, ones, strict=True):
        shown = _shown(prompt, pieces) if echo and pieces else ""
        for n in range(body.choices):
            prepared.append(one.with_choice(n))
            place = Place(len(choices), n == 0, shown)
            choices.append(TextChoice(place, prepared[-1], body, pieces))
    return Answer(_KIND, body, prepared, choices, seed)


def _shown(prompt: Prompt, pieces: Pieces) -> str:
    return prompt if isinstance(prompt, str) else pieces.join(prompt)


def _prompts(body: CompletionRequest) -> list[Prompt]:
    """The prompts of a request, one by one.

    Raises:
        ApiError: where there are none, or too many.
    """
    given = body.prompt
    if isinstance(given, str):
        return [given]
    ids = [item for item in given if isinstance(item, int)]
    prompts: list[Prompt] = [ids] if ids else [item for item in given if not isinstance(item, int)]
    if not prompts:
        raise ApiError(400, "the prompt is empty; give a text or token ids", param="prompt")
    if len(prompts) * body.choices > MAX_CHOICES:
        message = f"{len(prompts)} prompts with n = {body.choices} are more than {MAX_CHOICES}"
        raise ApiError(400, f"{message} choices; send fewer at once", param="n")
    return prompts
