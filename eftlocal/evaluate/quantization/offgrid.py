"""The embedded family as it was before it was packed: 32-bit weights on no grid.

Its files hold Q8_0. Unpacked and packed again they would be the same, as if Q8_0 cost nothing. So
the unpacked weights are changed in a way that changes no result: channels of the residual stream
change places, and what one matrix multiplies by s the next one divides by s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelFileError
from ...gguf import read_header
from ...llama.quantizing import made_whole, quantize

Weights32 = NDArray[np.float32]
Tensors = Mapping[str, Weights32]

VERSION = 1
"""Goes up with every change that gives other weights."""

_SPREAD = 0.15
"""Scales lie within exp(-0.15) and exp(0.15): enough to leave the grid, too little to matter."""


def unpack_off_grid(source: Path, target: Path, seed: int) -> None:
    """Write a model as 32-bit floats that compute the same and lie on no grid.

    Args:
        source: a model of Llama's architecture.
        target: the file to write; complete or not there.
        seed: models with one seed and the same sizes change in the same way, so that a tuned
            model stays as near to its reference as it was.

    Raises:
        ModelFileError: where the source is another kind of model, or the target cannot be written.
    """
    with made_whole(target) as part:
        quantize(source, part, "F32")
        tensors = _mapped(part)
        _move(tensors, np.random.default_rng(seed))
        del tensors


def _mapped(path: Path) -> Tensors:
    """The tensors of a file of 32-bit floats, to be changed in place; (rows, columns) or (n,)."""
    header = read_header(path)
    if header.architecture != "llama" or any(t.type != "F32" for t in header.tensors):
        raise ModelFileError(f"{path}: only a Llama model of matrices can be taken off its grid")
    sizes = [tensor.n_bytes for tensor in header.tensors]
    data = np.memmap(path, np.float32, "r+", offset=header.n_bytes - sum(sizes))
    ends = np.cumsum(sizes) // 4
    found: dict[str, Weights32] = {}
    for tensor, end, size in zip(header.tensors, ends, sizes, strict=True):
        own = data[end - size // 4 : end].reshape(tensor.shape[::-1])
        found[tensor.name.removesuffix(".weight")] = own
    return found


def _move(tensors: Tensors, rng: np.random.Generator) -> None:
    """Change all tensors so that the model computes the same."""
    order = rng.permutation(tensors["token_embd"].shape[1])
    n_layers = sum(name.endswith(".attn_norm") for name in tensors)
    for name in ("token_embd", "output_norm", "output"):
        if name in tensors:
            tensors[name][...] = tensors[name][..., order]
    for layer in range(n_layers):
        own = {
            name.partition(f"blk.{layer}.")[2]: tensor
            for name, tensor in tensors.items()
            if name.startswith(f"blk.{layer}.")
        }
        for norm, matrices in (
            ("attn_norm", ("attn_q", "attn_k", "attn_v")),
            ("ffn_norm", ("ffn_gate", "ffn_up")),
        ):
            scales = _scales(rng, len(order))
            own[norm][...] = own[norm][order] / scales
            for name in matrices:
                own[name][...] = own[name][:, order] * scales
        for first, second in (("attn_v", "attn_output"), ("ffn_up", "ffn_down")):
            scales = _scales(rng, len(own[first]))
            own[first][...] *= scales[:, None]
            own[second][...] = own[second][order] / scales


def _scales(rng: np.random.Generator, n: int) -> Weights32:
    return np.exp(rng.uniform(-_SPREAD, _SPREAD, n)).astype(np.float32)
