"""Headers that are well formed but cannot be right, and files that llama.cpp dies of."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from eftlocal.errors import ModelFileError
from eftlocal.gguf import TOKENS, check_sane, is_usual, read_header
from eftlocal.llama import Weights
from eftlocal.llama import probe as probing
from eftlocal.llama.probe import probe
from eftlocal.memory import sizes_of

from . import gguf_bytes
from .conftest import N_VOCAB, SMALL, Trio
from .gguf_models import vocabulary, write_gguf
from .test_gguf_header import ATLAS, N_MUTANTS, header_length, mutants, read

LLAMA = {b"general.architecture": gguf_bytes.string(b"llama")}
MODEL = {b"tokenizer.ggml.model": gguf_bytes.string(b"llama")}
BYTES = [b"<0x%02X>" % byte for byte in range(256)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for what is remembered, and nothing remembered yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(probing, "_good", set())
    return tmp_path / "cache" / "eftlocal" / "probed.json"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({b"tokenizer.ggml.tokens": gguf_bytes.number(4, 1)}, "tokens has the wrong type"),
        ({b"tokenizer.ggml.merges": gguf_bytes.numbers(4, [1])}, "merges has the wrong type"),
        (
            {
                b"tokenizer.ggml.tokens": gguf_bytes.strings([b"a", b"b"]),
                b"tokenizer.ggml.scores": gguf_bytes.numbers(6, [1.0]),
            },
            "scores has 1 values for 2 tokens",
        ),
        (
            {b"llama.attention.layer_norm_rms_epsilon": gguf_bytes.number(6, float("nan"))},
            "epsilon is nan",
        ),
        ({b"llama.block_count": gguf_bytes.number(4, 10_000)}, "block_count is 10000"),
        ({b"llama.context_length": gguf_bytes.number(4, 0)}, "context_length is 0"),
        ({b"llama.expert_count": gguf_bytes.number(4, 9999)}, "expert_count 9999"),
        (
            {
                b"llama.attention.head_count": gguf_bytes.number(4, 6),
                b"llama.attention.head_count_kv": gguf_bytes.number(4, 4),
            },
            "layer 0 has 6 heads and 4 of keys",
        ),
        ({b"tokenizer.ggml.tokens": gguf_bytes.strings([b"a", b"", b"", b"a"])}, "tokens are 'a'"),
        (
            {**MODEL, b"tokenizer.ggml.tokens": gguf_bytes.strings(BYTES[:-1])},
            "no token for the byte 255",
        ),
    ],
)
def test_what_cannot_be_right_is_named(pairs: dict[bytes, bytes], message: str) -> None:
    """One line with the key."""
    header = read(gguf_bytes.header(LLAMA | pairs), TOKENS)
    with pytest.raises(ModelFileError, match=rf"^x\.gguf: damaged: [^\n]*{message}[^\n]*$"):
        check_sane(header)


def test_good_headers_are_sane_and_usual(trio: Trio) -> None:
    """Those of the tests and the embedded ones; so no child process is started for them."""
    for path in (*trio, *ATLAS.glob("*.gguf")):
        header = read_header(path, keep=[TOKENS])
        check_sane(header)
        assert is_usual(header), path
    check_sane(
        read(gguf_bytes.header(LLAMA | MODEL | {TOKENS.encode(): gguf_bytes.strings(BYTES)}))
    )


def test_recurrent_models_are_sane_and_their_state_is_counted() -> None:
    """They state no heads, keep a state instead of keys, and are tried in a child process."""
    pairs = {
        b"general.architecture": gguf_bytes.string(b"mamba"),
        b"mamba.block_count": gguf_bytes.number(4, 2),
        b"mamba.embedding_length": gguf_bytes.number(4, 32),
        b"mamba.attention.head_count": gguf_bytes.number(4, 0),
        b"mamba.ssm.inner_size": gguf_bytes.number(4, 64),
        b"mamba.ssm.state_size": gguf_bytes.number(4, 16),
        b"mamba.ssm.conv_kernel": gguf_bytes.number(4, 4),
    }
    lines = [gguf_bytes.tensor(f"blk.{i}.ssm_in.weight".encode(), [32], 0, 128 * i) for i in (0, 1)]
    header = read(gguf_bytes.header(pairs, lines, 256))
    check_sane(header)
    assert not is_usual(header)
    sizes = sizes_of(header)
    assert sizes.cached_keys == sizes.cached_values == (0, 0)
    assert sizes.state == (4 * (3 * 64 + 64 * 16),) * 2


def unusual(path: Path, source: Path) -> Path:
    """A copy of a model that also says that its attention has a window; it loads all the same."""
    added = gguf_bytes.text(b"llama.attention.sliding_window") + gguf_bytes.number(4, 0xFFFF)
    # Bytes are added in multiples of the alignment, so that the tensors stay where they are.
    key = b"x" * ((-len(added) - 24) % 32 + 4)
    added += gguf_bytes.text(key) + gguf_bytes.number(10, 0)
    assert len(added) % 32 == 0
    data = source.read_bytes()
    (n_keys,) = struct.unpack_from("<Q", data, 16)
    path.write_bytes(data[:16] + struct.pack("<Q", n_keys + 2) + added + data[24:])
    return path


def test_unusual_files_are_tried_once(trio: Trio, tmp_path: Path, own_cache: Path) -> None:
    """What is known to be good is remembered beyond the process, by size and time."""
    file = unusual(tmp_path / "m.gguf", trio.tuned)
    assert not is_usual(read_header(file))
    Weights(file).close()
    (key,) = json.loads(own_cache.read_text())
    assert str(file) in key
    probing._good.clear()
    own_cache.write_text(json.dumps([key, "other"]))
    Weights(file).close()
    assert json.loads(own_cache.read_text()) == [key, "other"]
    file.touch()
    Weights(file).close()
    assert len(json.loads(own_cache.read_text())) == 3


@pytest.mark.parametrize("content", ["", "[1, 2]", "{}", "\0"])
def test_a_damaged_memory_is_no_error(trio: Trio, own_cache: Path, content: str) -> None:
    """It is written anew."""
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text(content)
    probe(trio.tuned)
    assert str(trio.tuned) in json.loads(own_cache.read_text())[-1]


def test_files_that_end_llama_cpp_are_a_message(tmp_path: Path, own_cache: Path) -> None:
    """The child dies, this process does not, and the file is not remembered."""
    tokens = list(vocabulary(N_VOCAB))
    tokens[900] = tokens[700]
    file = write_gguf(tmp_path / "twice.gguf", SMALL, tokens=tokens)
    with pytest.raises(ModelFileError, match=r"^\S+twice\.gguf: llama\.cpp crashes on this file"):
        probe(file)
    assert not own_cache.exists()
    with pytest.raises(ModelFileError, match=r"twice\.gguf: damaged: two tokens are '"):
        Weights(file)


def test_files_that_llama_cpp_refuses_are_its_own_line(trio: Trio, tmp_path: Path) -> None:
    """The child says why."""
    data = trio.tuned.read_bytes().replace(b"llama.block_count", b"llama.block_coun_")
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"m\.gguf: llama\.cpp cannot load .*block_count"):
        probe(tmp_path / "m.gguf")


def test_a_child_that_hangs_is_ended(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that it has."""
    monkeypatch.setattr(probing, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(probing, "_CHILD", "import time; time.sleep(60)")
    with pytest.raises(ModelFileError, match="did not read its header within"):
        probe(trio.tuned)


def test_mutants_are_loaded_or_refused(trio: Trio, tmp_path: Path) -> None:
    """Damage that the header's checks let pass never ends this process."""
    data = trio.tuned.read_bytes()
    file = tmp_path / "m.gguf"
    loaded = 0
    for mutant in mutants(data, header_length(trio.tuned), N_MUTANTS // 10, seed=3):
        file.write_bytes(mutant)
        try:
            Weights(file).close()
            loaded += 1
        except ModelFileError as error:
            line = str(error)
            assert line.startswith(f"{file}: ") and "\n" not in line
    assert loaded
