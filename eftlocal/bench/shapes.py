"""Shapes of model trios that are written with random weights, to see what a machine would do."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UsageError

_HEAD = 64
_MOST_LAYERS, _MOST_WIDTH, _WIDTH_STEP = 200, 32_768, 256
_VOCABULARIES = (400, 500_000)
_SPREAD = 0.3
"""Deviation of the logits over log V; it gives entropies of about 2 nats for any V."""

_FORM = "large=WIDTHxLAYERS,small=WIDTHxLAYERS,vocab=N"


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of one transformer: a Llama, which costs what a Qwen2 of these sizes does."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int


@dataclass(frozen=True, slots=True)
class TrioShape:
    """Sizes of a base and a pair over one vocabulary of `n_vocab` tokens."""

    large: Size
    small: Size
    n_vocab: int


SHAPES: Mapping[str, TrioShape] = {
    "small": TrioShape(Size(1536, 24, 12, 4, 4096), Size(512, 8, 8, 4, 1408), 32_000),
    "small-152k": TrioShape(Size(1536, 24, 12, 4, 4096), Size(512, 8, 8, 4, 1408), 151_936),
    "medium": TrioShape(Size(2048, 24, 32, 8, 5632), Size(512, 8, 8, 4, 1408), 32_000),
    "llama3.1-8b+1b": TrioShape(
        Size(4096, 32, 32, 8, 14_336), Size(2048, 16, 32, 8, 8192), 128_256
    ),
    "qwen2.5-7b+0.5b": TrioShape(
        Size(3584, 28, 28, 4, 18_944), Size(896, 24, 14, 2, 4864), 151_936
    ),
}
"""Name -> sizes; for atlas and for files there is `-m` and `--base`.

The large model of "medium" has 21 times the parameters of its small one, that of "small" 12 times.
"""


def find_shape(text: str) -> TrioShape:
    """The shape of a name, or of a text such as "large=1536x24,small=512x8,vocab=32000".

    Heads are 64 wide, a quarter of them (at least one) have keys and values of their own, and the
    feed-forward layers are 2.75 times as wide as the model.

    Raises:
        UsageError: naming what is allowed.
    """
    if text in SHAPES:
        return SHAPES[text]
    parts = dict(part.partition("=")[::2] for part in text.replace(" ", "").split(","))
    if set(parts) != {"large", "small", "vocab"}:
        raise UsageError(f"there is no shape {text!r}; use {', '.join(SHAPES)}, or {_FORM}")
    low, high = _VOCABULARIES
    vocab = parts["vocab"]
    if not re.fullmatch(r"[0-9]{1,9}", vocab) or not low <= int(vocab) <= high:
        raise UsageError(f"--shape: vocab={vocab} is not allowed; use {low} to {high:,}")
    return TrioShape(_size("large", parts["large"]), _size("small", parts["small"]), int(vocab))


def _size(name: str, text: str) -> Size:
    found = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", text)
    width, layers = map(int, found.groups()) if found else (0, 0)
    allowed = 0 < width <= _MOST_WIDTH and width % _WIDTH_STEP == 0 and 0 < layers <= _MOST_LAYERS
    if not allowed:
        raise UsageError(
            f"--shape: {name}={text} is not allowed; use WIDTHxLAYERS, such as 1536x24, with a "
            f"width that is a multiple of {_WIDTH_STEP} up to {_MOST_WIDTH:,} and 1 to "
            f"{_MOST_LAYERS} layers"
        )
    heads = width // _HEAD
    return Size(width, layers, heads, heads // 4, width * 11 // 4)


def write_trio(
    folder: Path, shape: TrioShape, large: str = "Q4_0", small: str = "Q8_0"
) -> dict[str, Path]:
    """Write a base and a pair into `folder`, quantised as `large` and `small` say: role -> file.

    Every quantisation is a rounding of the same weights.

    The pair shares its weights but for the last norm, and the family agrees on the next token
    after 8 tokens of 10. The logits' spread gives distributions as peaked as real ones: with flat
    ones top-p would keep most of the vocabulary.

    Raises:
        UsageError: where the package gguf is missing.
    """
    try:
        from .random_models import ModelShape, write_gguf
    except ModuleNotFoundError as error:
        if error.name != "gguf":
            raise
        raise UsageError(
            "--shape writes GGUF files and needs one more package: pip install gguf"
        ) from None
    kinds: dict[str, tuple[Size, str, int, dict[str, Any]]] = {
        "base": (shape.large, large, 1, {}),
        "tuned": (shape.small, small, 2, {"tuning": 0.1}),
        "reference": (shape.small, small, 2, {}),
    }
    files = {}
    for role, (size, quantization, seed, more) in kinds.items():
        sizes = {name: getattr(size, name) for name in ("width", "layers", "heads", "kv_heads")}
        model = ModelShape(
            n_vocab=shape.n_vocab,
            ffn=size.ffn,
            context_length=4096,
            quantization=quantization,
            spread=_SPREAD * math.log(shape.n_vocab),
            family_width=64,
            agreement=0.8,
            **sizes,
        )
        files[role] = write_gguf(folder / f"{role}.gguf", replace(model, **more), seed=seed)
    return files
