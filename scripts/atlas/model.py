"""The Llama architecture in PyTorch, as small as it goes, laid out so that export is a renaming.

Shapes: B sequences, T positions, D width, H heads, K = D / H, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ROPE_BASE = 10000.0
EPSILON = 1e-5
CONTEXT = 1024


@dataclass(frozen=True)
class Shape:
    """The sizes of one model; head width is 32 everywhere, so rows divide by Q8_0's block."""

    width: int
    layers: int
    hidden: int
    vocabulary: int

    @property
    def heads(self) -> int:
        """The number of attention heads."""
        return self.width // 32


SHAPES = {"large": (192, 6, 512), "small": (64, 3, 160)}


def shape_of(size: str, vocabulary: int) -> Shape:
    """The shape called `large` or `small`."""
    return Shape(*SHAPES[size], vocabulary)


def rope_tables(length: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (length, width / 2), for llama.cpp's NORM rope (adjacent pairs)."""
    rates = ROPE_BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rope: x (B, H, T, K), tables (T, K / 2) -> (B, H, T, K)."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).type_as(x)


class Norm(nn.Module):  # type: ignore[misc, unused-ignore]
    """RMSNorm over the last axis."""

    def __init__(self, width: int) -> None:
        """Fresh weights."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D), in float32."""
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * self.weight


class Cache:
    """Keys and values (B, H, length, K) of all blocks; rows may be at different positions."""

    def __init__(self, length: int) -> None:
        """Room for `length` positions, none of them taken."""
        self.length = length
        self.positions = torch.zeros(0, 0, dtype=torch.long)  # (B, T): where the next tokens go
        self.kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def extend(self, block: nn.Module, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Store (B, H, T, K) at `positions`: all keys, all values, and which ones each T may see.

        Positions behind a row's own are never seen, so padding there does no harm.
        """
        if block not in self.kept:
            room = (*k.shape[:2], self.length, k.shape[3])
            self.kept[block] = k.new_zeros(room), v.new_zeros(room)
        keys, values = self.kept[block]
        at = self.positions[:, None, :, None].expand_as(k)
        keys.scatter_(2, at, k)
        values.scatter_(2, at, v)
        seen = torch.arange(self.length) <= self.positions[:, None, :, None]
        return keys, values, seen

    def keep(self, rows: Tensor) -> None:
        """Forget all sequences but those at `rows`."""
        self.kept = {block: (k[rows], v[rows]) for block, (k, v) in self.kept.items()}


class Block(nn.Module):  # type: ignore[misc, unused-ignore]
    """Attention and SwiGLU, each after a norm and around a residual."""

    def __init__(self, shape: Shape) -> None:
        """Fresh weights."""
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = Norm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.attention_out = nn.Linear(shape.width, shape.width, bias=False)
        self.hidden_norm = Norm(shape.width)
        self.gate_up = nn.Linear(shape.width, 2 * shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); with a cache, T new positions attend to what it holds."""
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, K)
        q, k, mask = rotate(q, cos, sin), rotate(k, cos, sin), None
        if cache is not None:
            k, v, mask = cache.extend(self, k, v)
        mixed = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
        x = x + self.attention_out(mixed.transpose(1, 2).flatten(-2))
        gate, up = self.gate_up(self.hidden_norm(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


class Llama(nn.Module):  # type: ignore[misc, unused-ignore]
    """A language model whose output matrix is its embedding."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        """Fresh weights."""
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width)
        cos, sin = rope_tables(CONTEXT, 32)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("attention_out.weight", "down.weight"))
                spread = 0.02 / (2 * shape.layers) ** 0.5 if residual else 0.02
                nn.init.normal_(parameter, std=max(spread, 0.005))

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Token ids (B, T) -> logits (B, T, V); with a cache, at its positions."""
        length = tokens.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        if cache is not None:
            cos, sin = self.cos[cache.positions][:, None], self.sin[cache.positions][:, None]
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, cos, sin, cache)
        return functional.linear(self.norm(x), self.embedding.weight)

    def count(self) -> int:
        """The number of parameters."""
        return sum(p.numel() for p in self.parameters())
