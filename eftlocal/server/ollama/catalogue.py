"""Which models there are: /api/tags, /api/show, /api/ps; and which version this is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ... import __version__
from ...options import option_name
from ...registry import Entry
from ..facts import Facts
from ..failures import ApiError
from ..host import Host
from ..service import ServiceDep
from .routing import NEVER, OllamaRoute, timestamp
from .schemas import NameBody

router = APIRouter(route_class=OllamaRoute)

API_VERSION = "0.12.6"
"""The version of Ollama whose API this is; clients refuse servers that seem too old."""

GREETING = "Ollama is running (eftlocal speaks its API)"
"""What `/` says to programs, which look for these words."""

_OLLAMA_NAMES = {"repetition_penalty": "repeat_penalty", "max_tokens": "num_predict"}


@router.get("/api/version")
@router.head("/api/version", include_in_schema=False)
async def version() -> dict[str, str]:
    """The version of Ollama's API, and our own."""
    return {"version": API_VERSION, "eftlocal": __version__}


@router.get("/api/tags")
@router.head("/api/tags", include_in_schema=False)
async def tags(service: ServiceDep) -> dict[str, Any]:
    """All models that requests may name, loaded or not."""
    host = service.host
    return {"models": [_model(name, await host.facts(name)) for name in host.names()]}


@router.post("/api/show")
async def show(body: NameBody, service: ServiceDep) -> dict[str, Any]:
    """One model: where it comes from, its template, what its base's file says."""
    given = body.model or body.name
    if given is None:
        raise ApiError(400, "model is missing", param="model")
    entry = service.host.find(given)
    facts = await service.host.facts(given)
    return {
        "license": entry.licence,
        "modelfile": f"# {entry.description or entry.name}\nFROM {entry.name}\n",
        "parameters": _parameters(service.host, entry),
        "template": facts.template,
        "modified_at": timestamp(facts.modified),
        "details": _details(facts),
        "model_info": _model_info(entry, facts),
        "capabilities": _capabilities(facts),
    }


@router.get("/api/ps")
async def ps(service: ServiceDep) -> dict[str, Any]:
    """The models that are loaded, and until when."""
    host = service.host
    models = []
    for state in host.states():
        worker = host.loaded().get(state.name)
        if worker is None:
            continue
        takes, never = state.footprint, state.expires_at is None
        models.append(
            {
                **_model(state.name, await host.facts(state.name)),
                "size": takes.total if takes else 0,
                "size_vram": takes.gpu if takes else 0,
                "expires_at": NEVER if never else timestamp(state.expires_at),
                "context_length": worker.model.n_ctx,
            }
        )
    return {"models": models}


def _model(name: str, facts: Facts) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "modified_at": timestamp(facts.modified),
        "size": facts.n_bytes,
        "digest": facts.digest,
        "details": _details(facts),
    }


def _details(facts: Facts) -> dict[str, Any]:
    """Those of the base."""
    base = facts.base
    return {
        "parent_model": "",
        "format": "gguf",
        "family": base.family if base else "",
        "families": [base.family] if base else [],
        "parameter_size": _count(base.parameters) if base else "",
        "quantization_level": base.quantization if base else "",
    }


def _count(parameters: int) -> str:
    """A number of parameters for people: 8.0B, 494.0M."""
    for unit, power in (("B", 9), ("M", 6), ("K", 3)):
        if parameters >= 10**power:
            return f"{parameters / 10**power:.1f}{unit}"
    return str(parameters)


def _parameters(host: Host, entry: Entry) -> str:
    """The options that the entry and the command line set, one per line."""
    given = {**entry.options, **host.changes(entry.name)}
    names = {name: option_name(name) for name in given}
    return "\n".join(
        f"{_OLLAMA_NAMES.get(shown, shown):<30} {given[name]}" for name, shown in names.items()
    )


def _model_info(entry: Entry, facts: Facts) -> dict[str, Any]:
    """The metadata of the base's file, and the files of all roles under our own prefix."""
    base = facts.base
    info: dict[str, Any] = dict(base.metadata) if base else {}
    if base:
        info["general.parameter_count"] = base.parameters
    for role, source in entry.sources():
        info[f"eftlocal.{role.replace(' ', '.')}"] = source.label
    return info


def _capabilities(facts: Facts) -> list[str]:
    found = ["completion"]
    if facts.has_tools:
        found.append("tools")
    if facts.can_think:
        found.append("thinking")
    return found
