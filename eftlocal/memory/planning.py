"""Which layers go to GPUs, which context fits, and what to change where nothing fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .machine import Device
from .needs import ModelNeed, Need

MARGIN_SHARE, LEAST_MARGIN = 0.05, 256 << 20
"""Of a GPU's free memory nothing is planned into this share (at least so many bytes): drivers,
other programs, and what an estimate misses."""
LEAST_CTX = 512
"""A shorter context is not proposed."""

_STEP = 256
_QUANTISED = 32
_GB = 1e9


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes where.

    Attributes:
        gpu_layers: role -> layers on GPUs; a model with all layers there has its output there.
        ctx: the longest context that fits, at most the one that was asked for; 0 if none does.
        fits: whether what was asked for fits.
        gpu_bytes, ram_bytes: what the plan takes.
        advice: what to change, one line; "" where it fits.
    """

    gpu_layers: Mapping[str, int]
    ctx: int
    fits: bool
    gpu_bytes: int
    ram_bytes: int
    advice: str = ""


def plan(need: Need, devices: Sequence[Device], fixed: Mapping[str, int] | None = None) -> Plan:
    """Put the layers of all models where they fit; small models first, as they run most often.

    A larger model gets layers on GPUs only where all smaller ones lie there whole. llama.cpp
    spreads layers over several GPUs by what is free on each, so they count as one.

    Args:
        need: of the models; `Need.ctx` is the context that is asked for.
        devices: RAM and GPUs.
        fixed: role -> number of layers on GPUs that the user set.
    """
    budget = _Budget.of(devices)
    fixed = fixed or {}
    placed = _place(need, budget, fixed)
    if placed.fits(budget):
        return placed.plan(need.ctx, True)
    ctx = _longest(need, budget, fixed)
    return placed.plan(ctx, False, _advice(need, placed, ctx, budget, fixed))


@dataclass(frozen=True, slots=True)
class _Budget:
    """Bytes that may be planned: on GPUs, in RAM, and on GPUs that take theirs out of the RAM."""

    gpu: int
    ram: int
    shared: bool

    @classmethod
    def of(cls, devices: Sequence[Device]) -> _Budget:
        """What is free, less a margin on each GPU."""
        gpus = [device for device in devices if device.kind != "cpu"]
        # llama.cpp uses integrated GPUs only where there are no others.
        own = [device for device in gpus if device.kind == "gpu"] or gpus
        gpu = sum(
            max(0, device.free - max(LEAST_MARGIN, int(MARGIN_SHARE * device.free)))
            for device in own
        )
        ram = sum(device.free for device in devices if device.kind == "cpu")
        return cls(gpu, ram, bool(own) and own[0].kind == "igpu")


@dataclass(frozen=True, slots=True)
class _Placed:
    """Layers on GPUs, and what that takes."""

    layers: Mapping[str, int]
    gpu: int
    ram: int

    def fits(self, budget: _Budget) -> bool:
        """Whether all of it is free."""
        ram = self.ram + (self.gpu if budget.shared else 0)
        return self.gpu <= budget.gpu and ram <= budget.ram

    def plan(self, ctx: int, fits: bool, advice: str = "") -> Plan:
        return Plan(self.layers, ctx, fits, self.gpu, self.ram, advice)


def _place(need: Need, budget: _Budget, fixed: Mapping[str, int]) -> _Placed:
    layers: dict[str, int] = {}
    used = 0
    for model in need.models:
        if model.role in fixed:
            layers[model.role] = min(fixed[model.role], model.n_layers)
            used += model.on_gpu(layers[model.role])
    whole = True
    for model in sorted(need.models, key=lambda model: model.sizes.weights):
        if model.role in fixed:
            continue
        n_layers = _most_layers(model, budget.gpu - used) if whole else 0
        whole = whole and n_layers == model.n_layers
        layers[model.role] = n_layers
        used += model.on_gpu(n_layers)
    ram = sum(model.in_ram(layers[model.role]) for model in need.models)
    return _Placed({m.role: layers[m.role] for m in need.models}, used, ram)


def _most_layers(model: ModelNeed, free: int) -> int:
    fitting = (n for n in range(model.n_layers, 0, -1) if model.on_gpu(n) <= free)
    return next(fitting, 0)


def _longest(need: Need, budget: _Budget, fixed: Mapping[str, int]) -> int:
    """The longest context below the asked one that fits, in steps of llama.cpp's 256; 0 if none."""
    low, high = 0, (need.ctx - 1) // _STEP
    while low < high:
        middle = (low + high + 1) // 2
        fits = _place(need.changed(middle * _STEP), budget, fixed).fits(budget)
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * _STEP


def _advice(
    need: Need, placed: _Placed, ctx: int, budget: _Budget, fixed: Mapping[str, int]
) -> str:
    """The mildest change that lets it fit."""
    if fixed and placed.gpu > budget.gpu:
        return (
            f"the GPU layers that were asked for take {_size(placed.gpu)} of {_size(budget.gpu)}: "
            "leave the number to --gpu-layers auto"
        )
    if ctx >= LEAST_CTX:
        return f"use --ctx {ctx}: {_size(placed.ram)} of RAM are needed for {need.ctx:,} tokens"
    parallel = need.models[0].runtime.parallel
    smaller: list[tuple[str, dict[str, Any]]] = []
    if all(model.sizes.key_length % _QUANTISED == 0 for model in need.models):
        smaller.append(("--cache-type q8_0", {"cache_type": "q8_0"}))
    if parallel > 1:
        smaller.append(("--parallel 1", {"parallel": 1}))
    for name, change in smaller:
        changed = need.changed(**change)
        if _place(changed, budget, fixed).fits(budget):
            return f"use {name}"
        ctx = _longest(changed, budget, fixed)
        if ctx >= LEAST_CTX:
            return f"use {name} --ctx {ctx}"
    return _smaller_base(need, placed, budget)


def _smaller_base(need: Need, placed: _Placed, budget: _Budget) -> str:
    least = need.changed(LEAST_CTX)
    largest = max(need.models, key=lambda model: model.sizes.weights)
    others = least.total - largest.sizes.weights
    room = budget.ram + (0 if budget.shared else budget.gpu) - others
    told = f"{_size(placed.ram + placed.gpu)} are needed, {_size(budget.ram + budget.gpu)} are free"
    if room < largest.sizes.weights // 5:
        return f"{told}: use smaller models, or close other programs"
    return (
        f"{told}: use a smaller quantization of the {largest.role} (at most {_size(room)} instead "
        f"of {_size(largest.sizes.weights)}), or close other programs"
    )


def _size(n_bytes: int) -> str:
    return f"{max(n_bytes, 0) / _GB:.1f} GB"
