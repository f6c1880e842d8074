"""A LoRA adapter: what fine-tuning added to some weights, in a small GGUF file of its own."""

from __future__ import annotations

import weakref
from pathlib import Path

from ..errors import ModelFileError
from ..gguf import FLOAT32, STRING, read_metadata
from .library import collected_errors, lib, reason
from .weights import Weights, check_file

_KINDS = {
    "general.type": STRING,
    "general.architecture": STRING,
    "adapter.type": STRING,
    "adapter.lora.alpha": FLOAT32,
}
"""Metadata that llama.cpp reads of an adapter; of another type it would abort the process."""


def is_adapter(path: Path) -> bool:
    """Whether the file says that it is an adapter; False where there is no such file."""
    found = read_metadata(path, ["general.type"]).get("general.type")
    return found is not None and found.value == "adapter"


class Adapter:
    """A LoRA adapter for some weights, which any number of their contexts may use.

    Load it before those contexts are made: llama.cpp sizes their graphs by it.

    Raises:
        ModelFileError: where the file is missing, no LoRA adapter, or made for other weights.
    """

    def __init__(self, weights: Weights, path: Path) -> None:
        self.weights = weights
        self.path = path
        check_file(path)
        _check_metadata(path)
        with collected_errors() as errors:
            self.handle = lib.llama_adapter_lora_init(weights.model, str(path).encode())
        if not self.handle:
            problem = reason(f"this adapter cannot be used on {weights.path}", errors)
            problem = problem.replace("failed to apply lora adapter: ", "")
            raise ModelFileError(f"{path}: {problem}")
        weights.adapters.add(self)
        self._finalizer = weakref.finalize(self, lib.llama_adapter_lora_free, self.handle)
        if lib.llama_adapter_get_alora_n_invocation_tokens(self.handle):
            self.close()
            raise ModelFileError(f"{path}: activated LoRA (aLoRA) is not supported; use plain LoRA")

    def close(self) -> None:
        """Free the adapter; contexts that use it have to be freed before."""
        self._finalizer()


def _check_metadata(path: Path) -> None:
    # Every key has to be seen: what is not checked here could abort the process.
    found = read_metadata(path, _KINDS, most_strings=1 << 32)
    kind = found.get("general.type")
    if kind is None or kind.value != "adapter":
        raise ModelFileError(f"{path}: not a LoRA adapter (a whole model is given as its path)")
    if "adapter.type" not in found or found["adapter.type"].value != "lora":
        raise ModelFileError(f"{path}: an adapter of another kind; use a LoRA adapter")
    for key, (kind_found, _) in found.items():
        if kind_found != _KINDS[key]:
            raise ModelFileError(f"{path}: damaged adapter: {key} has the wrong type")
