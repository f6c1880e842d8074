"""The models of `eftlocal generate`: what a text depends on, and how many run at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options import RuntimeOptions
from .options import Arguments

if TYPE_CHECKING:
    from ..registry import Entry

_PARALLEL = (8, 4, 2)
_WITHOUT_EFFECT = ("trace", "top_logprobs")


def steadied(arguments: Arguments, kv_unified: str | None) -> Arguments:
    """The same such that the clock and neighbours change no text, where nobody wants otherwise.

    What the user or the entry says counts; else there are no drafts, whose lengths follow the
    clock, and every text has a KV cache of its own, whose rounding is its own, too.

    Raises:
        EftlocalError: for an unknown entry.
    """
    entry, _ = _located(arguments)
    runtime, generation = dict(arguments.runtime), dict(arguments.generation)
    if kv_unified:
        runtime["kv_unified"] = kv_unified
    elif "kv_unified" not in entry.runtime:
        runtime["kv_unified"] = "off"
    if "draft" not in entry.options:
        generation.setdefault("draft", "off")
    return replace(arguments, runtime=runtime, generation=generation)


def settings_of(arguments: Arguments) -> dict[str, Any]:
    """All that a text depends on beside its line: the content of files, versions, all options.

    Raises:
        EftlocalError: where a file is not there.
    """
    from ..evaluate.systems import Models

    entry, _ = _located(arguments)
    name = None if arguments.files else arguments.entry
    models = Models(name, arguments.files, arguments.models, arguments.runtime)
    content = models.content(arguments.generation)
    runtime, options = content["runtime"], content["options"]
    return {
        "model": entry.name,
        **{key: value for key, value in content.items() if key not in ("runtime", "options")},
        **runtime,
        **{key: value for key, value in options.items() if key not in _WITHOUT_EFFECT},
    }


def with_sequences(arguments: Arguments, parallel: int | None) -> Arguments:
    """The same with a number of sequences: what was asked for, or what there is memory for."""
    runtime = {**arguments.runtime, "parallel": parallel or _most(arguments)}
    return replace(arguments, runtime=runtime)


def _located(arguments: Arguments) -> tuple[Entry, Mapping[str, Path]]:
    from ..loading import locate

    files: dict[str, Any] = dict(arguments.files)
    entry = None if files else arguments.entry
    return locate(entry, models=arguments.models, **files)


def _most(arguments: Arguments) -> int:
    """The most sequences that fit; what the entry says, where it does."""
    from ..llama.devices import devices
    from ..llama.library import has_amx
    from ..memory import need_of_files, plan

    entry, files = _located(arguments)
    runtime = RuntimeOptions().updated(entry.runtime).updated(arguments.runtime)
    if "parallel" in entry.runtime:
        return runtime.parallel
    found = devices()
    for count in _PARALLEL:
        need = need_of_files(files, replace(runtime, parallel=count), repacks=not has_amx())
        if plan(need, found).fits:
            return count
    return 1
