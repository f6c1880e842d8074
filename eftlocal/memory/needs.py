"""What models and their contexts take, role by role, for any split of layers and any context."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..gguf import TENSOR_TYPES, Header, Tensor, check_sane, read_model
from ..options import MAX_DRAFT, RuntimeOptions
from .compute import Batch, compute_bytes
from .sizes import Sizes, sizes_of

MOST_DEFAULT_CTX = 8192
"""The context that is made where none is asked for and the models were trained for more."""

_CELLS = 256
_CACHE_TYPES = {kind.name.lower(): kind for kind in TENSOR_TYPES.values()}
_REPACKED = {
    "arm": frozenset(("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4")),
    "x86": frozenset(("Q4_0", "Q4_K", "Q2_K", "IQ4_NL", "MXFP4")),
}


@dataclass(frozen=True, slots=True)
class ModelNeed:
    """One file of weights and the contexts over it.

    Attributes:
        role: the first one that the file plays.
        name: of the file.
        sizes: of the model.
        repacked: bytes of tensors that llama.cpp lays out anew for the CPU.
        adapters: bytes of LoRA adapters on it.
        n_contexts: KV caches over it.
        runtime: how it is loaded.
        ctx: tokens of one sequence.
    """

    role: str
    name: str
    sizes: Sizes
    repacked: int
    adapters: int
    n_contexts: int
    runtime: RuntimeOptions
    ctx: int

    @property
    def n_layers(self) -> int:
        """Layers that can lie on a GPU: those that repeat, and the output."""
        return self.sizes.n_layers + 1

    @property
    def cells(self) -> int:
        """Of one KV cache; llama.cpp rounds a sequence up to 256."""
        return -(-self.ctx // _CELLS) * _CELLS * self.runtime.parallel

    def _cache(self, layer: int) -> int:
        """Bytes of one layer in all caches."""
        kind = _CACHE_TYPES[self.runtime.cache_type]
        per_cell = sum(
            -(-numbers // kind.block) * kind.n_bytes
            for numbers in (self.sizes.cached_keys[layer], self.sizes.cached_values[layer])
        )
        state = self.sizes.state[layer] * self.runtime.parallel
        return self.n_contexts * (per_cell * self.cells + state)

    @property
    def weights(self) -> int:
        """Tensors in RAM and on devices, adapters, and copies beside a mapped file."""
        return self.sizes.weights + self.adapters + self.copies

    @property
    def copies(self) -> int:
        """What is held twice while no layer is on a GPU: mapped and repacked tensors."""
        # The embeddings serve as the output matrix, too; in its layout they are a second copy.
        tied = self.sizes.tied if self.repacked else 0
        return tied + (self.repacked if self.runtime.mmap == "on" else 0)

    @property
    def caches(self) -> int:
        """All KV caches."""
        return sum(map(self._cache, range(self.sizes.n_layers)))

    @property
    def n_rows(self) -> int:
        """Rows of logits that one decode may ask for."""
        return MAX_DRAFT * self.runtime.parallel

    @property
    def logits(self) -> int:
        """The rows that decodes return."""
        return self.n_contexts * self.n_rows * self.sizes.n_vocab * 4

    @property
    def compute(self) -> int:
        """Buffers for intermediate results."""
        parallel = self.runtime.parallel
        unified = parallel > 1 and self.runtime.kv_unified != "off"
        batch = Batch(
            n_tokens=max(self.runtime.batch, self.n_rows),
            n_rows=self.n_rows,
            n_cells=self.cells if unified else self.cells // parallel,
            flash=self.runtime.flash_attention != "off",
        )
        return self.n_contexts * compute_bytes(self.sizes, batch)

    @property
    def total(self) -> int:
        """Everything, with no layer on a GPU."""
        return self.weights + self.caches + self.compute + self.logits

    def on_gpu(self, gpu_layers: int) -> int:
        """Bytes on GPUs with so many layers there: the output first, then layers from the last."""
        if gpu_layers <= 0:
            return 0
        n_repeated = min(gpu_layers, self.n_layers) - 1
        first = self.sizes.n_layers - n_repeated
        held = self.sizes.output + self.sizes.tied + self.adapters
        for layer in range(first, self.sizes.n_layers):
            held += self.sizes.layers[layer] + self._cache(layer)
        # Long batches of the other layers are computed there, too, with a matrix at a time.
        visiting = self.sizes.largest if first else 0
        return held + visiting + self.compute

    def in_ram(self, gpu_layers: int) -> int:
        """Bytes in RAM with so many layers on GPUs."""
        if gpu_layers <= 0:
            return self.total
        first = self.sizes.n_layers - min(gpu_layers, self.n_layers) + 1
        held = sum(self.sizes.layers[layer] + self._cache(layer) for layer in range(first))
        inputs = self.compute if first else self._inputs
        return self.sizes.input + held + self.logits + inputs

    @property
    def _inputs(self) -> int:
        """What a GPU gets of every batch: embeddings and the mask."""
        n_tokens = max(self.runtime.batch, self.n_rows)
        return self.n_contexts * n_tokens * 4 * (self.sizes.n_embd + self.cells)


@dataclass(frozen=True, slots=True)
class Need:
    """What all models of an entry take together.

    Attributes:
        models: every file of weights once.
        ctx: tokens of one sequence.
        n_ctx_train: the longest context that all models were trained for.
    """

    models: tuple[ModelNeed, ...]
    ctx: int
    n_ctx_train: int

    @property
    def total(self) -> int:
        """Bytes, with no layer on a GPU."""
        return sum(model.total for model in self.models)

    def parts(self) -> dict[str, int]:
        """Bytes of weights, caches, compute buffers and logits."""
        names = ("weights", "caches", "compute", "logits")
        return {name: sum(getattr(model, name) for model in self.models) for name in names}

    def changed(self, ctx: int | None = None, **runtime: Any) -> Need:
        """The same models with another context, or other runtime options."""
        ctx = self.ctx if ctx is None else ctx
        models = tuple(
            replace(model, ctx=ctx, runtime=model.runtime.updated(runtime)) for model in self.models
        )
        return Need(models, ctx, self.n_ctx_train)


def need(
    headers: Mapping[str, Header],
    runtime: RuntimeOptions | None = None,
    styles: Mapping[str, object] | None = None,
    machine: str | None = None,
    repacks: bool = True,
) -> Need:
    """What the models of some roles take in memory.

    Args:
        headers: role -> header; "base", "tuned" and "reference", or for several experts
            "math tuned", "math reference" and so on. Headers of one name are one file; an adapter
            as tuned lies on its reference.
        runtime: how they are loaded; a `ctx` of 0 is the default of `load`.
        styles: role -> how its prompts are written; contexts of one file and one style are shared.
        machine: "x86_64", "aarch64", ...; default this one.
        repacks: whether llama.cpp may lay out matrices anew; see `llama.library.has_amx`.

    Raises:
        ModelFileError: for a header whose numbers cannot be right.
    """
    runtime = runtime or RuntimeOptions()
    files: dict[str, tuple[str, Header]] = {}
    adapters: dict[str, dict[str, int]] = {}
    contexts: dict[str, set[object]] = {}
    for role, header in headers.items():
        style = (styles or {}).get(role)
        if header.is_adapter:
            under = headers[role.removesuffix("tuned") + "reference"]
            n_bytes = sum(tensor.n_bytes for tensor in header.tensors)
            adapters.setdefault(under.name, {})[header.name] = n_bytes
            contexts.setdefault(under.name, set()).add((style, header.name))
        else:
            check_sane(header)
            files.setdefault(header.name, (role, header))
            contexts.setdefault(header.name, set()).add((style, None))
    sizes = {name: sizes_of(header) for name, (_, header) in files.items()}
    trained = min((size.n_ctx_train for size in sizes.values() if size.n_ctx_train), default=0)
    ctx = runtime.ctx or min(trained or MOST_DEFAULT_CTX, MOST_DEFAULT_CTX)
    kinds = repacked_types(machine) if repacks else frozenset[str]()
    models = tuple(
        ModelNeed(
            role=role,
            name=name,
            sizes=sizes[name],
            repacked=sum(t.n_bytes for t in header.tensors if _is_repacked(t, kinds)),
            adapters=sum(adapters.get(name, {}).values()),
            n_contexts=len(contexts[name]),
            runtime=runtime,
            ctx=ctx,
        )
        for name, (role, header) in files.items()
    )
    return Need(models, ctx, trained or ctx)


def need_of_files(
    files: Mapping[str, Path],
    runtime: RuntimeOptions | None = None,
    styles: Mapping[str, object] | None = None,
    repacks: bool = True,
) -> Need:
    """`need` of files; each is read once, shards included.

    Raises:
        ModelFileError: for a file that is missing or damaged.
    """
    headers = {path: read_model(path) for path in set(files.values())}
    by_role = {role: headers[path] for role, path in files.items()}
    return need(by_role, runtime, styles, repacks=repacks)


def repacked_types(machine: str | None = None) -> frozenset[str]:
    """Types of matrices for which llama.cpp has a layout of its own on this kind of CPU."""
    name = (machine or platform.machine()).lower()
    return _REPACKED["arm" if name.startswith(("arm", "aarch")) else "x86"]


def _is_repacked(tensor: Tensor, kinds: frozenset[str]) -> bool:
    """Matrices that are multiplied with; rows of embeddings are only looked up."""
    shape = tensor.shape
    fits = len(shape) > 1 and shape[1] % 8 == 0
    return fits and tensor.type in kinds and not tensor.name.startswith("token_embd")
