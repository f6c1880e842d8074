"""Files on the hub that are read in part, without a download."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from eftlocal import hub
from eftlocal.compatibility import check_vocabularies
from eftlocal.errors import HubError, VocabularyMismatch
from eftlocal.gguf import VOCABULARY_KEYS, read_header
from eftlocal.registry import Source

from .conftest import SMALL, Trio
from .gguf_models import ModelShape, write_gguf
from .hub_client import hub_at
from .hub_data import Fault
from .hub_server import HubServer

DATA = random.Random(5).randbytes(5_000_000)
SOURCE = Source(hf="a/b", file="x.Q8_0.gguf")


@pytest.fixture
def server() -> Iterator[HubServer]:
    """A stand-in with one file of some megabytes."""
    with HubServer() as running:
        running.add("a/b", {"x.Q8_0.gguf": DATA})
        yield running


@pytest.fixture
def cache(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own."""
    with hub_at(server, tmp_path / "home", monkeypatch) as folder:
        yield folder


def test_it_reads_as_a_file_does(server: HubServer, cache: Path) -> None:
    """Any place, any order, the end; only what is asked for comes."""
    with hub.open_remote(SOURCE) as file:
        assert file.read(10) == DATA[:10]
        assert file.seek(0, 2) == len(DATA) and file.read(1) == b""
        assert file.seek(3_000_000) == file.tell() == 3_000_000
        assert file.read(100) == DATA[3_000_000:3_000_100]
        assert file.seek(-5, 2) == len(DATA) - 5 and file.read() == DATA[-5:]
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
    assert server.sent() <= 2 * (1 << 20) + 5
    assert not cache.exists()
    with hub.open_remote(Source(hf="a/b", quant="q8_0")) as file:
        assert file.read() == DATA


def test_what_is_here_is_not_asked_for(server: HubServer, cache: Path, tmp_path: Path) -> None:
    """Paths, downloaded files, and the first part of those that are on their way."""
    own = tmp_path / "x.gguf"
    own.write_bytes(b"own")
    with hub.open_remote(Source(path=own)) as file:
        assert file.read() == b"own"
    server.faults.append(Fault("storage", cut_after=2_000_000, times=1))
    with pytest.raises(HubError):
        hub.download([SOURCE], patience=hub.Patience(retries=0))
    sent = server.sent()
    with hub.open_remote(SOURCE) as file:
        assert file.read(1000) == DATA[:1000]
        assert server.sent() == sent
        assert file.read() == DATA[1000:]
    hub.download([SOURCE])
    asked = len(server.seen)
    with hub.open_remote(SOURCE) as file:
        assert file.read() == DATA
    assert len(server.seen) == asked


def test_reading_over_a_bad_line(server: HubServer, cache: Path) -> None:
    """Cuts are gone over; what is no passing trouble is one line."""
    server.faults.append(Fault("storage", cut_after=300_000, times=2))
    with hub.open_remote(SOURCE) as file:
        assert file.read(1_000_000) == DATA[:1_000_000]
    server.faults.append(Fault("storage", 500))
    with hub.open_remote(SOURCE) as file, pytest.raises(HubError, match="has a problem"):
        file.read(10)
    server.ranges = False
    server.faults.clear()
    with hub.open_remote(SOURCE) as file:
        file.seek(4_000_000)
        assert file.read(10) == DATA[4_000_000:4_000_010]


def published(server: HubServer, name: str, path: Path) -> Source:
    """A GGUF as a repository of its own."""
    server.add(name, {"m.Q8_0.gguf": path.read_bytes()})
    return Source(hf=name, quant="Q8_0")


def test_vocabularies_are_compared_before_a_download(
    server: HubServer, cache: Path, trio: Trio, tmp_path: Path
) -> None:
    """Headers alone are read; the first token that differs is named."""
    sources = [published(server, f"a/{role}", path) for role, path in trio._asdict().items()]
    check_vocabularies(sources)
    check_vocabularies([sources[0], Source(path=trio.tuned)])
    with hub.open_remote(sources[0]) as file:
        header = read_header(file, "x", VOCABULARY_KEYS)
    assert header.metadata == read_header(trio.base, keep=VOCABULARY_KEYS).metadata
    other = ModelShape(n_vocab=SMALL.n_vocab + 7, width=64, layers=1, ffn=64)
    odd = published(server, "a/odd", write_gguf(tmp_path / "odd.gguf", other, seed=9))
    with pytest.raises(VocabularyMismatch, match=f"token {SMALL.n_vocab}"):
        check_vocabularies([*sources, odd])
    assert not cache.exists()
