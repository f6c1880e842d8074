"""Weights, vocabularies and contexts of llama.cpp, on random GGUFs."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from eftlocal.context import Block
from eftlocal.errors import BackendError, ContextFull, ModelFileError, UsageError
from eftlocal.llama import ContextSettings, LlamaContext, Weights
from eftlocal.llama.library import lib, set_fields

from .conftest import N_PADDING, N_VOCAB, Trio
from .gguf_models import BOS, END, EOS, ModelShape, write_gguf

PROMPT = [BOS, *range(300, 340)]


@pytest.fixture(scope="module")
def weights(trio: Trio) -> Iterator[Weights]:
    """The base of the trio."""
    loaded = Weights(trio.base)
    yield loaded
    loaded.close()


def make(weights: Weights, n_sequences: int = 1, batch: int = 64, n_ctx: int = 256) -> LlamaContext:
    """A context on one thread, with the kernels that round least."""
    return LlamaContext(
        weights,
        ContextSettings(
            n_ctx=n_ctx,
            n_rows=16,
            n_sequences=n_sequences,
            batch=batch,
            flash_attention="off",
            cache_type="f32",
        ),
    )


def test_rows_do_not_depend_on_how_the_tokens_came(weights: Weights) -> None:
    """One batch, single steps, and a rewound detour give the same rows."""
    whole, single, detour = make(weights), make(weights), make(weights)
    rows = whole.decode([Block(0, PROMPT, 5)]).copy()
    steps = [single.decode([Block(0, [token], 1)])[0].copy() for token in PROMPT]
    detour.decode([Block(0, [*PROMPT[:20], 400, 401, 402], 0)])
    detour.rewind(0, 3)
    np.testing.assert_allclose(rows, steps[-5:], atol=1e-3)
    np.testing.assert_allclose(detour.decode([Block(0, PROMPT[20:], 5)]), rows, atol=1e-3)
    assert whole.tokens(0) == single.tokens(0) == detour.tokens(0) == PROMPT


@pytest.mark.parametrize("quantization", ["F16", "Q8_0", "Q4_0"])
def test_quantised_weights_decode_blocks(tmp_path: Path, quantization: str) -> None:
    """Whatever kernels llama.cpp has for this CPU, a batch and single steps agree."""
    shape = ModelShape(n_vocab=N_VOCAB, quantization=quantization)
    loaded = Weights(write_gguf(tmp_path / "model.gguf", shape))
    whole, single = make(loaded), make(loaded)
    rows = whole.decode([Block(0, PROMPT, 5)]).copy()
    steps = [single.decode([Block(0, [token], 1)])[0].copy() for token in PROMPT]
    np.testing.assert_allclose(rows, steps[-5:], atol=0.2)
    loaded.close()


def test_sequences_are_independent(weights: Weights) -> None:
    """Blocks of two sequences in one batch give the rows of each alone, in block order."""
    both, alone = make(weights, n_sequences=2), make(weights)
    other = list(range(500, 530))
    rows = both.decode([Block(1, other, 2), Block(0, PROMPT[:30], 1)]).copy()
    first = alone.decode([Block(0, other, 2)]).copy()
    np.testing.assert_allclose(rows[:2], first, atol=1e-3)
    alone.rewind(0, len(other))
    np.testing.assert_allclose(rows[2:], alone.decode([Block(0, PROMPT[:30], 1)]), atol=1e-3)
    assert both.tokens(1) == other


@pytest.mark.parametrize(
    ("blocks", "error"),
    [
        ([Block(0, [300] * 65, 1)], BackendError),
        ([Block(0, [300] * 20, 17)], BackendError),
        ([Block(0, [], 0)], BackendError),
        ([Block(0, [300] * 60, 0)] * 5, BackendError),
    ],
    ids=["batch too long", "too many rows", "nothing", "batches together too long"],
)
def test_sizes_are_checked_before_c_can_abort(
    weights: Weights, blocks: list[Block], error: type[Exception]
) -> None:
    """What llama.cpp answers with an abort is one of our errors, and the context stays usable."""
    context = make(weights)
    with pytest.raises(error):
        context.decode(blocks)
    assert context.tokens(0) == []
    assert context.decode([Block(0, PROMPT, 1)]).shape == (1, N_VOCAB)


def test_a_full_context_refuses_and_keeps_what_it_has(weights: Weights) -> None:
    """A block that does not fit any more raises ContextFull and changes nothing."""
    context = make(weights, n_ctx=256)
    for _ in range(4):
        context.decode([Block(0, [300] * 60, 0)])
    with pytest.raises(ContextFull, match="256"):
        context.decode([Block(0, [300] * 17, 1)])
    assert len(context.tokens(0)) == 240
    context.decode([Block(0, [300] * 16, 1)])


def test_an_interrupted_decode_is_undone(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an exception right behind llama_decode the cache holds what `tokens` says."""
    context, fresh = make(weights), make(weights)
    context.decode([Block(0, PROMPT[:20], 0)])
    with monkeypatch.context() as patch:
        decode = lib.llama_decode

        def interrupted(*args: object) -> int:
            decode(*args)
            raise KeyboardInterrupt

        patch.setattr(lib, "llama_decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            context.decode([Block(0, [600] * 9, 1)])
    rows = context.decode([Block(0, PROMPT[20:], 1)]).copy()
    np.testing.assert_allclose(rows, fresh.decode([Block(0, PROMPT, 1)]), atol=1e-3)


def test_two_contexts_share_one_set_of_weights(weights: Weights) -> None:
    """Each has its own cache."""
    one, two = make(weights), make(weights)
    one.decode([Block(0, PROMPT, 0)])
    assert two.tokens(0) == []
    two.decode([Block(0, PROMPT[:3], 1)])
    one.close()
    assert np.isfinite(two.decode([Block(0, PROMPT[3:], 1)])).all()


def test_vocabulary(padded_trio: Trio) -> None:
    """Padding does not count as tokens; markers, end tokens and text are told apart."""
    weights = Weights(padded_trio.base)
    vocabulary = weights.vocabulary
    assert (vocabulary.n_tokens, vocabulary.n_vocab) == (N_VOCAB, N_VOCAB + N_PADDING)
    assert {END, EOS} <= vocabulary.eog
    assert vocabulary.is_control(END)
    assert not vocabulary.is_control(300)
    text = "Grüße, 世界 🦊!"
    ids = vocabulary.tokenize(text, add_special=True, parse_special=False)
    assert ids[0] == BOS == vocabulary.bos
    assert b"".join(vocabulary.piece(i) for i in ids).decode().lstrip() == text
    assert vocabulary.piece(END) == b""
    assert vocabulary.piece(END, special=True) == b"<|end|>"
    with pytest.raises(UsageError, match=str(N_VOCAB)):
        vocabulary.piece(N_VOCAB)
    weights.close()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_truncated_files_are_named(trio: Trio, tmp_path: Path, share: float) -> None:
    """Every truncation is one line with the file's name."""
    data = trio.base.read_bytes()
    file = tmp_path / "cut.gguf"
    file.write_bytes(data[: max(4, int(len(data) * share))])
    with pytest.raises(ModelFileError, match=r"cut\.gguf: [^\n]+$"):
        Weights(file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"GGU"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is not a GGUF never reaches llama.cpp."""
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ModelFileError, match="not a GGUF"):
        Weights(tmp_path / "model.gguf")
    with pytest.raises(ModelFileError, match="no such file"):
        Weights(tmp_path / "missing.gguf")
    with pytest.raises(ModelFileError, match="not a file"):
        Weights(tmp_path)


def test_loading_reports_progress_and_can_be_aborted(trio: Trio) -> None:
    """An exception in the progress callback ends the load and comes out of it."""
    seen: list[float] = []
    Weights(trio.base, progress=seen.append).close()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    def interrupt(value: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Weights(trio.base, progress=interrupt)


def test_unknown_struct_fields_are_an_error() -> None:
    """A field that this llama-cpp-python lacks is named, with the version."""

    class Params(ctypes.Structure):
        _fields_ = (("n_ctx", ctypes.c_uint32),)

    params = Params()
    set_fields(params, n_ctx=5)
    assert params.n_ctx == 5
    with pytest.raises(BackendError, match=r"llama-cpp-python \S+ has no Params\.n_context"):
        set_fields(params, n_context=5)


@pytest.mark.parametrize("ending", ["", "raise KeyboardInterrupt", "import sys; sys.exit(3)"])
def test_everything_is_freed_at_exit(trio: Trio, ending: str) -> None:
    """A process that closes nothing ends without a crash, also after Ctrl-C."""
    code = (
        "from pathlib import Path; from eftlocal.llama import *\n"
        f"w = Weights(Path({str(trio.base)!r}))\n"
        "c = [LlamaContext(w, ContextSettings(n_ctx=256, n_rows=4)) for _ in range(2)]\n" + ending
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode in (0, 3, 130, -2), done.stderr
    assert b"Segmentation" not in done.stderr
    assert b"Aborted" not in done.stderr
