"""The packaged GGUFs back in PyTorch: models to tune on from, and their tokenizer.

Tunings that start here need nothing but the repository, and their delta is taken against exactly
the reference that ships.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize

from .model import SHAPES, Llama, shape_of
from .tokenizer import Tokenizer

# sentencepiece_model.proto: field numbers and values of the few settings that encoding looks at.
PIECES, TRAINER, NORMALIZER = 1, 2, 3
BPE = 2


def number(value: int) -> bytes:
    """A protobuf varint."""
    data = b""
    while value > 127:
        data += bytes((value & 127 | 128,))
        value >>= 7
    return data + bytes((value,))


def whole(field: int, value: int) -> bytes:
    """A protobuf field that holds a whole number."""
    return number(field << 3) + number(value)


def block(field: int, data: bytes) -> bytes:
    """A protobuf field that holds bytes: text, or a message."""
    return number(field << 3 | 2) + number(len(data)) + data


def pieces_of(reader: gguf.GGUFReader) -> Iterator[bytes]:
    """The vocabulary, piece by piece: text, score and type (numbered alike in both formats)."""
    columns = [
        reader.fields[f"tokenizer.ggml.{name}"].contents()
        for name in ("tokens", "scores", "token_type")
    ]
    for text, score, kind in zip(*columns, strict=True):
        piece = block(1, text.encode()) + number(2 << 3 | 5) + struct.pack("<f", score)
        yield block(PIECES, piece + whole(3, kind))


def read_tokenizer(path: Path) -> Tokenizer:
    """The SentencePiece model that a GGUF's vocabulary came from."""
    reader = gguf.GGUFReader(path)
    trainer = whole(3, BPE) + whole(25, 1) + whole(35, 1)  # split digits, fall back to bytes
    # Identity: no prefix before the first word, no spaces removed, spaces written as U+2581.
    normalizer = block(1, b"identity") + whole(3, 0) + whole(4, 0) + whole(5, 1)
    data = b"".join(pieces_of(reader)) + block(TRAINER, trainer) + block(NORMALIZER, normalizer)
    return Tokenizer(data)


def read_model(path: Path) -> Llama:
    """A GGUF's weights, dequantised to float32, in the PyTorch model of its width.

    Raises ValueError if no size of the family has that width.
    """
    reader = gguf.GGUFReader(path)
    named = {
        t.name: torch.from_numpy(dequantize(t.data, t.tensor_type).astype(np.float32))
        for t in reader.tensors
    }
    vocabulary, width = named["token_embd.weight"].shape
    sizes = [size for size, (wide, *_) in SHAPES.items() if wide == width]
    if not sizes:
        raise ValueError(f"{path.name} has width {width}, and no model of the family has that")
    model = Llama(shape_of(sizes[0], vocabulary))
    state = {
        "embedding.weight": named["token_embd.weight"],
        "norm.weight": named["output_norm.weight"],
    }
    for i in range(model.shape.layers):
        part = {n.removeprefix(f"blk.{i}."): x for n, x in named.items() if f"blk.{i}." in n}
        state |= {
            f"blocks.{i}.attention_norm.weight": part["attn_norm.weight"],
            f"blocks.{i}.qkv.weight": torch.cat([part[f"attn_{x}.weight"] for x in "qkv"]),
            f"blocks.{i}.attention_out.weight": part["attn_output.weight"],
            f"blocks.{i}.hidden_norm.weight": part["ffn_norm.weight"],
            f"blocks.{i}.gate_up.weight": torch.cat(
                [part["ffn_gate.weight"], part["ffn_up.weight"]]
            ),
            f"blocks.{i}.down.weight": part["ffn_down.weight"],
        }
    model.load_state_dict(state)
    return model
