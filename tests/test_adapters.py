"""LoRA adapters in llama.cpp: a context with one equals a context of the merged model."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eftlocal.context import Block
from eftlocal.distributions import Array
from eftlocal.errors import ModelFileError
from eftlocal.gguf import FLOAT32, STRING, read_metadata
from eftlocal.llama import (
    Adapter,
    ContextSettings,
    LlamaContext,
    Weights,
    is_adapter,
)

from .adapters import write_adapter, write_merged
from .conftest import N_VOCAB, SMALL, Trio
from .gguf_models import BOS, ModelShape, write_gguf

PROMPT = [BOS, *range(300, 340)]
EXACT = ContextSettings(n_ctx=256, n_rows=16, flash_attention="off", cache_type="f32")


def rows_of(weights: Weights, adapter: Adapter | None = None, scale: float = 1.0) -> Array:
    """The last five rows of logits after the prompt, (5, V)."""
    context = LlamaContext(weights, EXACT, adapter, scale)
    rows = context.decode([Block(0, PROMPT, 5)]).copy()
    context.close()
    return rows


@pytest.fixture(scope="module")
def adapter_file(trio: Trio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter for the trio's reference."""
    return write_adapter(tmp_path_factory.mktemp("adapter") / "lora.gguf", trio.reference)


@pytest.mark.parametrize("scale", [1.0, 0.5, -1.5])
def test_an_adapter_equals_the_merged_model(
    trio: Trio, adapter_file: Path, tmp_path: Path, scale: float
) -> None:
    """Weights + scale * alpha / rank * B A, computed in NumPy, give the same logits."""
    weights = Weights(trio.reference)
    merged = Weights(write_merged(tmp_path / "m.gguf", trio.reference, adapter_file, scale))
    rows = rows_of(weights, Adapter(weights, adapter_file), scale)
    np.testing.assert_allclose(rows, rows_of(merged), rtol=0, atol=1e-3)
    assert np.abs(rows - rows_of(weights)).max() > 1
    weights.close()
    merged.close()


def test_one_adapter_serves_contexts_of_any_scale(trio: Trio, adapter_file: Path) -> None:
    """Contexts over the same weights do not feel each other's adapter."""
    weights = Weights(trio.reference)
    plain = rows_of(weights)
    adapter = Adapter(weights, adapter_file)
    contexts = [LlamaContext(weights, EXACT, adapter, scale) for scale in (1.0, 0.0)]
    contexts.append(LlamaContext(weights, EXACT))
    found = [context.decode([Block(0, PROMPT, 5)]).copy() for context in contexts]
    np.testing.assert_allclose(found[1], plain, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(found[2], plain)
    assert np.abs(found[0] - plain).max() > 1
    weights.close()
    adapter.close()


@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_0"])
def test_quantised_weights_take_adapters(tmp_path: Path, quantization: str) -> None:
    """Also weights that llama.cpp repacks for the CPU; the shift is that of the F32 model."""
    shifts = []
    for kind in ("F32", quantization):
        model = write_gguf(
            tmp_path / f"{kind}.gguf", ModelShape(n_vocab=N_VOCAB, quantization=kind)
        )
        weights = Weights(model)
        plain = rows_of(weights)
        adapter = Adapter(weights, write_adapter(tmp_path / f"{kind}.lora", model))
        shifts.append(rows_of(weights, adapter) - plain)
        weights.close()
    assert np.corrcoef(shifts[0].ravel(), shifts[1].ravel())[0, 1] > 0.7


def other_model(folder: Path, shape: ModelShape) -> Path:
    """An adapter for a model of another shape."""
    return write_adapter(folder / "a.gguf", write_gguf(folder / "m.gguf", shape))


def with_metadata(folder: Path, **values: str | int | float) -> Path:
    """A GGUF of metadata alone; its keys have dots where the arguments have underscores."""
    writer = GGUFWriter(folder / "a.gguf", "llama")
    for name, value in values.items():
        key = name.replace("_", ".")
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_float32(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "a.gguf"


def text_file(folder: Path) -> Path:
    """No GGUF at all."""
    (folder / "a.gguf").write_text("hello")
    return folder / "a.gguf"


UNFIT: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "a.gguf", "no such file"),
    "text": (text_file, "not a GGUF file"),
    "whole model": (lambda folder: write_gguf(folder / "a.gguf", SMALL), "not a LoRA adapter"),
    "wider": (
        lambda folder: other_model(folder, ModelShape(n_vocab=N_VOCAB, width=96)),
        r"cannot be used on .*reference\.gguf: tensor .* incorrect shape",
    ),
    "deeper": (
        lambda folder: other_model(folder, ModelShape(n_vocab=N_VOCAB, layers=3)),
        r"cannot be used on .*reference\.gguf: LoRA tensor 'blk\.2.* does not exist",
    ),
    "other kind": (
        lambda folder: with_metadata(folder, general_type="adapter", adapter_type="control"),
        "an adapter of another kind",
    ),
    "kind of a wrong type": (
        lambda folder: with_metadata(folder, general_type=1, adapter_type="lora"),
        "not a LoRA adapter",
    ),
    "alpha of a wrong type": (
        lambda folder: with_metadata(
            folder, general_type="adapter", adapter_type="lora", adapter_lora_alpha=8
        ),
        r"adapter\.lora\.alpha has the wrong type",
    ),
}


@pytest.mark.parametrize(("make", "message"), UNFIT.values(), ids=UNFIT)
def test_adapters_that_do_not_fit_are_one_line(
    trio: Trio, tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    """Each is named with the reason; none reaches code in llama.cpp that would abort."""
    weights = Weights(trio.reference)
    with pytest.raises(ModelFileError, match=rf"a\.gguf: [^\n]*{message}[^\n]*$"):
        Adapter(weights, make(tmp_path))
    weights.close()


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.5, 0.999])
def test_truncated_adapters_are_named(
    trio: Trio, adapter_file: Path, tmp_path: Path, share: float
) -> None:
    """Every truncation is one line with the file's name."""
    data = adapter_file.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(data[: int(len(data) * share)])
    weights = Weights(trio.reference)
    with pytest.raises(ModelFileError, match=r"cut\.gguf: [^\n]+$"):
        Adapter(weights, cut)
    weights.close()


def test_is_adapter(trio: Trio, adapter_file: Path, tmp_path: Path) -> None:
    """Files that cannot be read are no adapters: loading them says what is wrong."""
    assert is_adapter(adapter_file)
    for other in (trio.base, tmp_path, tmp_path / "missing", text_file(tmp_path)):
        assert not is_adapter(other)


def test_metadata_is_read_up_to_a_vocabulary(trio: Trio, adapter_file: Path) -> None:
    """Wanted keys come with their types; a tokenizer's tokens are not walked through."""
    keys = ["general.type", "adapter.lora.alpha", "no.such.key"]
    assert read_metadata(adapter_file, keys) == {
        "general.type": (STRING, "adapter"),
        "adapter.lora.alpha": (FLOAT32, 8.0),
    }
    late = ["llama.block_count", "tokenizer.ggml.bos_token_id"]
    assert list(read_metadata(trio.base, late)) == ["llama.block_count"]
    assert set(read_metadata(trio.base, late, most_strings=N_VOCAB)) == set(late)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.data())
def test_damaged_metadata_is_never_an_exception(
    data: st.DataObject, adapter_file: Path, tmp_path: Path
) -> None:
    """Any byte may be any other, any length may be absurd, the file may end anywhere."""
    content = bytearray(adapter_file.read_bytes()[:400])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 8))
        size = data.draw(st.sampled_from([1, 4, 8]))
        number = data.draw(st.integers(0, 2 ** (8 * size) - 1))
        content[place : place + size] = struct.pack("<Q", number)[:size]
    file = tmp_path / "damaged.gguf"
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    found = read_metadata(file, ["general.type", "adapter.type", "adapter.lora.alpha"])
    assert set(found) <= {"general.type", "adapter.type", "adapter.lora.alpha"}


@pytest.mark.parametrize("ending", ["", "raise KeyboardInterrupt", "w.close(); w.close()"])
def test_everything_is_freed_at_exit(trio: Trio, adapter_file: Path, ending: str) -> None:
    """A process that closes nothing, or all, ends without a crash."""
    code = (
        "from pathlib import Path; from eftlocal.llama import *\n"
        f"w = Weights(Path({str(trio.reference)!r}))\n"
        f"a = Adapter(w, Path({str(adapter_file)!r}))\n"
        "s = ContextSettings(n_ctx=256, n_rows=4)\n"
        "c = [LlamaContext(w, s, a), LlamaContext(w, s)]\n" + ending
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode in (0, 130, -2), done.stderr
    assert b"Segmentation" not in done.stderr
    assert b"Aborted" not in done.stderr
