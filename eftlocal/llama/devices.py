"""Devices and their free memory as llama.cpp sees them, and what it was built with."""

from __future__ import annotations

import ctypes
import platform
import re
from dataclasses import dataclass

from ..memory import Device, ram
from .library import function, lib

_KINDS = {0: "cpu", 1: "gpu", 2: "igpu"}
_HAS_ONE_MEMORY = platform.system() == "Darwin" and platform.machine() == "arm64"
"""Metal calls the GPUs of these Macs GPUs, although their memory is the RAM."""
_FEATURE = re.compile(r"(\w+) = 1\b")


@dataclass(frozen=True, slots=True)
class Build:
    """What this llama.cpp can use.

    Attributes:
        cpu: features of the CPU that its kernels use, such as "AVX2".
        gpu: whether any GPU backend was compiled in.
        backends: names of the backends, such as "CUDA".
        rpc: whether it can use rpc-servers.
    """

    cpu: tuple[str, ...]
    gpu: bool
    backends: tuple[str, ...]
    rpc: bool


def devices() -> list[Device]:
    """RAM, then the GPUs that llama.cpp would use, with what is free on each now."""
    found = [device for device in _all_devices() if device.kind != "cpu"]
    own = [device for device in found if device.kind == "gpu"] or found
    memory = ram() or next((d for d in _all_devices() if d.kind == "cpu"), None)
    return [*([memory] if memory else []), *own]


def _all_devices() -> list[Device]:
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    count = function("ggml_backend_dev_count", size)
    get = function("ggml_backend_dev_get", pointer, size)
    kind = function("ggml_backend_dev_type", ctypes.c_int, pointer)
    name = function("ggml_backend_dev_name", ctypes.c_char_p, pointer)
    description = function("ggml_backend_dev_description", ctypes.c_char_p, pointer)
    memory = function(
        "ggml_backend_dev_memory", None, pointer, ctypes.POINTER(size), ctypes.POINTER(size)
    )
    found = []
    for i in range(count()):
        device = get(i)
        if kind(device) not in _KINDS:  # accelerators such as BLAS hold nothing
            continue
        free, total = size(), size()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        texts = [(text(device) or b"").decode("utf-8", "replace") for text in (name, description)]
        own = _KINDS[kind(device)]
        if own == "gpu" and _HAS_ONE_MEMORY:
            own = "igpu"
        found.append(Device(texts[0], own, free.value, total.value, texts[1]))
    return found


def build() -> Build:
    """What llama.cpp was compiled with."""
    parts: dict[str, str] = {}
    backend = ""
    for part in lib.llama_print_system_info().decode("utf-8", "replace").split("|"):
        before, _, rest = part.rpartition(" : ")
        backend = before.strip() or backend
        parts[backend] = parts.get(backend, "") + rest + " "
    return Build(
        cpu=tuple(_FEATURE.findall(parts.get("CPU", ""))),
        gpu=bool(lib.llama_supports_gpu_offload()),
        backends=tuple(name for name in _backends() if name not in ("CPU", "RPC")),
        rpc=bool(lib.llama_supports_rpc()),
    )


def _backends() -> list[str]:
    """Names of everything that registers devices."""
    count = function("ggml_backend_reg_count", ctypes.c_size_t)
    get = function("ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t)
    name = function("ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
    return [(name(get(i)) or b"").decode("utf-8", "replace") for i in range(count())]
