"""Texts and token ids: /tokenize, /detokenize, /tokenizer_info and /apply-template.

As llama-server has them, with the names that lm-eval and vLLM's clients use beside.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ...model import FusedModel
from ..failures import ApiError
from ..service import ServiceDep
from .messages import plain_messages
from .pieces import pieces_of
from .schemas import DetokenizeRequest, TemplateRequest, TokenizeRequest

router = APIRouter(tags=["Tokens"])


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, service: ServiceDep) -> dict[str, Any]:
    """Token ids of a text: of `content` without BOS, of `prompt` with it, unless it says which."""
    worker = await service.host.worker(body.model)
    return await worker.call(lambda model: _tokenize(body, model))


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, service: ServiceDep) -> dict[str, Any]:
    """The text of token ids, markers included."""
    worker = await service.host.worker(body.model)
    text = await worker.call(lambda model: _text(body.tokens, model))
    return {"content": text, "prompt": text}


@router.get("/tokenizer_info")
async def tokenizer_info(service: ServiceDep, model: str | None = None) -> dict[str, Any]:
    """The markers and the chat template of a model."""
    worker = await service.host.worker(model)
    facts = await service.host.facts(model)
    return {**_info(worker.model), "chat_template": facts.template or None}


@router.post("/apply-template")
async def apply_template(body: TemplateRequest, service: ServiceDep) -> dict[str, Any]:
    """The prompt that the tuned model reads for a conversation, without BOS."""
    worker = await service.host.worker(body.model)
    return {"prompt": await worker.call(lambda model: _prompt(body, model))}


def _tokenize(body: TokenizeRequest, model: FusedModel) -> dict[str, Any]:
    given = [text for text in (body.content, body.prompt) if text is not None]
    if len(given) != 1:
        raise ApiError(400, "give a text as content or as prompt, one of them", param="content")
    special = {body.add_special, body.add_special_tokens} - {None}
    if len(special) > 1:
        raise ApiError(400, "add_special and add_special_tokens differ", param="add_special")
    with_bos = special.pop() if special else body.prompt is not None
    parse = body.parse_special is not False
    tokens: list[Any] = model.vocabulary.tokenize(
        given[0], add_special=bool(with_bos), parse_special=parse
    )
    count = len(tokens)
    if body.with_pieces:
        pieces = pieces_of(model)
        tokens = [{"id": token, "piece": _piece(pieces.shown[token])} for token in tokens]
    return {"tokens": tokens, "count": count, "max_model_len": model.n_ctx}


def _piece(piece: bytes) -> str | list[int]:
    """As llama-server: a text, or bytes where it is none."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return list(piece)


def _text(tokens: list[int], model: FusedModel) -> str:
    """The text that gives these ids.

    Some tokenizers put a space before a text, which is not a part of it.
    """
    vocabulary = model.vocabulary
    pieces = [vocabulary.piece(token, special=True) for token in tokens]
    text = b"".join(pieces).decode("utf-8", "replace")
    start = len(pieces[0].decode("utf-8", "replace")) if _is_bos(tokens, model) else 0
    if text[start : start + 1] != " ":
        return text
    shorter = text[:start] + text[start + 1 :]
    again = vocabulary.tokenize(shorter, add_special=False, parse_special=True)
    return shorter if again == list(tokens) else text


def _is_bos(tokens: list[int] | tuple[int, ...], model: FusedModel) -> bool:
    return bool(tokens) and tokens[0] == model.vocabulary.bos


def _info(model: FusedModel) -> dict[str, Any]:
    vocabulary = model.vocabulary
    markers = {"bos_token": vocabulary.bos, "eos_token": vocabulary.eos}
    return {
        "model": model.name,
        **{n: model.token_text(token) if token >= 0 else None for n, token in markers.items()},
        "bos_token_id": vocabulary.bos if vocabulary.bos >= 0 else None,
        "eos_token_id": vocabulary.eos if vocabulary.eos >= 0 else None,
        "add_bos_token": vocabulary.add_bos,
        "n_vocab": model.n_vocab,
        "max_model_len": model.n_ctx,
    }


def _prompt(body: TemplateRequest, model: FusedModel) -> str:
    messages = plain_messages(body.messages)
    prepared = model.prepare_chat(messages, tools=body.tools or None)
    tuned, _ = model.engine.ensemble.roles.experts[0]
    tokens = prepared.request.prompts[tuned]
    # Completions put it first again.
    skip = model.vocabulary.add_bos and _is_bos(tokens, model)
    return _text(list(tokens[1:] if skip else tokens), model)
