"""What whoever runs a server asks it: its health, metrics, properties and slots."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from .. import __version__
from ..options import GenerationOptions, option_name
from .facts import Facts
from .host import Host
from .service import ServiceDep
from .worker import Slot, Worker

router = APIRouter(tags=["Operations"])

ModelName = Annotated[
    str | None, Query(alias="model", max_length=1000, description="Without one, the first.")
]


@router.get("/health")
@router.get("/v1/health", include_in_schema=False)
async def health(service: ServiceDep) -> JSONResponse:
    """Whether requests are answered: 200 with ok; 503 with loading, draining or failed."""
    status = health_of(service.host)
    if status == "ok":
        return JSONResponse({"status": status})
    return JSONResponse({"status": status}, 503, headers={"Retry-After": "1"})


def health_of(host: Host) -> str:
    """Return "draining", "ok", or where nothing is loaded also "loading" or "failed".

    A server on which nothing is loaded is well: it loads what is asked for.
    """
    if host.is_closing:
        return "draining"
    states = {state.state for state in host.states()}
    if "loaded" in states:
        return "ok"
    return next((name for name in ("loading", "failed") if name in states), "ok")


@router.get("/metrics")
async def metrics(request: Request, service: ServiceDep) -> Response:
    """Counters, histograms and gauges in Prometheus's text format."""
    body, content_type = service.metrics.render(service.host, request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})


@router.get("/props")
async def props(service: ServiceDep, name: ModelName = None) -> dict[str, Any]:
    """What a model is and how it generates where a request says nothing else; loads nothing."""
    state = service.host.state(name)
    entry = service.host.find(name)
    worker = service.host.loaded().get(entry.name)
    facts = await service.host.facts(name)
    options = worker.model.options if worker else service.host.options(name)
    return {
        "model": entry.name,
        "model_alias": entry.name,
        "models": service.host.names(),
        "state": state.state,
        "progress": state.progress,
        "failure": state.failure or None,
        "is_sleeping": worker is None,
        "n_ctx": worker.model.n_ctx if worker else None,
        "total_slots": service.host.runtime(name).parallel,
        "experts": [expert.name for expert in entry.experts],
        "can_draft": worker.model.can_draft if worker else None,
        "default_generation_settings": {
            "n_ctx": worker.model.n_ctx if worker else None,
            "params": settings_of(options),
        },
        "chat_template": facts.template,
        "modalities": {"vision": False, "audio": False},
        "files": files_of(facts),
        "build_info": f"eftlocal {__version__}",
    }


def settings_of(options: GenerationOptions) -> dict[str, Any]:
    """Generation options as JSON, by their names outside Python."""
    return {option_name(name): value for name, value in asdict(options).items()}


def files_of(facts: Facts) -> dict[str, dict[str, Any]]:
    """Role -> the file's name and what it holds; no folders."""
    return {
        role: {
            "name": model.name,
            "architecture": model.family,
            "parameters": model.parameters,
            "quantization": model.quantization,
            "size": model.n_bytes,
        }
        for role, model in facts.models.items()
    }


@router.get("/slots")
async def slots(service: ServiceDep, name: ModelName = None) -> list[dict[str, Any]]:
    """What every sequence of a model does, without any text; nothing where it is not loaded."""
    entry = service.host.find(name)
    worker = service.host.loaded().get(entry.name)
    return [_slot(entry.name, worker, slot) for slot in worker.slots()] if worker else []


def _slot(name: str, worker: Worker, slot: Slot) -> dict[str, Any]:
    return {
        "id": slot.sequence,
        "id_task": slot.job or -1,
        "model": name,
        "n_ctx": worker.model.n_ctx,
        "is_processing": slot.state != "idle",
        "state": slot.state,
        "prompt_tokens": slot.prompt_tokens,
        "prefilled_tokens": slot.prefilled,
        "cached_tokens": slot.cached_tokens,
        "generated_tokens": slot.generated_tokens,
        "held_tokens": slot.held_tokens,
    }
