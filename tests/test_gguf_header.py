"""Headers of GGUF files: what is read equals what the gguf package and ggml read."""

from __future__ import annotations

import ctypes
import io
import random
import re
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st

from eftlocal.errors import ModelFileError
from eftlocal.gguf import TENSOR_TYPES, VOCABULARY_KEYS, Header, read_header, read_model, real_path
from eftlocal.gguf.header import TOKENS
from eftlocal.gguf.reader import MOST_STRINGS
from eftlocal.llama.library import function

from . import gguf_bytes
from .conftest import Trio

ATLAS = Path(__file__).resolve().parents[1] / "eftlocal" / "families" / "atlas"
N_MUTANTS = 1000


def read(data: bytes, *keep: str) -> Header:
    """The header of a file in memory."""
    return read_header(io.BytesIO(data), "x.gguf", keep)


@pytest.mark.parametrize("name", ["base", "tuned", "large.gguf"])
def test_a_header_is_what_the_gguf_package_reads(trio: Trio, name: str) -> None:
    """Keys, values, texts of tokens, tensors and their sizes."""
    path = ATLAS / name if name.endswith("gguf") else getattr(trio, name)
    header = read_header(path, keep=read_header(path).lists)
    other = GGUFReader(path)
    fields = {key: field for key, field in other.fields.items() if not key.startswith("GGUF.")}
    assert list(header.metadata) == list(fields)
    for key, field in fields.items():
        expected: Any = field.contents()
        found: Any = header.metadata[key].value
        if isinstance(expected, list):
            assert header.lists[key].length == len(expected)
            encoded = [x.encode() if isinstance(x, str) else x for x in expected]
            assert list(found) == encoded, key
        else:
            assert found == expected, key
    assert [
        (t.name, list(t.shape), t.type, t.n_bytes) for t in header.tensors
    ] == [
        (t.name, [int(n) for n in t.shape], t.tensor_type.name, int(t.n_bytes))
        for t in other.tensors
    ]  # fmt: skip
    assert header.n_bytes == path.stat().st_size


def test_the_types_of_tensors_are_those_of_ggml() -> None:
    """Names, block lengths and bytes; what ggml does not know (length 0) is not in the table."""
    size = function("ggml_type_size", ctypes.c_size_t, ctypes.c_int)
    block = function("ggml_blck_size", ctypes.c_int64, ctypes.c_int)
    name = function("ggml_type_name", ctypes.c_char_p, ctypes.c_int)
    for kind, (own, length, n_bytes) in TENSOR_TYPES.items():
        assert (block(kind), size(kind)) == (length, n_bytes), own
        assert name(kind).decode().lower() == own.lower()
    assert not [kind for kind in range(41) if block(kind) and kind not in TENSOR_TYPES]


TEXTS = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.binary(min_size=250, max_size=600),
        st.sampled_from([b"", b"\0" * 9, b"\1" + bytes(7), b"a" * 255, b"a" * 256]),
    ),
    max_size=200,
)


@given(texts=TEXTS, repeat=st.sampled_from([1, 1, 50, 400]))
def test_texts_of_every_kind_are_found(texts: list[bytes], repeat: int) -> None:
    """Empty and long ones, such as look like lengths, and lists beyond one block of reading."""
    texts = (texts * repeat)[:40_000]
    pairs = {TOKENS.encode(): gguf_bytes.strings(texts), b"after": gguf_bytes.number(4, 77)}
    header = read(gguf_bytes.header(pairs), TOKENS)
    assert header.metadata[TOKENS].value == texts
    assert header.metadata["after"].value == 77
    skipped = read(gguf_bytes.header(pairs))
    assert skipped.metadata[TOKENS].value is None
    assert (skipped.n_tokens, skipped.metadata["after"].value) == (len(texts), 77)


class Counting(io.BytesIO):
    """A file that counts what is read of it."""

    n_read = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read and count."""
        found = super().read(size)
        self.n_read += len(found)
        return found


def test_only_the_header_is_read() -> None:
    """Neither the tensors' data nor long lists that nobody asks for."""
    metadata = {
        b"general.architecture": gguf_bytes.string(b"llama"),
        b"scores": gguf_bytes.numbers(6, [1.5] * 1_000_000),
    }
    lines = [gguf_bytes.tensor(b"output.weight", [1024, 1024], 0, 0)]
    file = Counting(gguf_bytes.header(metadata, lines, 4 * 1024 * 1024))
    assert read_header(file).tensors[0].n_bytes == 4 * 1024 * 1024
    assert file.n_read < 1 << 21


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a GGUF file"),
        (b"GGU", "not a GGUF file"),
        (b"PK\3\4 a zip", "not a GGUF file"),
        (b"GGUF", "the file ends in its first bytes"),
        (gguf_bytes.header(version=1), "version 1"),
        (b"GGUF" + b"\0\0\0\3" + bytes(32), "big-endian"),
        (b"GGUF\3\0\0\0" + b"\xff" * 16, "damaged: it says that it has"),
        (b"GGUF\3\0\0\0" + b"\0\1" + bytes(14), "the file ends before its 256 tensors"),
        (gguf_bytes.header({b"k": b"\x0d\0\0\0"}), "type that GGUF does not know"),
        (gguf_bytes.header({b"k": b"\x09\0\0\0\x09\0\0\0" + bytes(8)}), "a list of a type"),
        (gguf_bytes.header({b"": gguf_bytes.number(4, 1)}), "empty or too long"),
        (gguf_bytes.header([(b"k", gguf_bytes.number(4, 1))] * 2), "'k' twice"),
        (gguf_bytes.header({b"general.alignment": gguf_bytes.number(4, 24)}), "power of two"),
        (gguf_bytes.header(tensors=[gguf_bytes.tensor(b"t", [8], 4, 0)]), "unknown type"),
        (gguf_bytes.header(tensors=[gguf_bytes.tensor(b"t", [8], 2, 0)]), "the shape"),
        (gguf_bytes.header(tensors=[gguf_bytes.tensor(b"t", [0], 0, 0)]), "the shape"),
        (gguf_bytes.header(tensors=[gguf_bytes.tensor(b"t", [1 << 40] * 4, 0, 0)]), "the shape"),
        (gguf_bytes.header(tensors=[gguf_bytes.tensor(b"t", [1] * 5, 0, 0)]), "5 dimensions"),
        (gguf_bytes.header(tensors=[gguf_bytes.tensor(b"t", [8], 0, 32)]), "where none can lie"),
        (gguf_bytes.header(tensors=[gguf_bytes.tensor(b"t" * 64, [8], 0, 0)]), "too long"),
        (
            gguf_bytes.header(tensors=[gguf_bytes.tensor(b"t", [8], 0, 0)], data=31),
            "its last 1 bytes are missing",
        ),
        (
            gguf_bytes.header(
                tensors=[gguf_bytes.tensor(b"t", [8], 0, i) for i in (0, 32)], data=64
            ),
            "the tensor 't' twice",
        ),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    """One line with the file's name and what is wrong."""
    with pytest.raises(ModelFileError, match=rf"^x\.gguf: [^\n]*{message}[^\n]*$"):
        read(data)


def test_absurd_lists_are_not_walked() -> None:
    """A list of more strings than any vocabulary is refused at once, and so is a longer file's."""
    count = (MOST_STRINGS + 1).to_bytes(8, "little")
    data = gguf_bytes.header({b"k": b"\x09\0\0\0\x08\0\0\0" + count + bytes(8 * MOST_STRINGS + 99)})
    with pytest.raises(ModelFileError, match="more than any vocabulary"):
        read(data)


def mutants(data: bytes, n_header: int, count: int, seed: int) -> list[bytes]:
    """Copies of a file, each damaged in one way somewhere before `n_header`."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        content = bytearray(data)
        way = draw.randrange(4)
        place = draw.randrange(n_header)
        if way == 0:
            content = content[: draw.randrange(len(content))]
        elif way == 1:
            content[place] ^= 1 << draw.randrange(8)
        elif way == 2:
            size = draw.choice([1, 4, 8])
            content[place : place + size] = draw.randbytes(size)
        else:
            start = draw.randrange(n_header)
            piece = content[start : start + draw.randrange(1, 64)]
            content[place : place + draw.randrange(64)] = piece
        made.append(bytes(content))
    return made


def header_length(path: Path) -> int:
    """Bytes before the tensors' data."""
    return int(GGUFReader(path).data_offset)


def test_mutants_give_one_line_each(trio: Trio) -> None:
    """A damaged header is read, or refused in one line; nothing else happens."""
    data = trio.tuned.read_bytes()
    lines = []
    for mutant in mutants(data, header_length(trio.tuned), N_MUTANTS, seed=1):
        try:
            read(mutant, *VOCABULARY_KEYS)
        except ModelFileError as error:
            lines.append(str(error))
    assert len(lines) > N_MUTANTS // 4
    assert all(re.fullmatch(r"x\.gguf: [^\n]{5,300}", line) for line in lines)


def test_truncations_are_all_refused(trio: Trio) -> None:
    """No part of a file passes for the whole."""
    data = trio.tuned.read_bytes()
    draw = random.Random(2)
    for length in [draw.randrange(len(data)) for _ in range(200)]:
        with pytest.raises(ModelFileError):
            read(data[:length])


def test_links_are_followed_but_shards_keep_their_names(tmp_path: Path) -> None:
    """Shards as the hub's cache has them: links in one folder to files with other names."""
    blobs, links = tmp_path / "blobs", tmp_path / "links"
    blobs.mkdir()
    links.mkdir()
    for i in range(3):
        gguf_bytes.shard(blobs / f"hash{i}", i, 3)
        (links / f"m-0000{i + 1}-of-00003.gguf").symlink_to(blobs / f"hash{i}")
    (links / "alone.gguf").symlink_to(blobs / "hash0")
    (tmp_path / "again").symlink_to(links)
    assert real_path(links / "alone.gguf") == blobs.resolve() / "hash0"
    first = real_path(tmp_path / "again" / "m-00001-of-00003.gguf")
    assert first == links.resolve() / "m-00001-of-00003.gguf"
    assert len(read_model(first).tensors) == 3


def test_shards_are_read_together(tmp_path: Path) -> None:
    """The first one stands for all; a missing one, or another than the first, is named."""
    names = [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for i, name in enumerate(names):
        gguf_bytes.shard(tmp_path / name, i, 3)
    header = read_model(tmp_path / names[0])
    assert [tensor.name for tensor in header.tensors] == [f"blk.{i}.x.weight" for i in range(3)]
    assert header.n_bytes == sum((tmp_path / name).stat().st_size for name in names)
    with pytest.raises(ModelFileError, match=rf"not the first shard; use {names[0]}"):
        read_model(tmp_path / names[1])
    (tmp_path / names[2]).unlink()
    with pytest.raises(ModelFileError, match=rf"the shard {names[2]} is missing"):
        read_model(tmp_path / names[0])
    (tmp_path / names[0]).rename(tmp_path / "m.gguf")
    with pytest.raises(ModelFileError, match="one of 3 shards, but not called"):
        read_model(tmp_path / "m.gguf")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    """Missing files, folders, and streams that fail."""
    with pytest.raises(ModelFileError, match="no such file"):
        read_header(tmp_path / "a.gguf")
    with pytest.raises(ModelFileError, match="not a file"):
        read_header(tmp_path)

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(ModelFileError, match=r"^b: cannot be read \(Input/output error\)$"):
        read_header(Broken(bytes(99)), "b")
