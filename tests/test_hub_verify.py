"""What `verify` finds: on the hub, in the cache, and on the disk."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from eftlocal import hub
from eftlocal.errors import HubError
from eftlocal.registry import Source

from .hub_client import hub_at
from .hub_data import Fault, sha256
from .hub_server import HubServer

DATA = random.Random(6).randbytes(3_000_000)
SOURCE = Source(hf="a/b", file="x.Q8_0.gguf")
NAME = "a/b/x.Q8_0.gguf"


@pytest.fixture
def server() -> Iterator[HubServer]:
    """A stand-in with one file."""
    with HubServer() as running:
        running.add("a/b", {"x.Q8_0.gguf": DATA})
        yield running


@pytest.fixture
def cache(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own."""
    with hub_at(server, tmp_path / "home", monkeypatch) as folder:
        yield folder


def found(source: Source = SOURCE, offline: bool = False) -> hub.Finding:
    """The one finding about a source."""
    (finding,) = hub.verify([source], offline)
    return finding


def flip(path: Path, place: int) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("place", [0, 1_500_000, len(DATA) - 1])
def test_one_wrong_byte(server: HubServer, cache: Path, place: int) -> None:
    """Wherever it is, with the hub and without."""
    (path,) = hub.download([SOURCE])
    for offline in (False, True):
        assert found(offline=offline) == hub.Finding(NAME, "ok", len(DATA), path=path)
    flip(path, place)
    for offline in (False, True):
        finding = found(offline=offline)
        assert (finding.status, finding.is_good) == ("wrong", False)
        assert sha256(DATA) in finding.detail and "pull --repair" in finding.detail
    hub.prepare([SOURCE]).fetch(repair=True)
    assert found().status == found(offline=True).status == "ok"


def test_offline_asks_nothing(server: HubServer, cache: Path) -> None:
    """And says what is not there; quantizations are found among what is."""
    assert found(offline=True) == hub.Finding(NAME, "not downloaded")
    assert found(Source(hf="a/b", quant="Q8_0"), offline=True).status == "not downloaded"
    assert server.seen == []
    hub.download([SOURCE])
    asked = len(server.seen)
    assert found(Source(hf="a/b", quant="Q8_0"), offline=True).status == "ok"
    assert len(server.seen) == asked


def test_what_is_not_downloaded_is_looked_up(server: HubServer, cache: Path) -> None:
    """The size of the hub's file, and how much of it is here."""
    assert found() == hub.Finding(NAME, "not downloaded", len(DATA))
    server.faults.append(Fault("storage", cut_after=1_510_000, times=1))
    with pytest.raises(HubError):
        hub.download([SOURCE], patience=hub.Patience(retries=0))
    assert found().detail == "50% of it is fetched"


def test_names_that_the_hub_does_not_have(server: HubServer, cache: Path) -> None:
    """Repositories and files; the others are looked at all the same."""
    sources = [Source(hf="no/body", file="x"), Source(hf="a/b", file="y.gguf"), SOURCE]
    findings = hub.verify(sources)
    assert [item.status for item in findings] == ["missing", "missing", "not downloaded"]
    assert "no such repository" in findings[0].detail
    assert "a/b has no file y.gguf; it has: Q8_0" in findings[1].detail
    server.faults.append(Fault("api", 503))
    with pytest.raises(HubError, match="has a problem"):
        hub.verify(sources)


def test_stated_hashes(server: HubServer, cache: Path, tmp_path: Path) -> None:
    """Those of entries count, for files of the hub and for others."""
    wrong = Source(hf="a/b", file="x.Q8_0.gguf", sha256="0" * 64)
    assert found(wrong).status == "wrong" and "model entry says" in found(wrong).detail
    hub.download([SOURCE])
    assert found(wrong, offline=True).status == "wrong"
    own = tmp_path / "own.gguf"
    assert found(Source(path=own)).status == "missing"
    own.write_bytes(DATA)
    assert found(Source(path=own)).status == "present"
    assert found(Source(path=own, sha256=sha256(DATA))).status == "ok"
    assert found(Source(path=own, sha256="0" * 64)).status == "wrong"


def test_outdated_copies(server: HubServer, cache: Path) -> None:
    """Intact, but the hub has another file now."""
    (path,) = hub.download([SOURCE])
    server.repositories["a/b"].files["x.Q8_0.gguf"] = DATA[::-1]
    finding = found()
    assert (finding.status, finding.path, finding.is_good) == ("outdated", path, True)
    assert "eftlocal pull" in finding.detail
    assert found(offline=True).status == "ok"
    flip(path, 7)
    assert found().status == "wrong"
    (new,) = hub.download([SOURCE])
    assert found() == hub.Finding(NAME, "ok", len(DATA), path=new)


def test_shards_one_by_one(server: HubServer, cache: Path) -> None:
    """Each has a line of its own."""
    names = [f"m-Q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    server.add("a/shards", {name: name.encode() for name in names})
    source = Source(hf="a/shards", quant="Q8_0")
    (path,) = hub.download([source])
    path.with_name(names[1]).unlink()
    flip(path.with_name(names[2]), 3)
    assert [item.status for item in hub.verify([source])] == ["ok", "not downloaded", "wrong"]
    findings = hub.verify([source], offline=True)
    assert [item.status for item in findings] == ["ok", "not downloaded", "wrong"]


def test_every_file_is_looked_at_once(server: HubServer, cache: Path) -> None:
    """Roles may share files; progress counts bytes that are hashed."""
    hub.download([SOURCE])
    seen: list[tuple[int, int]] = []
    again = Source(hf="a/b", file="x.Q8_0.gguf", evidence="seen", size=3)
    findings = hub.verify([SOURCE, again, SOURCE], on_bytes=lambda *item: seen.append(item))
    assert len(findings) == 1
    assert seen[-1] == (len(DATA), len(DATA)) and seen == sorted(seen)


def test_unreadable_copies(server: HubServer, cache: Path) -> None:
    """A disk that fails is a finding, not the end."""
    if os.name == "nt" or os.geteuid() == 0:
        path = hub.download([SOURCE])[0].resolve()
        path.unlink()
        assert found(offline=True).status == "not downloaded"
        return
    (path,) = hub.download([SOURCE])
    path.chmod(0)
    assert "cannot be read" in found(offline=True).detail
