"""Quantizing GGUF files with llama.cpp."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, dequantize

from eftlocal.errors import EftlocalError, ModelFileError, UsageError
from eftlocal.gguf import read_header
from eftlocal.llama.quantizing import TYPES, Packing, nominal_bits, quantize, type_named

from .gguf_models import ModelShape, write_gguf

SHAPE = ModelShape(n_vocab=600, width=64, ffn=128, quantization="F16")
WIDE = ModelShape(n_vocab=600, width=256, ffn=256, quantization="F32")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 16-bit floats."""
    return write_gguf(tmp_path_factory.mktemp("model") / "f16.gguf", SHAPE)


def matrices(path: Path) -> dict[str, str]:
    """Matrix -> type, as the header says."""
    return {t.name: t.type for t in read_header(path).tensors if len(t.shape) == 2}


def weights(path: Path) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Matrix -> numbers, unpacked by another library."""
    tensors = GGUFReader(path).tensors
    return {t.name: dequantize(t.data, t.tensor_type) for t in tensors if len(t.shape) == 2}


@contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """No file can have more bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_matrices_have_the_type_that_was_asked_for(model: Path, tmp_path: Path) -> None:
    """Every matrix is Q8_0 and near to what it was; what comes back says so."""
    made = tmp_path / "q8.gguf"
    packing = quantize(model, made, "q8_0")
    assert set(matrices(made).values()) == {"Q8_0"}
    before, after = weights(model), weights(made)
    for name, matrix in before.items():
        step = np.abs(matrix).max() / 127
        # Half a step, and what rounding the step to 16 bits does to the 127th of them.
        assert 0 < np.abs(matrix - after[name]).max() <= (0.5 + 127 * 2**-11) * step
    assert packing == Packing.of(read_header(made))
    assert packing.text == "Q8_0"
    assert packing.n_bytes == sum(t.n_bytes for t in read_header(made).tensors)
    assert 8.5 < packing.bits < 8.6
    assert [file.name for file in tmp_path.iterdir()] == ["q8.gguf"]


def test_a_quantized_file_is_unpacked_first(model: Path, tmp_path: Path) -> None:
    """From Q8_0 to Q4_0 and to 32-bit floats, which are exactly what Q8_0 stands for."""
    quantize(model, tmp_path / "q8.gguf", "Q8_0")
    quantize(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "Q4_0", pure=True)
    assert set(matrices(tmp_path / "q4.gguf").values()) == {"Q4_0"}
    quantize(tmp_path / "q8.gguf", tmp_path / "f32.gguf", "F32")
    packed, unpacked = weights(tmp_path / "q8.gguf"), weights(tmp_path / "f32.gguf")
    assert all(np.array_equal(packed[name], unpacked[name]) for name in packed)


def test_what_does_not_fit_gets_another_type_and_is_named(model: Path, tmp_path: Path) -> None:
    """Rows of 64 take no K-quant; mixtures give some matrices more bits."""
    assert quantize(model, tmp_path / "a.gguf", "Q4_K", pure=True).text == "Q5_0"
    wide = write_gguf(tmp_path / "wide.gguf", WIDE)
    assert quantize(wide, tmp_path / "b.gguf", "Q4_K", pure=True).text == "Q4_K"
    mixed = quantize(wide, tmp_path / "c.gguf", "Q4_K")
    assert set(mixed.types) == {"Q4_K", "Q6_K", "F32"}
    shares = {part.split()[0]: int(part.split()[1]) for part in mixed.text.split(", ")}
    n_weights = sum(mixed.types.values())
    for name, share in shares.items():
        assert share == round(100 * mixed.types[name] / n_weights)
    assert set(shares) == {"Q4_K", "Q6_K"}


def test_every_type_can_be_made(tmp_path: Path) -> None:
    """With about the bits that its name says."""
    wide = write_gguf(tmp_path / "wide.gguf", WIDE)
    for name in TYPES:
        packing = quantize(wide, tmp_path / "made.gguf", name, pure=True)
        assert packing.bits == pytest.approx(nominal_bits(name), rel=0.15), name


def test_names_of_types() -> None:
    """Any case, and short names of mixtures; others are refused in one line."""
    assert type_named("q4_k") == type_named("Q4_K_M") == "Q4_K_M"
    with pytest.raises(UsageError, match=r"^unknown quantization 'Q9_Z'; known ones: F32.*Q2_K$"):
        type_named("Q9_Z")


def test_what_is_no_model_is_refused(model: Path, tmp_path: Path) -> None:
    """One line each, and nothing is written."""
    other = tmp_path / "other.gguf"
    other.write_text("not a model")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model.read_bytes()[:-100])
    for source, what in (
        (tmp_path / "none.gguf", "no such file"),
        (other, "not a GGUF file"),
        (cut, "not complete"),
    ):
        with pytest.raises(ModelFileError, match=what) as caught:
            quantize(source, tmp_path / "made.gguf", "Q8_0")
        assert "\n" not in str(caught.value) and str(source) in str(caught.value)
    with pytest.raises(UsageError):
        quantize(model, tmp_path / "made.gguf", "Q9_Z")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cut.gguf", "other.gguf"]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_full_disk_leaves_nothing_behind(model: Path, tmp_path: Path, share: float) -> None:
    """However much there was room for: what was there before is as it was."""
    size = quantize(model, tmp_path / "made.gguf", "Q8_0").n_bytes
    before = (tmp_path / "made.gguf").read_bytes()
    with full_disk(int(share * size)), pytest.raises(EftlocalError) as caught:
        quantize(model, tmp_path / "made.gguf", "Q8_0", pure=True)
    assert "made.gguf" in str(caught.value) and "disk" in str(caught.value)
    assert ".part" not in str(caught.value) and "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["made.gguf"]
    assert (tmp_path / "made.gguf").read_bytes() == before


def test_a_folder_that_is_not_there(model: Path, tmp_path: Path) -> None:
    """The file that cannot be written is named."""
    with pytest.raises(ModelFileError, match=r"^cannot write .*made\.gguf: No such file"):
        quantize(model, tmp_path / "none" / "made.gguf", "Q8_0")


def test_equal_sources_give_equal_files(tmp_path: Path) -> None:
    """Whatever the number of threads."""
    source = write_gguf(tmp_path / "source.gguf", replace(WIDE, layers=1))
    quantize(source, tmp_path / "a.gguf", "Q4_K_M")
    quantize(source, tmp_path / "b.gguf", "Q4_K_M", threads=2)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
