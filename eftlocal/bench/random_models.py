"""Llama models with random weights as GGUF files, for benchmarks and tests; alone imports gguf.

Their text is gibberish, but in the ways that matter they behave like real ones: logits have a
healthy spread, they depend on the whole prefix, and models of one family often agree on the next
token (so that drafts are sometimes accepted), because they share a part of their embeddings.
"""

from __future__ import annotations

import string
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice, product
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, TokenType, quantize
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
"""Columns that ggml quantises together."""
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
        quantization: of the matrices: F32, F16, BF16, Q8_0 or Q4_0.
        spread: standard deviation of the logits.
        tuning: makes a fine-tuned model of the same weights: every channel of the last norm is
            changed by about this share, and the logits by about `tuning * spread`.
        family_width: columns that it shares with its family, a multiple of 32 and less than width.
            The more there are, the surer the next token is where the family agrees on it.
        agreement: share of the tokens after which the family agrees on the next one.
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
    tuning: float = 0.0
    family_width: int = BLOCK
    agreement: float = 0.5


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

    Half a gigabyte takes about two seconds, because quantised matrices are drawn as random bytes,
    and one matrix at a time is held in memory.

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
    tensors = list(_tensors(shape, seed, family))
    for tensor in tensors:
        size, n_bytes = GGML_QUANT_SIZES[tensor.kind]
        n_numbers = int(np.prod(tensor.shape))
        writer.add_tensor_info(
            tensor.name, tensor.shape, np.dtype(np.int8), n_numbers // size * n_bytes, tensor.kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(tensor.make())
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


@dataclass(frozen=True, slots=True)
class _Tensor:
    """One tensor of a file, whose data are made when they are written."""

    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    make: Callable[[], NDArray[np.generic]]


def _tensors(shape: ModelShape, seed: int, family: int) -> Iterator[_Tensor]:
    """All weights: norms of one, matrices drawn from (seed, name) or from the family."""
    width, ffn = shape.width, shape.ffn
    key_width = width // shape.heads * shape.kv_heads
    layer_gain = LAYER_GAIN * shape.layers**-0.5

    def matrix(name: str, rows: int, columns: int, gain: float) -> _Tensor:
        """A (rows, columns) matrix whose products have `gain` times the input's size."""
        return _matrix(shape, name, (rows, columns), lambda: [own(name, rows, columns, gain)])

    def own(name: str, rows: int, columns: int, gain: float) -> Matrix:
        return Matrix(_draw(rows, columns, seed, name), gain / columns**0.5)

    embeddings, outputs = _family_columns(shape, family)
    n_rows, n_own = shape.n_vocab + shape.n_padding, width - shape.family_width
    yield _matrix(
        shape,
        "token_embd",
        (n_rows, width),
        lambda: [Matrix(embeddings, 1.0), own("token_embd", n_rows, n_own, n_own**0.5)],
    )
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        yield _norm(f"{block}.attn_norm", width)
        # Queries and keys are large: attention picks single positions instead of averaging all
        # of them, which would wash the prefix out.
        yield matrix(f"{block}.attn_q", width, width, 2.0)
        yield matrix(f"{block}.attn_k", key_width, width, 2.0)
        yield matrix(f"{block}.attn_v", key_width, width, 1.0)
        yield matrix(f"{block}.attn_output", width, width, layer_gain)
        yield _norm(f"{block}.ffn_norm", width)
        yield matrix(f"{block}.ffn_gate", ffn, width, 1.0)
        yield matrix(f"{block}.ffn_up", ffn, width, 1.0)
        yield matrix(f"{block}.ffn_down", width, ffn, layer_gain)
    yield _norm("output_norm", width, shape.tuning)
    shared = Matrix(outputs, shape.spread * (FAMILY_SHARE / shape.family_width) ** 0.5)
    gain = shape.spread * (1 - FAMILY_SHARE) ** 0.5
    yield _matrix(
        shape, "output", (n_rows, width), lambda: [shared, own("output", n_rows, n_own, gain)]
    )


def _matrix(
    shape: ModelShape, name: str, size: tuple[int, int], parts: Callable[[], Sequence[Matrix]]
) -> _Tensor:
    """A matrix of parts that lie side by side."""
    kind = GGMLQuantizationType[shape.quantization]
    return _Tensor(
        f"{name}.weight",
        kind,
        size,
        lambda: np.concatenate([_packed(part, kind) for part in parts()], axis=1),
    )


def _norm(name: str, width: int, tuning: float = 0.0) -> _Tensor:
    """Weights of a norm: ones, or around one with the deviation `tuning`."""
    weights = np.ones(width, np.float32)
    if tuning:
        weights += np.float32(tuning) * _generator(0, name).standard_normal(width, np.float32)
    return _Tensor(f"{name}.weight", GGMLQuantizationType.F32, (width,), lambda: weights)


@dataclass(frozen=True, slots=True)
class Matrix:
    """Weights before they are packed: bytes (rows, columns) and the deviation that they get."""

    values: NDArray[np.int8]
    deviation: float


def _family_columns(shape: ModelShape, family: int) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Draw the embedding and output columns that all models of a family have in common.

    After some tokens (by their ids: with an `agreement` of 0.5 the even ones) one successor is
    likely in the whole family: its output weights are that token's embedding. Elsewhere the models
    go their own ways, as real ones do.
    """
    n_rows = shape.n_vocab + shape.n_padding
    width = shape.family_width
    embeddings = _draw(n_rows, width, family, "family.embeddings")
    outputs = _draw(n_rows, width, family, "family.outputs").copy()
    texts = np.r_[FIRST_BYTE:SYSTEM, FIRST_PIECE : shape.n_vocab]
    successors = _generator(family, "family.successors").permutation(texts)
    agreed = texts % 10 // 2 + 5 * (texts % 2) < round(10 * shape.agreement)
    outputs[successors[agreed]] = embeddings[texts[agreed]]
    return embeddings, outputs


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))


def _draw(rows: int, columns: int, seed: int, name: str) -> NDArray[np.int8]:
    drawn = _generator(seed, name).bytes(rows * columns)
    return np.frombuffer(drawn, np.int8).reshape(rows, columns)


def _packed(matrix: Matrix, kind: GGMLQuantizationType) -> NDArray[np.generic]:
    """Lay a matrix out as ggml does; every kind is a rounding of the same weights."""
    scale = matrix.deviation / DEVIATION_OF_BYTES
    floats = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
    if kind in floats:
        numbers: NDArray[np.generic] = quantize(matrix.values * np.float32(scale), kind)
        return numbers
    # A block of 32 numbers is a float16 scale, then int8 for Q8_0; for Q4_0 nibbles that count
    # from -8: number j in the low half of byte j, number j + 16 in its high half.
    values: NDArray[np.uint8] = matrix.values.reshape(-1, BLOCK).view(np.uint8)
    scales = np.full(len(values), scale)
    if kind is GGMLQuantizationType.Q4_0:
        # The upper halves of bytes are half a step too low on average, which would add one common
        # vector to everything. So about half of the blocks are rounded up, by a negative scale.
        flipped = (values[:, :1] & 1).astype(np.uint8) * np.uint8(255)
        nibbles = ((values ^ flipped) >> np.uint8(4)) ^ np.uint8(8)
        values = nibbles[:, :16] | nibbles[:, 16:] << np.uint8(4)
        scales = 16 * np.where(flipped[:, 0], -scale, scale)
    blocks = np.empty((len(values), 2 + values.shape[1]), np.uint8)
    blocks[:, :2] = scales.astype(np.float16)[:, None].view(np.uint8)
    blocks[:, 2:] = values
    return blocks.reshape(len(matrix.values), -1)
