"""Shapes of the benchmark, and what makes its random models stand for real ones."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, dequantize
from numpy.typing import NDArray

import eftlocal
from eftlocal.bench.shapes import SHAPES, Size, find_shape, write_trio
from eftlocal.context import Block
from eftlocal.errors import UsageError

from .gguf_models import ModelShape, write_gguf

SHAPE = "large=512x4,small=256x3,vocab=32000"


@pytest.mark.parametrize("name", SHAPES)
def test_named_shapes_can_be_written(name: str) -> None:
    """Heads divide the width, groups the heads, and blocks of 32 every matrix."""
    shape = find_shape(name)
    for size in (shape.large, shape.small):
        assert size.width % size.heads == size.heads % size.kv_heads == 0
        assert size.width % 32 == size.ffn % 32 == 0


def test_a_shape_is_read() -> None:
    """Width and layers are given, the rest follows."""
    shape = find_shape("vocab=32000, large=2048x24,small=256x8")
    assert shape.n_vocab == 32_000
    assert shape.large == Size(2048, 24, heads=32, kv_heads=8, ffn=5632)
    assert shape.small == Size(256, 8, heads=4, kv_heads=1, ffn=704)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("llama", "llama3.1-8b+1b"),
        ("", "llama3.1-8b+1b"),
        ("large=512x4,small=256x3", "vocab=N"),
        ("large=512x4,small=256x3,vocab=32000,more=1", "vocab=N"),
        ("large=500x4,small=256x3,vocab=32000", "large=500x4"),
        ("large=512x4,small=256,vocab=32000", "small=256 "),
        ("large=512x0,small=256x3,vocab=32000", "large=512x0"),
        ("large=512x4,small=256x3,vocab=12", "vocab=12 "),
        ("large=512x4,small=256x3,vocab=1e4", "vocab=1e4 "),
        ("large=512x4,small=٢56x3,vocab=32000", "small="),
    ],
)
def test_other_shapes_are_refused(text: str, named: str) -> None:
    """One line says what is wrong and what is allowed."""
    with pytest.raises(UsageError, match=re.escape(named)) as caught:
        find_shape(text)
    assert "use " in str(caught.value) and "\n" not in str(caught.value)


def test_without_gguf_there_is_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that only this needs is named."""
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.delitem(sys.modules, "eftlocal.bench.random_models", raising=False)
    with pytest.raises(UsageError, match="pip install"):
        write_trio(tmp_path, find_shape("small"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float64]:
    """Logits (3, T, V) of base, tuned and reference along a text that the trio samples."""
    files = write_trio(tmp_path_factory.mktemp("shape"), find_shape(SHAPE))
    options = {"max_tokens": 224, "temperature": 1, "draft": "off"}
    with eftlocal.load(threads=1, ctx=256, **dict[str, Any](files)) as model:
        text = model.complete(range(9000, 9032), **options)
        tokens = [*text.prompt_tokens, *text.tokens]
        contexts = model.engine.ensemble.contexts
        model.engine.ensemble.forget(0)
        chunks = [tokens[i : i + 16] for i in range(0, len(tokens), 16)]
        return np.array([
            np.concatenate([c.decode([Block(0, chunk, len(chunk))]) for chunk in chunks])[32:]
            for c in contexts
        ]).astype(np.float64)  # fmt: skip


def test_distributions_are_as_peaked_as_real_ones(rows: NDArray[np.float64]) -> None:
    """The entropies of base and fused distribution are 1 to 3 nats on average."""
    base, tuned, reference = rows
    for logits in (base, base + tuned - reference):
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
        assert 1 < entropy.mean() < 3


def test_the_family_agrees_mostly_and_tuning_changes_little(rows: NDArray[np.float64]) -> None:
    """Drafts are accepted most of the time, and the delta is small beside the logits."""
    base, tuned, reference = rows
    assert 0.55 < np.mean(base.argmax(axis=1) == tuned.argmax(axis=1)) < 0.95
    delta = (tuned - reference).std()
    assert 0.2 < delta < 0.4 and 2.7 < reference.std() < 3.5


def test_tuning_changes_the_last_norm_alone(tmp_path: Path) -> None:
    """Tuned and reference share all other tensors."""
    shape = ModelShape(quantization="Q8_0")
    paths = [
        write_gguf(tmp_path / f"{tuning}.gguf", replace(shape, tuning=tuning), seed=3)
        for tuning in (0.0, 0.1)
    ]
    reference, tuned = ({t.name: t.data for t in GGUFReader(path).tensors} for path in paths)
    changed = [name for name, data in tuned.items() if not np.array_equal(data, reference[name])]
    assert changed == ["output_norm.weight"]
    assert 0.05 < tuned["output_norm.weight"].std() < 0.15


def test_rounding_to_four_bits_shifts_nothing(tmp_path: Path) -> None:
    """The Q4_0 weights are those of Q8_0 with noise, and without a common offset.

    An offset of all weights would grow from layer to layer and drown what the input says.
    """
    found = {}
    for kind in ("Q8_0", "Q4_0"):
        path = write_gguf(tmp_path / f"{kind}.gguf", ModelShape(quantization=kind, width=256))
        (tensor,) = (t for t in GGUFReader(path).tensors if t.name == "blk.0.ffn_up.weight")
        found[kind] = dequantize(tensor.data, tensor.tensor_type).ravel()
    error = found["Q4_0"] - found["Q8_0"]
    deviation = found["Q8_0"].std()
    assert error.std() < 0.15 * deviation
    # Blocks of 32 are rounded in one direction.
    of_blocks = error.reshape(-1, 32).mean(axis=1)
    assert abs(of_blocks.mean()) < 4 * of_blocks.std() / of_blocks.size**0.5
