"""Section `caches`: types of KV caches, flash attention, GPU layers; each has its own load."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

from ..llama import LlamaContext
from ..llama.library import lib, local_gpus
from ..loading import load
from .report import Cell, Column, Table
from .resident import cache_bytes
from .subject import PLAIN, Subject
from .target import Seen, Subjects, Target, over_loads
from .timing import Effort, interleaved, ratio

_SHORT = 32
# There are many settings: each measurement decodes this part of what others do.
_PART = 4
_DEFAULT = "f16, flash attention auto"
_BYTES = "bytes"

Settings = dict[str, dict[str, Any]]


def cache_settings() -> Settings:
    """Name -> arguments of `load`; llama.cpp quantises values with flash attention only."""
    pairs = [("f16", "auto"), ("f16", "on"), ("f16", "off"), ("q8_0", "on"), ("q4_0", "on")]
    return {
        f"{kind}, flash attention {flash}": {"cache_type": kind, "flash_attention": flash}
        for kind, flash in pairs
    }


def layer_settings(target: Target) -> Settings:
    """Half and none of a role's layers on the GPU, all others there; nothing without a GPU."""
    if not local_gpus():
        return {}
    settings: Settings = {}
    with load(**target.runtime, **target.generation) as model:
        ensemble = model.engine.ensemble
        tuned, reference = ensemble.roles.experts[0]
        places = {"base": ensemble.roles.base, "tuned": tuned, "reference": reference}
        for role, place in places.items():
            context = ensemble.contexts[place]
            assert isinstance(context, LlamaContext)
            n_layers = int(lib.llama_model_n_layer(context.weights.model))
            for layers in (n_layers // 2, 0):
                name = f"{_DEFAULT}, {layers} of the {role}'s {n_layers} layers on the GPU"
                settings[name] = {"gpu_layers": "all", f"{role}_gpu_layers": layers}
    return settings


def caches(target: Target, effort: Effort) -> tuple[Table, ...]:
    """Plain fused decoding at two depths, and what the caches take, for every setting."""
    settings = cache_settings() | layer_settings(target)
    measurement = _Measurement(effort)
    seen, refused = over_loads(target, effort, settings, measurement)
    rows: list[tuple[Cell, ...]] = []
    for name in settings:
        if name in refused:
            continue
        cells: list[Cell] = [name, seen[name, _BYTES][0] / 2**20]
        for depth in measurement.depths:
            seconds, default = seen[name, depth], seen.get((_DEFAULT, depth))
            cells.append(1e3 * statistics.median(seconds))
            cells.append(ratio(default, seconds) if default else None)
        rows.append(tuple(cells))
    columns = [Column("settings", "cache"), Column("cache_mib", "MiB", 1)]
    for place, depth in zip(("short", "long"), measurement.depths, strict=True):
        columns.append(Column(f"{place}_token_ms", f"after {depth} tokens (ms)", 2))
        columns.append(Column(f"{place}_times_default", "times default", 2))
    notes = ["Plain fused decoding, greedy, alpha 1: milliseconds per token."]
    notes += [f"llama.cpp refuses these models with {name}." for name in refused]
    return (Table("KV caches", tuple(columns), tuple(rows), tuple(notes)),)


class _Measurement:
    """Measures the subjects of several loads at the same depths.

    Attributes:
        depths: prompt tokens before what is decoded, a short and a long prompt.
    """

    def __init__(self, effort: Effort) -> None:
        self._effort = effort
        self.depths: tuple[int, ...] = ()

    def __call__(self, subjects: Subjects) -> Seen:
        first = next(iter(subjects.values()))
        if not self.depths:
            room = first.model.n_ctx - max(self._effort.many // _PART, self._effort.few)
            wanted = self._effort.depth_tokens(first.step_seconds)
            self.depths = (_SHORT, max(min(wanted, room), _SHORT + 1))
        seen: Seen = {}
        for name, subject in subjects.items():
            seen[name, _BYTES] = (float(cache_bytes(subject.model.engine)),)
        # One depth after the other, so that every prompt is read once and then lies in the cache.
        for depth in self.depths:
            kinds = {
                (name, depth): partial(seconds_after, subject, depth)
                for name, subject in subjects.items()
            }
            seen |= interleaved(kinds, self._effort.rounds)
        return seen


def seconds_after(subject: Subject, depth: int) -> float:
    """Seconds per token of plain fused decoding after a random prompt of so many tokens."""
    model, prompt = subject.model, subject.tokens(depth)
    n_tokens = max(subject.n_tokens // _PART, subject.effort.few)
    seconds, done = 0.0, 0
    while done < n_tokens:
        limit = min(n_tokens - done, model.n_ctx - depth)
        timings = model.complete(prompt, **{**PLAIN, "max_tokens": limit}).timings
        seconds += timings.generation_seconds
        done += timings.generated_tokens
    return seconds / done
