"""`eftlocal models show`: everything about one entry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EftlocalError
from ..registry import Entry, Source, load_registry
from .models_facts import Facts, gather, size_text
from .models_file import given_file, models_file
from .options import option
from .output import json_text
from .types import EntryName

if TYPE_CHECKING:
    from ..memory import Device, Plan

_EPILOG = """\b
Examples:
  eftlocal models show atlas
  eftlocal models show qwen2.5-7b --json

"seen" and "inferred" say how the name of a file is known: from public pages, or by its publisher's
habits; `eftlocal verify NAME` asks the hub.
"""


@click.command(epilog=_EPILOG, short_help="Show everything about an entry.")
@click.argument("name", type=EntryName())
@option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object instead.")
@models_file
@click.pass_context
def show(context: click.Context, name: str, as_json: bool, models: str | None) -> None:
    """Show an entry: its files, licence, prompts and options, and what fits on this machine."""
    registry = load_registry(given_file(context, models))
    facts = gather(registry.find(name))
    name = facts.entry.name
    origin = str(registry.user_file) if name in registry.own else "shipped"
    devices = _devices()
    if as_json:
        click.echo(json_text(_as_json(facts, origin, devices)))
        return
    lines = list(_lines(facts, origin, devices))
    width = max(len(title) for title, _ in lines)
    click.echo(f"{name}: {facts.entry.description}".rstrip(": "))
    for title, text in lines:
        click.echo(f"  {title:<{width}}  {text}".rstrip())


def _devices() -> list[Device]:
    """RAM, and what llama.cpp sees beside it."""
    from ..memory import ram

    try:
        from ..llama.devices import devices

        return devices()
    except EftlocalError:  # an entry can be looked at without a llama.cpp that works
        memory = ram()
        return [memory] if memory else []


def _lines(facts: Facts, origin: str, devices: list[Device]) -> Iterator[tuple[str, str]]:
    """Title and text of every line."""
    entry = facts.entry
    yield "from", origin
    if entry.aliases:
        yield "also called", ", ".join(entry.aliases)
    for title, text in (("licence", entry.licence), ("suits", entry.hardware)):
        if text:
            yield title, text
    for role, source in entry.sources():
        yield role, _source_line(facts, source)
    yield "prompt", entry.prompt + (f": {entry.why}" if entry.why else "")
    for role, style in entry.templates.items():
        yield "", f"{role}: {style}"
    settings = _settings(entry)
    if settings:
        yield "options", ", ".join(f"{key} {_plain(value)}" for key, value in settings.items())
    yield from _memory_lines(facts, devices)
    if facts.n_present < len(facts.present):
        if all(source.path is None for source, path in facts.present.items() if path is None):
            yield "next", f"eftlocal pull {entry.name}"
    else:
        yield "next", f"eftlocal chat -m {entry.name}"


def _source_line(facts: Facts, source: Source) -> str:
    size = facts.sizes[source]
    there = facts.present[source] is not None
    missing = "not downloaded" if source.path is None else "missing"
    parts = [
        "" if size is None else size_text(size),
        source.evidence or "",
        "downloaded" if there and source.path is None else "" if there else missing,
    ]
    adapter = "" if source.scale is None else f"adapter, scale {source.scale:g}"
    detail = ", ".join(part for part in (*parts, adapter) if part)
    return f"{source} ({detail})" if detail else str(source)


def _memory_lines(facts: Facts, devices: list[Device]) -> Iterator[tuple[str, str]]:
    if facts.memory is None:
        yield "memory", "not known before the files are there"
    elif facts.need is None:
        yield "memory", f"about {size_text(facts.memory)}, estimated without the files"
    else:
        parts = ", ".join(f"{name} {size_text(n)}" for name, n in facts.need.parts().items())
        yield "memory", f"{size_text(facts.memory)} at {facts.need.ctx:,} tokens ({parts})"
    for device in devices:
        name = f"{device.name} {device.description}".strip()
        yield "", f"{name}: {size_text(device.free)} of {size_text(device.total)} free"
    fits = facts.fits(devices)
    plan = facts.plan(devices)
    if plan is not None:
        yield "fits", ("yes" if plan.fits else f"no: {plan.advice}") + _layers(plan)
    elif fits is not None:
        yield "fits", "yes" if fits else "no"


def _layers(plan: Plan) -> str:
    """How many layers go to GPUs, where any does."""
    if not any(plan.gpu_layers.values()):
        return ""
    layers = ", ".join(f"{role} {count}" for role, count in plan.gpu_layers.items())
    return f"; layers on GPUs: {layers}"


def _settings(entry: Entry) -> dict[str, Any]:
    """Every option that the entry sets."""
    settings = {**entry.runtime, **entry.options, "neutral": entry.neutral, "think": entry.think}
    if entry.idle_timeout:
        settings["idle_timeout"] = entry.idle_timeout
    return settings


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return str(value)


def _as_json(facts: Facts, origin: str, devices: list[Device]) -> dict[str, Any]:
    entry = facts.entry
    plan = facts.plan(devices)
    return {
        "name": entry.name,
        "aliases": list(entry.aliases),
        "description": entry.description,
        "from": origin,
        "licence": entry.licence,
        "hardware": entry.hardware,
        "files": {role: _source_json(facts, source) for role, source in entry.sources()},
        "prompt": entry.prompt,
        "why": entry.why,
        "templates": {role: str(style) for role, style in entry.templates.items()},
        "neutral": entry.neutral,
        "think": entry.think,
        "idle_timeout": entry.idle_timeout,
        "options": {**entry.runtime, **entry.options},
        "size": facts.size,
        "size_is_complete": facts.size_is_complete,
        "memory": facts.memory,
        "memory_parts": facts.need.parts() if facts.need else None,
        "fits": facts.fits(devices),
        "ctx": plan.ctx if plan else None,
        "gpu_layers": dict(plan.gpu_layers) if plan else None,
        "advice": plan.advice if plan else "",
        "devices": [
            {"name": device.name, "kind": device.kind, "free": device.free, "total": device.total}
            for device in devices
        ],
    }


def _source_json(facts: Facts, source: Source) -> dict[str, Any]:
    location: Path | None = facts.present[source]
    return {
        "source": str(source),
        "location": None if location is None else str(location),
        "size": facts.sizes[source],
        "evidence": source.evidence,
        "sha256": source.sha256,
        "scale": source.scale,
    }
