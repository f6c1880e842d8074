"""What a model that is served is made of, who means it, and what it takes in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..doctor.entries import check_entry
from ..errors import RegistryError
from ..llama.devices import devices
from ..llama.library import has_amx
from ..memory import Device, ModelNeed, Need, plan
from ..options import RuntimeOptions
from ..registry import DEFAULT_ENTRY, Entry, Registry, load_registry
from .settings import Served

_LATEST = ":latest"
"""Ollama's clients add this to names that have no tag."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes in memory, as planned; estimates.

    Attributes:
        ram, gpu: bytes.
        mapped: of `ram`, bytes of mapped files, which the system counts as free.
        n_bytes: of all weights in their files.
        fits: whether that was free when it was planned.
    """

    ram: int
    gpu: int
    mapped: int
    n_bytes: int
    fits: bool

    @property
    def total(self) -> int:
        """Bytes in RAM and on GPUs."""
        return self.ram + self.gpu


def entry_of(served: Served) -> Entry:
    """The model entry, or the one made of the files, under the name that it is served by.

    Raises:
        RegistryError: where there is no such entry.
        UsageError: where the files do not go together.
    """
    if served.files:
        tuned, reference = (_listed(served.files[role]) for role in ("tuned", "reference"))
        entry = Entry.from_files(str(served.files["base"]), tuned, reference)
    else:
        entry = load_registry(served.models).find(served.entry or DEFAULT_ENTRY)
    if entry.name == served.name:
        return entry
    return replace(entry, name=served.name, aliases=(entry.name, *entry.aliases))


def _listed(files: str | list[str]) -> list[str]:
    return [files] if isinstance(files, str) else files


def find_name(entries: Iterable[Entry], name: str) -> str:
    """The name of the entry that a client means by a name or an alias.

    Raises:
        RegistryError: where there is none; names those that there are.
    """
    registry = Registry({entry.name: entry for entry in entries})
    try:
        return registry.find(name).name
    except RegistryError:
        if not name.endswith(_LATEST):
            raise
        return registry.find(name.removesuffix(_LATEST)).name


def footprint(entry: Entry, served: Served, reserved: int = 0) -> Footprint | None:
    """What a model would take, and whether that is free now; reads the files' headers.

    Args:
        entry: what it is made of; files may be missing.
        served: how it is loaded.
        reserved: bytes of RAM that the system calls free, but that are in use.

    Returns:
        None where files are missing or cannot be understood: loading says why.
    """
    runtime = RuntimeOptions().updated(entry.runtime).updated(served.runtime)
    found = devices()
    wanted = check_entry(entry, found, runtime).need
    if wanted is None:
        return None
    free = [_without(device, reserved) if device.kind == "cpu" else device for device in found]
    planned = plan(wanted, free, _fixed(wanted, runtime, found))
    layers = planned.gpu_layers
    mapped = sum(_mapped(model) for model in wanted.models if not layers[model.role])
    n_bytes = sum(model.sizes.weights for model in wanted.models)
    return Footprint(planned.ram_bytes, planned.gpu_bytes, mapped, n_bytes, planned.fits)


def _without(device: Device, reserved: int) -> Device:
    return replace(device, free=max(0, device.free - reserved))


def _fixed(wanted: Need, runtime: RuntimeOptions, found: Sequence[Device]) -> dict[str, int]:
    """Role -> layers on GPUs that the user set, where there is a GPU."""
    fixed = {}
    if any(device.kind != "cpu" for device in found):
        for model in wanted.models:
            own = getattr(runtime, f"{model.role.rpartition(' ')[2]}_gpu_layers")
            layers = runtime.gpu_layers if own is None else own
            if layers != "auto":
                fixed[model.role] = model.n_layers if layers == "all" else int(layers)
    return fixed


def _mapped(model: ModelNeed) -> int:
    """Bytes of weights that stay in the mapped file, as `llama.Weights` decides."""
    mmap = model.runtime.mmap
    return model.sizes.weights if mmap == "on" or (mmap == "auto" and has_amx()) else 0
