"""`eftlocal doctor`: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..errors import EftlocalError, RegistryError
from ..options import RuntimeOptions
from ..registry import Entry, load_registry
from .options import Arguments, SectionCommand, listed, model_options, option
from .output import json_text

if TYPE_CHECKING:
    from ..doctor import EntryReport, Facts, Problem
    from ..doctor.prompts import PromptReport
    from ..memory import Device
    from ..registry import Registry

_GB = 1e9
_EPILOG = """\b
Examples:
  eftlocal doctor
  eftlocal doctor -m qwen2.5-7b
  eftlocal doctor --base L.gguf --tuned S-chat.gguf --reference S.gguf --ctx 8192
  eftlocal doctor --json

Without a model it looks at every entry whose files are on this machine, and loads none. With one
it also loads it, and says whether its base knows the chat template.

The exit code is 1 where something that was asked for cannot work: the named model, or without one
an entry whose files are there but damaged, of different families, or too large.
"""


@click.command(cls=SectionCommand, epilog=_EPILOG)
@option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object instead.")
@model_options
def doctor(arguments: Arguments, as_json: bool) -> int:
    """Check this installation, its memory, and model entries; one line of advice per problem."""
    from ..doctor import Problem, check_entry, gather

    problems: list[Problem] = []
    registry = None
    try:
        registry = load_registry(arguments.models)
    except RegistryError as error:
        problems.append(Problem(str(error), "correct the file; eftlocal models path names it"))
    facts = gather(registry.user_file if registry else None)
    entries = _entries(arguments, registry)
    asked = arguments.names_model
    reports = [
        check_entry(entry, facts.devices, _runtime(entry, arguments), asked, bool(arguments.files))
        for entry in entries
    ]
    prompts = None
    if asked and reports[0].works:
        prompts, trouble = _load(arguments)
        problems += trouble
    problems += [*facts.problems, *(prompts.problems if prompts else ())]
    works = not any(problem.is_fatal for problem in problems)
    works = works and all(
        report.works or (report.missing and not report.problems) for report in reports
    )
    if as_json:
        click.echo(json_text(_json(facts, reports, problems, prompts)))
    else:
        click.echo("\n".join(_lines(facts, reports, problems, prompts)))
    return 0 if works else 1


def _entries(arguments: Arguments, registry: Registry | None) -> list[Entry]:
    """The entry or files that were named, else all entries."""
    if arguments.files:
        files = {role: listed(given) for role, given in arguments.files.items()}
        return [Entry.from_files(files["base"][0], files["tuned"], files["reference"])]
    if registry is None:
        return []
    if arguments.entry is not None:
        return [registry.find(arguments.entry)]
    return list(registry.entries.values())


def _runtime(entry: Entry, arguments: Arguments) -> RuntimeOptions:
    return RuntimeOptions().updated(entry.runtime).updated(arguments.runtime)


def _load(arguments: Arguments) -> tuple[PromptReport | None, list[Problem]]:
    """Load the model and compare its prompts; what goes wrong is a problem."""
    from ..doctor import Problem, compare_prompts

    try:
        with arguments.load() as model:
            return compare_prompts(model), []
    except EftlocalError as error:
        return None, [Problem(str(error), "see the line above; it could not be loaded and asked")]


def _lines(
    facts: Facts,
    reports: Sequence[EntryReport],
    problems: Sequence[Problem],
    prompts: PromptReport | None,
) -> Iterable[str]:
    """What a terminal shows."""
    build = facts.build
    rows = [(name, text) for name, text in facts.versions.items()]
    rows += [
        ("CPU kernels", " ".join(build.cpu) or "none known"),
        ("GPU backends", ", ".join(build.backends) if build.gpu else "none"),
        ("RPC", "yes" if build.rpc else "no"),
    ]
    rows += [(device.name, _device(device)) for device in facts.devices]
    rows += list(facts.places.items())
    width = max(len(name) for name, _ in rows)
    yield from (f"{name:<{width}}  {text}" for name, text in rows)
    if reports:
        yield ""
        yield from _table(reports)
    if prompts is not None and not math.isnan(prompts.template):
        yield ""
        yield (
            "base and reference at a reply's first token: total variation "
            f"{prompts.template:.2f} after the entry's prompt, {prompts.plain:.2f} after plain text"
        )
    advice = [(f"{report.name}: ", problem) for report in reports for problem in report.problems]
    advice += [("", problem) for problem in problems]
    yield ""
    if not advice:
        yield "no problems found"
    for name, problem in advice:
        yield f"{'problem' if problem.is_fatal else 'note'}: {name}{problem.text}"
        yield f"  -> {problem.advice}"


def _device(device: Device) -> str:
    more = f" ({device.description})" if device.description else ""
    return f"{device.free / _GB:.1f} of {device.total / _GB:.1f} GB free{more}"


def _table(reports: Sequence[EntryReport]) -> Iterable[str]:
    """One line per entry."""
    cells: list[tuple[str, ...]] = [
        ("ENTRY", "FILES", "TOKENS", "NEEDS", "FITS", "CONTEXT", "DRAFTS")
    ]
    cells += [_cells(report) for report in reports]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True))
        yield line.rstrip()


def _cells(report: EntryReport) -> tuple[str, ...]:
    if report.missing:
        return (report.name, f"{len(report.missing)} missing", "-", "-", "-", "-", "-")
    if report.need is None or report.plan is None:
        return (report.name, "damaged", "-", "-", "-", "-", "-")
    layers = sum(report.plan.gpu_layers.values())
    total = sum(model.n_layers for model in report.need.models)
    fits = "yes" if report.plan.fits else "no"
    if layers:
        fits += f", {layers} of {total} layers on GPU"
    return (
        report.name,
        "ok",
        "differ" if report.n_tokens is None else f"{report.n_tokens:,}",
        f"{report.need.total / _GB:.2f} GB",
        fits,
        f"{report.plan.ctx:,}",
        "yes" if report.can_draft else "no",
    )


def _json(
    facts: Facts,
    reports: Sequence[EntryReport],
    problems: Sequence[Problem],
    prompts: PromptReport | None,
) -> dict[str, Any]:
    """All of it as one object."""
    return {
        "versions": dict(facts.versions),
        "build": asdict(facts.build),
        "devices": [asdict(device) for device in facts.devices],
        "places": dict(facts.places),
        "entries": [_entry_json(report) for report in reports],
        "prompts": None
        if prompts is None or math.isnan(prompts.template + prompts.plain)
        else {"template": prompts.template, "plain": prompts.plain},
        "problems": [asdict(problem) for problem in problems],
    }


def _entry_json(report: EntryReport) -> dict[str, Any]:
    plan, need = report.plan, report.need
    content: dict[str, Any] = {
        "name": report.name,
        "works": report.works,
        "missing": report.missing,
        "n_tokens": report.n_tokens,
        "can_draft": report.can_draft,
        "problems": [asdict(problem) for problem in report.problems],
    }
    if need is not None and plan is not None:
        content |= {
            "ctx": need.ctx,
            "bytes": {**need.parts(), "total": need.total},
            "fits": plan.fits,
            "ctx_that_fits": plan.ctx,
            "gpu_layers": dict(plan.gpu_layers),
            "gpu_bytes": plan.gpu_bytes,
            "ram_bytes": plan.ram_bytes,
        }
    return content
