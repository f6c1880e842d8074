"""Sizes of one model, from its header: tensors by layer, what a cached token takes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..gguf import Header, Tensor

_LAYER = re.compile(r"blk\.(\d+)\.")
_OUTPUT = ("output.weight", "output_norm.weight", "output_norm.bias", "output.bias")
_EMBEDDINGS = "token_embd.weight"
_RECURRENT = (".ssm_", ".time_mix", ".shortconv", ".channel_mix")
_ATTENTION = (".attn_k.", ".attn_qkv.", ".attn_kv_a_mqa.", ".attn_kv.", ".attn_k_b.")
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """What of a model can lie where; bytes unless said otherwise.

    Attributes:
        n_layers: that repeat.
        layers: tensors of every layer.
        input: tensors that always stay in RAM.
        output: tensors behind the last layer.
        tied: the output matrix where the file has none and the embeddings are used for it.
        cached_keys, cached_values: numbers per layer that one token adds to the cache.
        state: of one sequence, per layer; what recurrent layers have instead.
        n_embd, n_ff, n_vocab, n_heads: numbers, of the widest layer.
        n_rows: numbers in queries, keys and values of one token, the widest layer's.
        key_length: numbers in the keys and values of one head; what both are multiples of.
        n_ctx_train: the context that it was trained for.
        largest: the largest tensor of a layer.
    """

    n_layers: int
    layers: tuple[int, ...]
    input: int
    output: int
    tied: int
    cached_keys: tuple[int, ...]
    cached_values: tuple[int, ...]
    state: tuple[int, ...]
    n_embd: int
    n_ff: int
    n_vocab: int
    n_heads: int
    n_rows: tuple[int, int, int]
    key_length: int
    n_ctx_train: int
    largest: int

    @property
    def weights(self) -> int:
        """All tensors once."""
        return sum(self.layers) + self.input + self.output


def can_rewind(header: Header) -> bool:
    """Whether its caches can drop tokens: recurrent layers cannot, so they rule drafts out."""
    return not any(part in tensor.name for tensor in header.tensors for part in _RECURRENT)


def sizes_of(header: Header) -> Sizes:
    """Sizes of the whole model that a header describes.

    The widths of keys and values are llama.cpp's: `attention.key_length` and `value_length` times
    the heads of keys, or for multi-head latent attention one compressed row.
    """
    n_layers = max(1, int(header.number("block_count", 1)))
    groups: dict[int, list[Tensor]] = {i: [] for i in range(n_layers)}
    rest: dict[str, Tensor] = {}
    for tensor in header.tensors:
        found = _LAYER.match(tensor.name)
        if found:
            groups.setdefault(int(found[1]), []).append(tensor)
        else:
            rest[tensor.name] = tensor
    layers = tuple(sum(t.n_bytes for t in groups[i]) for i in sorted(groups))
    output = sum(t.n_bytes for name, t in rest.items() if name in _OUTPUT)
    keys, values, state = zip(
        *(_cached(header, i, groups[i], n_layers) for i in range(n_layers)), strict=True
    )
    heads = [int(h) for h in header.numbers("attention.head_count", n_layers, 1)]
    n_embd = int(header.number("embedding_length"))
    head = n_embd // max(1, *heads)
    key = int(header.number("attention.key_length", head))
    value = int(header.number("attention.value_length", head))
    embeddings = rest.get(_EMBEDDINGS)
    tied = embeddings.n_bytes if embeddings and "output.weight" not in rest else 0
    return Sizes(
        n_layers=n_layers,
        layers=layers[:n_layers],
        input=sum(t.n_bytes for t in rest.values()) - output + sum(layers[n_layers:]),
        output=output,
        tied=tied,
        cached_keys=keys,
        cached_values=values,
        state=state,
        n_embd=n_embd,
        n_ff=_width_of_ffn(header, n_layers),
        n_vocab=header.n_tokens or int(header.number("vocab_size")),
        n_heads=max(heads),
        n_rows=(max(heads) * key, max(keys), max(values)),
        key_length=math.gcd(key, value),
        n_ctx_train=int(header.number("context_length")),
        largest=max((t.n_bytes for group in groups.values() for t in group), default=0),
    )


def _width_of_ffn(header: Header, n_layers: int) -> int:
    """Numbers of one token between two matrices; of all experts that a token uses."""
    dense = int(max(header.numbers("feed_forward_length", n_layers)))
    experts = int(header.number("expert_used_count")) * int(
        header.number("expert_feed_forward_length", dense)
    )
    return max(dense, experts)


def _cached(
    header: Header, layer: int, tensors: list[Tensor], n_layers: int
) -> tuple[int, int, int]:
    """(numbers of keys, of values per token, bytes of state per sequence) of one layer."""
    names = [tensor.name for tensor in tensors]
    if not any(part in name for name in names for part in _ATTENTION):
        return 0, 0, _state_bytes(header, names)
    n_embd = header.number("embedding_length")
    heads = int(header.numbers("attention.head_count", n_layers, 1)[layer]) or 1
    kv_heads = int(header.numbers("attention.head_count_kv", n_layers, heads)[layer])
    key = int(header.number("attention.key_length", n_embd // heads))
    value = int(header.number("attention.value_length", n_embd // heads))
    state = _state_bytes(header, names)
    if header.number("attention.key_length_mla"):
        return kv_heads * key, 0, state
    return kv_heads * key, kv_heads * value, state


def _state_bytes(header: Header, names: list[str]) -> int:
    """Float32 numbers that a recurrent layer keeps of one sequence (llama.cpp's n_embd_r, _s)."""
    n_embd = int(header.number("embedding_length"))
    if any(".ssm_" in name for name in names):
        inner, state = int(header.number("ssm.inner_size")), int(header.number("ssm.state_size"))
        groups, kernel = (
            int(header.number("ssm.group_count")),
            int(header.number("ssm.conv_kernel")),
        )
        return _FLOAT * (max(kernel - 1, 0) * (inner + 2 * groups * state) + inner * state)
    if any(".time_mix" in name for name in names):
        return _FLOAT * (2 * n_embd + n_embd * int(header.number("wkv.head_size", 64)))
    if any(".shortconv" in name for name in names):
        return _FLOAT * n_embd * max(int(header.number("shortconv.l_cache", 3)) - 1, 0)
    return 0
