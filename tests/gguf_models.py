"""Small Llama models with random weights as GGUF files, for tests and benchmarks.

Their text is gibberish, but in the ways that matter they behave like real ones: logits have a
healthy spread, they depend on the whole prefix, and models of one family often agree on the next
token (so that drafts are sometimes accepted), because they share a part of their embeddings.
"""

from __future__ import annotations

import string
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice, product
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from numpy.typing import NDArray

UNK, BOS, EOS = 0, 1, 2
FIRST_BYTE = 3
SYSTEM, USER, ASSISTANT, END = 259, 260, 261, 262
FIRST_PIECE = 263
MARKERS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BLOCK = 32
"""Columns that ggml quantises together; also the columns that a family shares."""
FAMILY_SHARE = 0.8
"""Share of the logits' variance that comes from the columns of the family."""
LAYER_GAIN = 0.7
"""Size of what the layers add to the embeddings: how much the prefix says."""
DEVIATION_OF_BYTES = ((256**2 - 1) / 12) ** 0.5


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of one model.

    Attributes:
        n_vocab: tokens that have a text; the same number gives the same tokens in every model.
        n_padding: unused tokens after them, as real families pad their matrices.
        width, layers, heads, kv_heads, ffn: the transformer; width (64 or more) and ffn are
            multiples of 32.
        context_length: what the file says that it was trained for.
        quantization: of the matrices: F32, F16, Q8_0 or Q4_0.
        spread: standard deviation of the logits.
    """

    n_vocab: int = 1000
    n_padding: int = 0
    width: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 128
    context_length: int = 512
    quantization: str = "F32"
    spread: float = 2.5


@dataclass(frozen=True, slots=True)
class Token:
    """One entry of a vocabulary."""

    text: str
    type: TokenType = TokenType.NORMAL


def _pieces() -> Iterator[str]:
    """Endless pieces; each one is two earlier ones joined, so the tokenizer can reach them all."""
    letters = "etaoinshrdlucmwfgypbvkqjxz"
    others = (c for c in string.printable[:95] if c not in letters and c != " ")
    yield from chain(["▁"], letters, others)
    yield from ("▁" + letter for letter in letters)
    for length in (2, 3, 4):
        for group in product(letters, repeat=length):
            yield "".join(group)
        if length == 2:
            yield from ("▁" + "".join(pair) for pair in product(letters, repeat=2))


@lru_cache(maxsize=8)
def vocabulary(n_vocab: int = 1000) -> tuple[Token, ...]:
    """The tokens 0 to n_vocab - 1: specials, 256 bytes, chat markers, then pieces of text."""
    if n_vocab <= FIRST_PIECE + 95:
        raise ValueError(f"a vocabulary needs more than {FIRST_PIECE + 95} tokens, not {n_vocab}")
    specials = [
        Token("<unk>", TokenType.UNKNOWN),
        Token("<s>", TokenType.CONTROL),
        Token("</s>", TokenType.CONTROL),
    ]
    raw = [Token(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    markers = [Token(marker, TokenType.CONTROL) for marker in MARKERS]
    pieces = [Token(piece) for piece in islice(_pieces(), n_vocab - FIRST_PIECE)]
    return (*specials, *raw, *markers, *pieces)


def write_gguf(
    path: Path,
    shape: ModelShape = ModelShape(),
    *,
    seed: int = 0,
    family: int = 0,
    chat_template: str | None = None,
    tokens: Sequence[Token] | None = None,
    eos: int = EOS,
    eot: int | None = None,
) -> Path:
    """Write a model and return `path`; the file is a function of the arguments.

    Half a gigabyte takes about two seconds, because quantised matrices are drawn as random bytes.

    Args:
        path: the file to write.
        shape: its sizes.
        seed: draws the weights that are the model's own.
        family: draws the weights that it shares with its family.
        chat_template: a Jinja template for the file (see `CHAT_TEMPLATE`), or none.
        tokens: another vocabulary of `n_vocab` tokens; default `vocabulary(n_vocab)`.
        eos: the token that ends a text.
        eot: the token that ends a turn; llama.cpp finds `<|end|>` by its name anyway.
    """
    tokens = vocabulary(shape.n_vocab) if tokens is None else tokens
    if len(tokens) != shape.n_vocab:
        raise ValueError(f"{len(tokens)} tokens for n_vocab = {shape.n_vocab}")
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    _add_tokenizer(writer, tokens, shape.n_padding)
    writer.add_eos_token_id(eos)
    if eot is not None:
        writer.add_eot_token_id(eot)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    _add_tensors(writer, shape, seed, family)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: GGUFWriter, tokens: Sequence[Token], n_padding: int) -> None:
    """Add a SentencePiece vocabulary; earlier pieces are merged first."""
    n_tokens = len(tokens)
    padding = [Token(f"[PAD{n_tokens + i}]", TokenType.UNUSED) for i in range(n_padding)]
    every = [*tokens, *padding]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token.text for token in every])
    writer.add_token_scores([-float(i) for i in range(len(every))])
    writer.add_token_types([token.type for token in every])
    writer.add_bos_token_id(BOS)
    writer.add_unk_token_id(UNK)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)


def _add_tensors(writer: GGUFWriter, shape: ModelShape, seed: int, family: int) -> None:
    """Add all weights: norms of one, matrices drawn from (seed, name) or from the family."""
    kind = GGMLQuantizationType[shape.quantization]
    width, ffn = shape.width, shape.ffn
    key_width = width // shape.heads * shape.kv_heads
    layer_gain = LAYER_GAIN * shape.layers**-0.5

    def add(name: str, *parts: Matrix) -> None:
        """Add a matrix of parts that lie side by side."""
        packed = [_packed(part, kind) for part in parts]
        writer.add_tensor(f"{name}.weight", np.concatenate(packed, axis=1), raw_dtype=kind)

    def add_map(name: str, rows: int, columns: int, gain: float) -> None:
        """Add a (rows, columns) matrix whose products have `gain` times the input's size."""
        add(name, Matrix(_draw(rows, columns, seed, name), gain / columns**0.5))

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))

    embeddings, outputs = _family_columns(shape, family)
    n_rows, n_own = shape.n_vocab + shape.n_padding, width - BLOCK
    own = Matrix(_draw(n_rows, n_own, seed, "token_embd"), 1.0)
    add("token_embd", Matrix(embeddings, 1.0), own)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        add_norm(f"{block}.attn_norm")
        # Queries and keys are large: attention picks single positions instead of averaging all
        # of them, which would wash the prefix out.
        add_map(f"{block}.attn_q", width, width, 2.0)
        add_map(f"{block}.attn_k", key_width, width, 2.0)
        add_map(f"{block}.attn_v", key_width, width, 1.0)
        add_map(f"{block}.attn_output", width, width, layer_gain)
        add_norm(f"{block}.ffn_norm")
        add_map(f"{block}.ffn_gate", ffn, width, 1.0)
        add_map(f"{block}.ffn_up", ffn, width, 1.0)
        add_map(f"{block}.ffn_down", width, ffn, layer_gain)
    add_norm("output_norm")
    own_deviation = shape.spread * ((1 - FAMILY_SHARE) / n_own) ** 0.5
    own = Matrix(_draw(n_rows, n_own, seed, "output"), own_deviation)
    add("output", Matrix(outputs, shape.spread * (FAMILY_SHARE / BLOCK) ** 0.5), own)


@dataclass(frozen=True, slots=True)
class Matrix:
    """Weights before they are packed: bytes (rows, columns) and the deviation that they get."""

    values: NDArray[np.int8]
    deviation: float


def _family_columns(shape: ModelShape, family: int) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Draw the embedding and output columns that all models of a family have in common.

    After every token with an even id one successor is likely in the whole family: its output
    weights are that token's embedding. Elsewhere the models go their own ways, as real ones do.
    """
    n_rows = shape.n_vocab + shape.n_padding
    embeddings = _draw(n_rows, BLOCK, family, "family.embeddings")
    outputs = _draw(n_rows, BLOCK, family, "family.outputs").copy()
    texts = np.r_[FIRST_BYTE:SYSTEM, FIRST_PIECE : shape.n_vocab]
    successors = _generator(family, "family.successors").permutation(texts)
    even = texts % 2 == 0
    outputs[successors[even]] = embeddings[texts[even]]
    return embeddings, outputs


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))


def _draw(rows: int, columns: int, seed: int, name: str) -> NDArray[np.int8]:
    drawn = _generator(seed, name).bytes(rows * columns)
    return np.frombuffer(drawn, np.int8).reshape(rows, columns)


def _packed(matrix: Matrix, kind: GGMLQuantizationType) -> NDArray[np.generic]:
    """Lay a matrix out as ggml does; every kind is a rounding of the same weights."""
    scale = matrix.deviation / DEVIATION_OF_BYTES
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        numbers = matrix.values * np.float32(scale)
        return numbers if kind is GGMLQuantizationType.F32 else numbers.astype(np.float16)
    # A block of 32 numbers is a float16 scale, then int8 for Q8_0; for Q4_0 nibbles that count
    # from -8: number j in the low half of byte j, number j + 16 in its high half.
    values: NDArray[np.uint8] = matrix.values.reshape(-1, BLOCK).view(np.uint8)
    if kind is GGMLQuantizationType.Q4_0:
        nibbles = (values >> np.uint8(4)) ^ np.uint8(8)
        values = nibbles[:, :16] | nibbles[:, 16:] << np.uint8(4)
        scale *= 16
    blocks = np.empty((len(values), 2 + values.shape[1]), np.uint8)
    blocks[:, :2] = np.array([scale], np.float16).view(np.uint8)
    blocks[:, 2:] = values
    return blocks.reshape(len(matrix.values), -1)
