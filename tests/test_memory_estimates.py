"""Estimates of memory against what llama.cpp says that it allocates."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

import eftlocal
from eftlocal.bench.shapes import find_shape, write_trio
from eftlocal.gguf import read_header
from eftlocal.llama import Weights
from eftlocal.llama.library import has_amx
from eftlocal.memory import need_of_files, sizes_of
from eftlocal.options import MAX_DRAFT, RuntimeOptions

from .adapters import write_adapter
from .conftest import Trio
from .test_gguf_header import ATLAS

_LINE = re.compile(r"\S+ +(model|KV|compute|output) buffer size = +([\d.]+) MiB")
PARTS = {"weights": "model", "caches": "KV", "compute": "compute"}
_ROUNDING = 0.03
"""MiB by which the sum of llama.cpp's rounded lines may be off."""

Files = dict[str, Path]


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A trio as `bench --shape` writes it, base in Q4_0 and pair in Q8_0."""
    shape = find_shape("large=512x6,small=256x4,vocab=12000")
    return write_trio(tmp_path_factory.mktemp("shaped"), shape)


@pytest.fixture
def sets(trio: Trio, shaped: Files) -> dict[str, Files]:
    """Files of several sizes and kinds by name."""
    names = ("large", "small-chat", "small")
    roles = ("base", "tuned", "reference")
    atlas = {role: ATLAS / f"{name}.gguf" for role, name in zip(roles, names, strict=True)}
    return {"trio": dict(trio._asdict()), "shape": shaped, "atlas": atlas}


def reported(
    caplog: pytest.LogCaptureFixture, files: dict[str, Any], options: dict[str, Any]
) -> dict[str, float]:
    """MiB that llama.cpp logs for each kind of buffer while `files` are loaded."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "eftlocal.llama"):
        eftlocal.load(threads=1, **files, **options).close()
    found = dict.fromkeys(("model", "KV", "compute", "output"), 0.0)
    for record in caplog.records:
        line = _LINE.search(record.getMessage())
        if line:
            found[line[1]] += float(line[2])
    return found


OPTIONS: list[dict[str, Any]] = [
    {},
    {"ctx": 1024},
    {"ctx": 300, "batch": 64},
    {"batch": 512},
    {"flash_attention": "off"},
    {"cache_type": "q8_0", "flash_attention": "on"},
    {"parallel": 3, "ctx": 512},
    {"parallel": 3, "ctx": 512, "kv_unified": "off"},
    {"mmap": "on"},
]
# The heads of the trio are narrower than a block of q8_0.
CASES = [
    (name, options)
    for name in ("trio", "shape", "atlas")
    for options in OPTIONS
    if not (name == "trio" and "cache_type" in options)
]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_estimates_are_within_five_percent(
    caplog: pytest.LogCaptureFixture, sets: dict[str, Files], name: str, options: dict[str, Any]
) -> None:
    """Weights and caches to the rounding of the log, everything together within 5 %."""
    files = sets[name]
    told = reported(caplog, files, options)
    needed = need_of_files(files, RuntimeOptions(**options), repacks=not has_amx())
    parts = {part: n_bytes / 2**20 for part, n_bytes in needed.parts().items()}
    assert parts["caches"] == pytest.approx(told["KV"], abs=_ROUNDING)
    if "mmap" not in options:
        assert parts["weights"] == pytest.approx(told["model"], abs=_ROUNDING)
    # At first a context has one row per sequence; drafts make it grow to the rows planned for.
    first = parts["logits"] / MAX_DRAFT
    assert first == pytest.approx(told["output"], abs=_ROUNDING)
    estimate = sum(parts.values()) - parts["logits"] + first
    assert estimate == pytest.approx(sum(told.values()), rel=0.05, abs=_ROUNDING)
    assert needed.total == sum(needed.parts().values())


def test_adapters_are_counted(caplog: pytest.LogCaptureFixture, trio: Trio, tmp_path: Path) -> None:
    """A context of their own over the reference, and their tensors."""
    adapter = write_adapter(tmp_path / "lora.gguf", trio.reference)
    files: Files = {"base": trio.base, "tuned": adapter, "reference": trio.reference}
    told = reported(caplog, files, {})
    needed = need_of_files(files)
    assert needed.parts()["caches"] / 2**20 == pytest.approx(told["KV"], abs=_ROUNDING)
    held = sum(model.sizes.weights for model in needed.models)
    assert held / 2**20 == pytest.approx(told["model"], abs=_ROUNDING)


def test_tensors_are_those_that_llama_cpp_counts(sets: dict[str, Files]) -> None:
    """To the byte, and layers, input and output together are all of them."""
    for files in sets.values():
        weights = Weights(files["base"])
        sizes = sizes_of(read_header(files["base"]))
        assert sizes.weights == weights.n_bytes
        assert sizes.n_ctx_train == weights.n_ctx_train
        assert sizes.n_vocab == weights.vocabulary.n_vocab
        weights.close()
