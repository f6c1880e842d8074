"""Whether the numbers in a header go together, as llama.cpp takes for granted.

It reads beyond the end of lists that are too short, and ends the process at some others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..errors import ModelFileError
from .header import TOKEN_TYPES, TOKENS, Header
from .types import ARRAY, FLOAT32, INT32, STRING, UINT32

MOST_LAYERS, MOST_EXPERTS = 512, 512
"""Of llama.cpp (LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS)."""

_LISTS = {
    TOKENS: (STRING,),
    "tokenizer.ggml.merges": (STRING,),
    "tokenizer.ggml.scores": (FLOAT32,),
    TOKEN_TYPES: (INT32, UINT32),
}
_ONE_PER_TOKEN = ("tokenizer.ggml.scores", TOKEN_TYPES)
_EPSILONS = (
    "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon",
    "attention.group_norm_epsilon",
)
_COUNTS = {
    "block_count": (1, MOST_LAYERS),
    "embedding_length": (1, 1 << 20),
    "context_length": (1, 1 << 31),
    "attention.head_count": (0, 1 << 16),  # recurrent models state 0
}
"""Key -> least and largest value, where the key is there."""


def check_sane(header: Header) -> None:
    """Refuse a model for which llama.cpp would read or compute what is not there.

    The texts of tokens are looked at where the header was read with `keep=[TOKENS]`.

    Raises:
        ModelFileError: one line with the key and what is wrong with it.
    """
    for problem in _problems(header):
        raise ModelFileError(f"{header.name}: damaged: {problem}")


def _problems(header: Header) -> Iterator[str]:
    for key, kinds in _LISTS.items():
        found = header.metadata.get(key)
        if found is None:
            continue
        if found.kind != ARRAY or header.lists[key].kind not in kinds:
            yield f"{key} has the wrong type"
        elif key in _ONE_PER_TOKEN and header.lists[key].length != header.n_tokens:
            yield f"{key} has {header.lists[key].length} values for {header.n_tokens} tokens"
    for key in _EPSILONS:
        found = header.metadata.get(f"{header.architecture}.{key}")
        if found and not (isinstance(found.value, float) and 0 <= found.value < 1):
            yield f"{key} is {found.value}"
    for key, (least, most) in _COUNTS.items():
        count = header.number(key, 1)
        if not least <= count <= most:
            yield f"{key} is {count:.10g}"
    experts, used = header.number("expert_count"), header.number("expert_used_count")
    if not (0 <= used <= experts <= MOST_EXPERTS or experts == 0):
        yield f"expert_used_count is {used:.10g} and expert_count {experts:.10g}"
    yield from _problems_of_layers(header)
    found = header.metadata.get(TOKENS)
    if found is not None and isinstance(found.value, list):
        yield from _problems_of_texts(header, found.value)


def _problems_of_texts(header: Header, texts: list[bytes]) -> Iterator[str]:
    """Texts that llama.cpp looks up without asking whether they are there, and only once."""
    known = set(texts)
    if len(known) < len(texts):
        twice, _ = Counter(filter(None, texts)).most_common(1)[0]
        if texts.count(twice) > 1:
            yield f"two tokens are {twice.decode('utf-8', 'replace')[:40]!r}"
    if header.text("tokenizer.ggml.model") == "llama":
        for byte in range(256):
            if b"<0x%02X>" % byte not in known and bytes([byte]) not in known:
                yield f"its vocabulary has no token for the byte {byte}"


def _problems_of_layers(header: Header) -> Iterator[str]:
    """Numbers that may differ from layer to layer."""
    n_layers = int(header.number("block_count", 1))
    heads = header.numbers("attention.head_count", n_layers, 1)
    kv_heads = header.numbers("attention.head_count_kv", n_layers, 1)
    for layer, (own, shared) in enumerate(zip(heads, kv_heads, strict=True)):
        if own < 0 or shared < 0 or (shared and own % shared):
            yield f"layer {layer} has {own:.10g} heads and {shared:.10g} of keys"
            return


def is_usual(header: Header) -> bool:
    """Whether a header says what those of the best known transformers say, and nothing odd.

    Others may be fine as well, or end llama.cpp: see `eftlocal.llama.probe`.
    """
    tensors = {tensor.name: tensor for tensor in header.tensors}
    embeddings = tensors.get("token_embd.weight")
    width, n_layers = header.number("embedding_length"), int(header.number("block_count"))
    heads = header.number("attention.head_count")
    if not (embeddings and header.architecture and width and n_layers and heads):
        return False
    if list(embeddings.shape) != [width, header.n_tokens] or not header.number("context_length"):
        return False
    if header.text("tokenizer.ggml.model") not in ("llama", "gpt2"):
        return False
    key_length = header.number("attention.key_length", width / heads)
    rope = header.number("rope.dimension_count", key_length)
    if key_length % 2 or rope % 2 or not 0 < rope <= key_length:
        return False
    if header.number("expert_count") or header.number("attention.sliding_window"):
        return False
    for layer in range(n_layers):
        queries = tensors.get(f"blk.{layer}.attn_q.weight")
        keys = tensors.get(f"blk.{layer}.attn_k.weight")
        kv_heads = header.number("attention.head_count_kv", heads)
        if queries is None or keys is None:
            return False
        if list(queries.shape) != [width, heads * key_length]:
            return False
        if list(keys.shape) != [width, kv_heads * key_length]:
            return False
    return True
