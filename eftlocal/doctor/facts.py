"""What eftlocal runs on: versions, llama.cpp's build, memory, where files are kept."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import hub
from ..llama.devices import Build, build, devices
from ..memory import Device
from .entries import Problem

_PACKAGES = ("llama-cpp-python", "numpy", "huggingface-hub", "jinja2", "click")
_VISIBLE_GPUS = ("/dev/nvidia0", "/dev/kfd")
_NEEDED = {"x86_64": ("AVX2", "FMA"), "amd64": ("AVX2", "FMA"), "aarch64": ("DOTPROD",)}
_BUILD_AGAIN = "pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python"


@dataclass(frozen=True, slots=True)
class Facts:
    """Of this machine and this installation.

    Attributes:
        versions: package -> version.
        build: of llama.cpp.
        devices: RAM and GPUs.
        places: what is kept -> where.
        problems: with one line of advice each.
    """

    versions: Mapping[str, str]
    build: Build
    devices: tuple[Device, ...]
    places: Mapping[str, str]
    problems: tuple[Problem, ...]


def gather(user_file: Path | None) -> Facts:
    """Look at everything; starts llama.cpp, opens no model.

    Args:
        user_file: the user's models.toml, where there is one.
    """
    found, made = tuple(devices()), build()
    return Facts(_versions(), made, found, _places(user_file), tuple(_problems(made, found)))


def _versions() -> dict[str, str]:
    from .. import __version__

    versions = {"eftlocal": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    versions["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    return versions


def _places(user_file: Path | None) -> dict[str, str]:
    """Folders that exist or would be made, and files that are read."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return {
        "model entries": "the shipped ones" if user_file is None else str(user_file),
        "downloads": str(hub.cache_folder()),
        "conversations": str(Path(state, "eftlocal")),
        "checked files": str(Path(cache, "eftlocal")),
    }


def _problems(made: Build, found: tuple[Device, ...]) -> list[Problem]:
    problems = []
    missing = [
        feature
        for feature in _NEEDED.get(platform.machine().lower(), ())
        if feature not in made.cpu and feature in _cpu_flags()
    ]
    if missing:
        problems.append(
            Problem(
                f"llama.cpp was built without {', '.join(missing)}, which this CPU has",
                f"build it on this machine: {_BUILD_AGAIN}",
                is_fatal=False,
            )
        )
    has_gpu = any(device.kind != "cpu" for device in found)
    if not has_gpu and made.gpu:
        text = f"llama.cpp was built for {', '.join(made.backends)}, but sees no GPU"
        problems.append(Problem(text, "check the driver, and CUDA_VISIBLE_DEVICES", False))
    if not made.gpu and (sys.platform == "darwin" or any(map(os.path.exists, _VISIBLE_GPUS))):
        flag = "METAL" if sys.platform == "darwin" else "CUDA"
        problems.append(
            Problem(
                "there is a GPU, but llama.cpp was built without one",
                f'CMAKE_ARGS="-DGGML_{flag}=on" {_BUILD_AGAIN}',
                is_fatal=False,
            )
        )
    return problems


def _cpu_flags() -> set[str]:
    """Features of this CPU in capitals, where Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    for line in lines:
        if line.startswith(("flags", "Features")):
            return {"DOTPROD" if f == "asimddp" else f.upper() for f in line.split()}
    return set()
