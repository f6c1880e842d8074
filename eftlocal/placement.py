"""How many layers of each file go to GPUs: what the user says, or what fits."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from .llama.devices import devices
from .llama.library import has_amx, local_gpus
from .memory import Device, need_of_files, plan
from .options import RuntimeOptions

logger = logging.getLogger("eftlocal.placement")


def gpu_layers(
    files: Mapping[str, Path],
    weights: Mapping[Path, str],
    runtime: RuntimeOptions,
    found: Sequence[Device] | None = None,
) -> dict[Path, str | int]:
    """`WeightsSettings.gpu_layers` of every file of weights.

    Where there is a GPU, "auto" is what the plan of `memory.plan` says; without one, and with
    rpc-servers, whose memory is not known here, it stays "auto".

    Args:
        files: role -> file, adapters included.
        weights: file -> "base", "tuned" or "reference", whose option counts for it.
        runtime: what the user says.
        found: RAM and GPUs; None asks llama.cpp.

    Raises:
        ModelFileError: for a file that is missing or damaged.
    """
    given: dict[Path, str | int] = {}
    for path, role in weights.items():
        own = getattr(runtime, f"{role}_gpu_layers")
        given[path] = runtime.gpu_layers if own is None else own
    if "auto" not in given.values() or runtime.rpc_servers:
        return given
    if found is None:
        found = devices() if local_gpus() else ()
    if not any(device.kind != "cpu" for device in found):
        return given
    need = need_of_files(files, runtime, repacks=not has_amx())
    fixed = {
        model.role: model.n_layers
        if given[Path(model.name)] == "all"
        else int(given[Path(model.name)])
        for model in need.models
        if given[Path(model.name)] != "auto"
    }
    planned = plan(need, found, fixed)
    if not planned.fits:
        logger.info("%s", planned.advice)
    return {Path(model.name): planned.gpu_layers[model.role] for model in need.models}
