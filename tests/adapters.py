"""LoRA adapters with random numbers as GGUF files, and models with such an adapter merged in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter
from numpy.typing import NDArray

ADAPTED = ("attn_q", "attn_v", "ffn_down")


def write_adapter(
    path: Path, model: Path, *, seed: int = 0, rank: int = 4, alpha: float = 8.0
) -> Path:
    """Write an adapter for some matrices of every layer of a model, and return `path`.

    Args:
        path: the file to write.
        model: the GGUF that it is made for.
        seed: draws A (rank, columns) and B (rows, rank) of every adapted matrix.
        rank: of A and B.
        alpha: what is added to a matrix is alpha / rank * B A.
    """
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    generator = np.random.default_rng(seed)
    for name, (rows, columns) in adapted_shapes(model).items():
        a, b = generator.normal(size=(rank, columns)), generator.normal(size=(rows, rank))
        writer.add_tensor(f"{name}.lora_a", (0.3 * a / columns**0.5).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", b.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def adapted_shapes(model: Path) -> dict[str, tuple[int, int]]:
    """Name -> (rows, columns) of the matrices that `write_adapter` adapts."""
    return {
        tensor.name: (int(tensor.shape[1]), int(tensor.shape[0]))
        for tensor in GGUFReader(model).tensors
        if any(part in tensor.name for part in ADAPTED)
    }


def write_merged(path: Path, model: Path, adapter: Path, scale: float = 1.0) -> Path:
    """Copy an F32 model, add scale * alpha / rank * B A to its matrices, and return `path`."""
    shutil.copy(model, path)
    read = GGUFReader(adapter)
    pairs: dict[str, NDArray[np.float64]] = {t.name: t.data.astype(float) for t in read.tensors}
    alpha = float(read.fields["adapter.lora.alpha"].parts[-1][0])
    merged = GGUFReader(path, "r+")
    for tensor in merged.tensors:
        if f"{tensor.name}.lora_a" in pairs:
            a, b = pairs[f"{tensor.name}.lora_a"], pairs[f"{tensor.name}.lora_b"]
            tensor.data[:] = tensor.data + scale * alpha / len(a) * (b @ a)
    merged.data.flush()
    return path
