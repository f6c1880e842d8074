"""The tensors of one GGUF file."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelFileError
from ..gguf import TOKENS, Header, check_sane, is_usual, read_model
from .library import collected_errors, has_amx, lib, local_gpus, reason, set_fields
from .probe import probe
from .servers import Servers
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from .adapter import Adapter
    from .context import LlamaContext


@dataclass(frozen=True, slots=True)
class WeightsSettings:
    """How one model file is loaded; see `RuntimeOptions` for the values.

    Attributes:
        servers: HOST:PORT of rpc-servers that its layers go to.
    """

    gpu_layers: str | int = "auto"
    mmap: str = "auto"
    mlock: bool = False
    servers: tuple[str, ...] = ()


class Weights:
    """The tensors and vocabulary of one GGUF file, shared by any number of contexts.

    Attributes:
        contexts, adapters: made from these weights; freed before them.
        n_bytes: of all tensors.
        n_ctx_train: the context length that the model was trained for.
        can_rewind: whether its caches can drop their last tokens.

    Raises:
        ModelFileError: where the file is missing or llama.cpp cannot load it.
        BackendError: where a server cannot be used.
    """

    def __init__(
        self,
        path: Path,
        settings: WeightsSettings = WeightsSettings(),
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self.path = path
        header = check_file(path)
        check_sane(header)
        if not is_usual(header):
            probe(path)
        servers = Servers(settings.servers) if settings.servers else None
        try:
            self.model = _load(path, _params(settings, servers), progress)
        except BaseException:
            if servers:
                servers.release()
            raise
        self.contexts: weakref.WeakSet[LlamaContext] = weakref.WeakSet()
        self.adapters: weakref.WeakSet[Adapter] = weakref.WeakSet()
        self._finalizer = weakref.finalize(self, _free, self.model, servers)
        self.n_bytes = int(lib.llama_model_size(self.model))
        self.n_ctx_train = int(lib.llama_model_n_ctx_train(self.model))
        self.can_rewind = not (
            lib.llama_model_is_recurrent(self.model) or lib.llama_model_is_hybrid(self.model)
        )
        self.vocabulary = Vocabulary(self.model, path)

    def chat_template(self, name: str | None = None) -> str | None:
        """A Jinja chat template in the file's metadata, if it has one; without a name the usual."""
        template = lib.llama_model_chat_template(self.model, name.encode() if name else None)
        return template.decode("utf-8", "replace") if template else None

    def close(self) -> None:
        """Free the contexts made from these weights, their adapters, then the weights."""
        for context in list(self.contexts):
            context.close()
        for adapter in list(self.adapters):
            adapter.close()
        self._finalizer()


def _params(settings: WeightsSettings, servers: Servers | None) -> Any:
    """llama.cpp's struct for these settings; it points to the servers' list of devices."""
    params = lib.llama_model_default_params()
    layers = -1 if settings.gpu_layers in ("auto", "all") else int(settings.gpu_layers)
    # Weights that are repacked for the CPU would be held twice if they were mapped as well.
    elsewhere = layers != 0 and bool(servers or local_gpus())
    repack = not has_amx()
    once = elsewhere or not repack
    mapped = settings.mmap == "on" or (settings.mmap == "auto" and once)
    mode = 2 * int(settings.mlock) + int(mapped)
    set_fields(params, n_gpu_layers=layers, load_mode=mode, use_extra_bufts=repack)
    if servers:
        set_fields(params, devices=ctypes.addressof(servers.devices))
    return params


def _load(path: Path, params: Any, progress: Callable[[float], None] | None) -> int:
    """llama.cpp's handle of the model; what `progress` raises ends the load."""
    interrupted: list[BaseException] = []

    @lib.llama_progress_callback  # type: ignore[untyped-decorator]
    def report(value: float, _user_data: object) -> bool:
        try:
            if progress:
                progress(value)
        except BaseException as error:  # must not be lost inside a C callback
            interrupted.append(error)
        return not interrupted

    set_fields(params, progress_callback=report)
    with collected_errors() as errors:
        model: int = lib.llama_model_load_from_file(str(path).encode(), params)
    if interrupted:
        if model:
            lib.llama_model_free(model)
        raise interrupted[0]
    if not model:
        raise ModelFileError(f"{path}: {reason('llama.cpp cannot load this file', errors)}")
    return model


def _free(model: int, servers: Servers | None) -> None:
    lib.llama_model_free(model)
    if servers:
        servers.release()


def check_file(path: Path) -> Header:
    """Refuse what is no GGUF file, or a damaged one, before llama.cpp sees it.

    Returns:
        Its header; of a model in shards that of all of them.

    Raises:
        ModelFileError: where the file is missing, cannot be read, or says what cannot be.
    """
    return read_model(path, keep=[TOKENS])
