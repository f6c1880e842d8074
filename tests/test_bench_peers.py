"""Other ways to decode with the same weights: each gives the text that it should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, dequantize

import eftlocal
from eftlocal.bench.peers import run as peers
from eftlocal.bench.peers.process import Decoded, Worker
from eftlocal.bench.peers.worker import make_loop
from eftlocal.bench.shapes import find_shape, write_trio
from eftlocal.bench.subject import PLAIN
from eftlocal.bench.target import Target
from eftlocal.bench.timing import QUICK
from eftlocal.context import Block
from eftlocal.errors import BackendError, UsageError

from .cli_helpers import files, run
from .conftest import LARGE, Trio
from .gguf_models import write_gguf

PROMPT = list(range(300, 320))
N_TOKENS = 40
SIZES = {"n_ctx": 256, "threads": 1}

needs_extra = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("accelerate", "torch", "transformers")),
    reason="needs the extra bench",
)


@pytest.fixture(scope="module")
def model(trio: Trio) -> Iterator[eftlocal.FusedModel]:
    """The random trio in float32, whose caches are as exact as those of transformers."""
    with eftlocal.load(**trio._asdict(), threads=1, ctx=256, cache_type="f32") as loaded:
        yield loaded


def paths(trio: Trio) -> dict[str, str]:
    """Role -> file as the loops take it."""
    return {role: str(path) for role, path in trio._asdict().items()}


def text(model: eftlocal.FusedModel, **options: Any) -> list[int]:
    """What eftlocal continues the prompt with."""
    return list(model.complete(PROMPT, max_tokens=N_TOKENS, **{**PLAIN, **options}).tokens)


@needs_extra
def test_transformers_give_the_same_fused_logits_and_text(
    trio: Trio, model: eftlocal.FusedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights in float32 give the same text, and logits that differ by rounding alone."""
    # A file of the same name in the current folder is another one.
    write_gguf(tmp_path / trio.base.name, LARGE, seed=99)
    monkeypatch.chdir(tmp_path)
    given = {"files": paths(trio), "dtype": "float32", "n_vocab": model.n_vocab, "threads": 1}
    loop: Any = make_loop("transformers", given)
    _, tokens = loop.decode(PROMPT, N_TOKENS)
    assert tokens == text(model)

    model.engine.ensemble.forget(0)
    base, tuned, reference = (
        context.decode([Block(0, PROMPT[:16], 1)])[-1].astype(np.float64)
        for context in model.engine.ensemble.contexts
    )
    model.engine.ensemble.forget(0)
    fused = loop.fused(PROMPT[:16], loop.new_caches()).numpy()
    assert np.abs(fused - (base + tuned - reference)).max() < 0.02


@needs_extra
def test_transformers_cut_a_padded_vocabulary(padded_trio: Trio) -> None:
    """Only the ids that all models have are fused."""
    given = {"files": paths(padded_trio), "dtype": "float32", "n_vocab": 1200, "threads": 1}
    loop: Any = make_loop("transformers", given)
    with eftlocal.load(**padded_trio._asdict(), threads=1, ctx=256, cache_type="f32") as padded:
        assert loop.decode(PROMPT, N_TOKENS)[1] == text(padded)


def test_llama_objects_give_the_same_text(trio: Trio, model: eftlocal.FusedModel) -> None:
    """Three `Llama` objects as one writes it by hand, twice, since caches must be emptied."""
    loop = make_loop("llama objects", {"files": paths(trio), "n_vocab": model.n_vocab, **SIZES})
    for _ in range(2):
        assert loop.decode(PROMPT, N_TOKENS)[1] == text(model)
    assert loop.decode(PROMPT[-1:], 3)[1]


def test_the_base_alone_is_alpha_0(trio: Trio, model: eftlocal.FusedModel) -> None:
    """Greedy text of the base by llama-cpp-python's own generation."""
    loop = make_loop("base alone", {"files": paths(trio), **SIZES})
    for _ in range(2):
        assert loop.decode(PROMPT, N_TOKENS)[1] == text(model, alpha=0.0)


def test_eftlocal_in_a_process_of_its_own(trio: Trio, model: eftlocal.FusedModel) -> None:
    """The worker gives what the loop needs, the same text with and without drafting, and sizes."""
    arguments = {**paths(trio), "threads": 1, "ctx": 256, "cache_type": "f32"}
    with Worker("own", "eftlocal", {"random": True, "arguments": arguments}) as worker:
        assert worker.facts["files"] == paths(trio)
        assert worker.facts["n_vocab"] == 1200 and worker.facts["n_ctx"] == 256
        assert len(worker.facts["prompt"]) == 32
        for draft in ("off", 4, "auto"):
            decoded = worker.decode(PROMPT, N_TOKENS, draft=draft)
            assert list(decoded.tokens) == text(model)
            assert decoded.seconds > 0
    if decoded.resident_bytes is not None:
        weights = sum(tensor.n_bytes for path in trio for tensor in GGUFReader(path).tensors)
        assert decoded.peak_bytes is not None
        assert weights < decoded.resident_bytes <= decoded.peak_bytes * 1.01


def test_what_goes_wrong_in_a_worker_is_one_line(trio: Trio) -> None:
    """While loading, while decoding, and where the process dies; then nothing is left running."""
    missing = {"random": True, "arguments": {**paths(trio), "base": "no.gguf"}}
    with pytest.raises(BackendError, match=r"own: ModelFileError: .*no\.gguf"):
        Worker("own", "eftlocal", missing)
    with Worker("alone", "base alone", {"files": paths(trio), **SIZES}) as worker:
        with pytest.raises(BackendError, match="alone: "):
            worker.decode(PROMPT, 3, wrong=1)
        with pytest.raises(BackendError, match="alone: its process ended with 0"):
            worker.decode(PROMPT, 3)
    with Worker("alone", "base alone", {"files": paths(trio), **SIZES}) as worker:
        worker._process.kill()
        with pytest.raises(BackendError, match="ended by signal 9; is there enough memory"):
            worker.decode(PROMPT, 3)
    assert worker._process.returncode is not None


def test_adapters_and_several_experts_are_refused(tmp_path: Path, trio: Trio) -> None:
    """Only whole models, one of each role, have a loop to compare with."""
    with pytest.raises(UsageError, match="whole base, tuned and reference"):
        peers._check_files({**paths(trio), "more tuned": "x.gguf"})
    peers._check_files(paths(trio))


def test_what_does_not_fit_is_left_out(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 takes four bytes per weight; others are compared without it, and a note says why."""
    monkeypatch.setattr(peers, "check_packages", lambda: None)
    monkeypatch.setattr(peers, "version", lambda _: "1")
    n_weights = sum(int(tensor.n_elements) for path in trio for tensor in GGUFReader(path).tensors)
    monkeypatch.setattr(peers, "_free_bytes", lambda: 4 * n_weights - 1)
    target = Target("random", {**paths(trio), "threads": 1, "ctx": 256}, {}, random=True)
    found = peers.compare(target, replace(QUICK, rounds=1))
    assert set(found.left_out) == {peers.TRANSFORMERS_BF16, peers.TRANSFORMERS_F32}
    assert "needs 0.0 GiB of memory" in found.left_out[peers.TRANSFORMERS_F32]
    assert {peers.EFTLOCAL, peers.LLAMA_OBJECTS, peers.BASE_ALONE} <= set(found.peers)
    (table,) = peers.report(found).tables["peers"]
    assert sum("Left out: proxy-tuning loop" in note for note in table.notes) == 2


def test_ratios_are_those_of_the_rounds() -> None:
    """The median of each round's quotient; memory shares are eftlocal's over the row's."""
    seen = {peers.EFTLOCAL: (1.0, 2.0, 4.0), peers.LLAMA_OBJECTS: (2.0, 6.0, 4.0)}
    last = {
        peers.EFTLOCAL: Decoded(1.0, (), 2**21, 2**22),
        peers.LLAMA_OBJECTS: Decoded(1.0, (), 2**23, None),
    }
    peer = peers._peer(peers.LLAMA_OBJECTS, seen, last)
    assert (peer.tokens_per_second, peer.eftlocal_times_faster) == (1 / 4, 2)
    assert (peer.resident_mib, peer.peak_mib, peer.eftlocal_memory_share) == (8, None, 0.25)
    assert peer.eftlocal_bf16_times_faster is peer.eftlocal_bf16_memory_share is None


def test_without_the_extra_there_is_a_hint(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install, before anything is loaded."""
    monkeypatch.setattr(peers, "_PACKAGES", ("no_such_package",))
    result = run("bench", "peers", *files(trio))
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "needs more packages: pip install 'eftlocal[bench]'" in result.stderr


def test_the_columns_are_the_fields() -> None:
    """Every number of a kind is in the table under its own name."""
    assert [column.key for column in peers._COLUMNS] == [item.name for item in fields(peers.Peer)]


@needs_extra
def test_all_kinds_are_compared() -> None:
    """A shape is measured with all of them; each row's ratios are those of its own numbers."""
    args = ("--shape", "large=256x2,small=256x1,vocab=1000", "--quick", "--json", "--ctx", "256")
    result = run("bench", "peers", *args, env={"EFTLOCAL_THREADS": "1"})
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    (table,) = content["sections"]["peers"]
    rows = {row["kind"]: row for row in table["rows"]}
    assert list(rows) == [
        peers.EFTLOCAL,
        peers.EFTLOCAL_AUTO,
        peers.EFTLOCAL_BF16,
        peers.TRANSFORMERS_BF16,
        peers.TRANSFORMERS_F32,
        peers.LLAMA_OBJECTS,
        peers.BASE_ALONE,
    ]
    assert rows[peers.EFTLOCAL]["eftlocal_times_faster"] == 1
    assert rows[peers.EFTLOCAL_BF16]["eftlocal_bf16_times_faster"] == 1
    own = rows[peers.EFTLOCAL]["resident_mib"]
    for row in rows.values():
        assert row["tokens_per_second"] > 0
        if own is not None:
            assert row["eftlocal_memory_share"] == pytest.approx(own / row["resident_mib"])
    assert content["facts"]["threads"] == "1" and content["facts"]["context"] == "256 tokens"


def test_bf16_files_hold_the_same_weights(tmp_path: Path, trio: Trio) -> None:
    """BF16 rounds the weights of F32 to 8 bits, and llama.cpp's log-probabilities hardly change."""
    path = write_gguf(tmp_path / "bf16.gguf", replace(LARGE, quantization="BF16"), seed=1)
    exact, rounded = ({t.name: t for t in GGUFReader(file).tensors} for file in (trio.base, path))
    for name, tensor in exact.items():
        weights = dequantize(tensor.data, tensor.tensor_type)
        found = dequantize(rounded[name].data, rounded[name].tensor_type)
        assert np.all(np.abs(found - weights) <= 2.0**-8 * np.abs(weights))
    assert {t.tensor_type.name for t in rounded.values()} == {"BF16", "F32"}
    texts = {}
    for file in (trio.base, path):
        one = trio._replace(base=file)
        with eftlocal.load(**one._asdict(), threads=1, ctx=256, cache_type="f32") as loaded:
            context = loaded.engine.ensemble.contexts[0]
            rows = context.decode([Block(0, PROMPT[:16], 16)]).astype(np.float64)
            texts[file] = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    error = np.abs(texts[path] - texts[trio.base])
    assert 0 < error.max() < 0.15 and error.mean() < 0.03


def test_a_shape_can_be_written_as_bf16(tmp_path: Path) -> None:
    """All three files have the matrices that were asked for."""
    shape = find_shape("large=256x1,small=256x1,vocab=1000")
    for path in write_trio(tmp_path, shape, "BF16", "BF16").values():
        kinds = {t.tensor_type.name for t in GGUFReader(path).tensors if len(t.shape) == 2}
        assert kinds == {"BF16"}
