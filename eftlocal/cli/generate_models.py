"""The models of `eftlocal generate`: what a text depends on, and how many run at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options import GenerationOptions, RuntimeOptions, option_name
from .options import Arguments

if TYPE_CHECKING:
    from ..registry import Entry

_PARALLEL = (8, 4, 2)
_WITHOUT_EFFECT = ("trace", "top_logprobs")


def settings_of(arguments: Arguments, kv_unified: str | None) -> dict[str, Any]:
    """The models' files, and all options that a text depends on.

    Raises:
        EftlocalError: where a file is not there.
    """
    entry, files = _located(arguments)
    runtime = RuntimeOptions().updated(entry.runtime).updated(arguments.runtime)
    generation = GenerationOptions().updated(entry.options).updated(arguments.generation)
    values = {option_name(name): value for name, value in asdict(generation).items()}
    return {
        "model": entry.name,
        **{role: [path.name, path.stat().st_size] for role, path in files.items()},
        **{name: value for name, value in values.items() if name not in _WITHOUT_EFFECT},
        "ctx": runtime.ctx,
        "cache_type": runtime.cache_type,
        "kv_unified": kv_unified or runtime.kv_unified,
    }


def with_sequences(arguments: Arguments, parallel: int | None, kv_unified: str | None) -> Arguments:
    """The same with a number of sequences: what was asked for, or what there is memory for."""
    runtime = dict(arguments.runtime)
    if kv_unified:
        runtime["kv_unified"] = kv_unified
    runtime["parallel"] = parallel or _most(replace(arguments, runtime=runtime))
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
