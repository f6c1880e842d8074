"""Downloads into the shared cache from a stand-in hub, read back by the hub's own library."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from eftlocal import hub
from eftlocal.errors import HubError, NotDownloaded
from eftlocal.registry import Source

from .hub_client import hub_at, in_cache
from .hub_data import GOOD_TOKEN, Fault, git_sha1, sha256
from .hub_server import HubServer

REPOSITORY = "someone/Model-GGUF"
FILE = "Model.Q4_K_M.gguf"
DATA = random.Random(1).randbytes(300_000)
NO_PATIENCE = hub.Patience(retries=0)


@pytest.fixture
def server() -> Iterator[HubServer]:
    """A stand-in with one repository."""
    with HubServer() as running:
        files = {FILE: DATA, "Model.Q8_0.gguf": DATA[::-1], "README.md": b"hello"}
        running.add(REPOSITORY, files, small=frozenset({"README.md"}))
        yield running


@pytest.fixture
def cache(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own."""
    with hub_at(server, tmp_path / "home", monkeypatch) as folder:
        yield folder


def source(file: str | None = FILE, **more: str | None) -> Source:
    """A file of the repository."""
    return Source(hf=REPOSITORY, file=file, **more)  # type: ignore[arg-type]


def test_the_cache_is_that_of_the_hubs_own_library(server: HubServer, cache: Path) -> None:
    """What we fetch it finds, and the other way round; both see one blob and one snapshot."""
    assert not hub.is_downloaded(source())
    (path,) = hub.download([source()])
    assert path.read_bytes() == DATA
    assert hub.is_downloaded(source()) and hub.resolve(REPOSITORY, FILE) == path
    assert huggingface_hub.try_to_load_from_cache(REPOSITORY, FILE) == str(path)
    assert huggingface_hub.hf_hub_download(REPOSITORY, FILE, local_files_only=True) == str(path)
    scan = huggingface_hub.scan_cache_dir()
    assert [repo.repo_id for repo in scan.repos] == [REPOSITORY] and not scan.warnings
    (revision,) = next(iter(scan.repos)).revisions
    assert revision.refs == {"main"} and revision.size_on_disk == len(DATA)
    other = huggingface_hub.hf_hub_download(REPOSITORY, "Model.Q8_0.gguf")
    assert hub.resolve(REPOSITORY, "Model.Q8_0.gguf") == Path(other)
    sent = server.sent()
    assert hub.download([source("Model.Q8_0.gguf")]) == [Path(other)]
    assert server.sent() == sent == 2 * len(DATA)


def test_nothing_else_is_written(server: HubServer, cache: Path) -> None:
    """One blob, one reference, one link; empty lock files as the hub's library leaves them."""
    hub.download([source()])
    folder = f"models--{REPOSITORY.replace('/', '--')}"
    commit = server.repositories[REPOSITORY].commit
    wanted = {f"{folder}/blobs/{sha256(DATA)}": DATA, f"{folder}/refs/main": commit.encode()}
    assert in_cache(cache) == wanted
    locks = [path for path in (cache / ".locks").rglob("*") if path.is_file()]
    assert [(path.name, path.stat().st_size) for path in locks] == [(f"{sha256(DATA)}.lock", 0)]
    assert sorted(path.name for path in cache.parent.iterdir()) == ["hub"]


def test_sources_share_files_and_keep_their_order(
    server: HubServer, cache: Path, tmp_path: Path
) -> None:
    """A file that plays two roles is fetched once; paths on this machine stay themselves."""
    own = tmp_path / "own.gguf"
    own.write_bytes(b"x")
    sources = [source("Model.Q8_0.gguf"), source(), Source(path=own), source()]
    paths = hub.download(sources)
    assert [path.read_bytes() for path in paths] == [DATA[::-1], DATA, b"x", DATA]
    assert server.sent() == 2 * len(DATA)
    assert sum(item.at == "api" for item in server.seen) == 1


@pytest.mark.parametrize("quant", ["Q4_K_M", "q4_k_m"])
def test_a_quantization_becomes_a_file(server: HubServer, cache: Path, quant: str) -> None:
    """The hub is asked once; afterwards the cache knows."""
    wanted = Source(hf=REPOSITORY, quant=quant)
    assert not hub.is_downloaded(wanted)
    found = hub.find_file(wanted)
    assert (found.file, found.quant) == (FILE, None)
    hub.download([wanted])
    asked = len(server.seen)
    assert hub.is_downloaded(wanted) and hub.find_file(wanted).file == FILE
    assert len(server.seen) == asked


def test_what_the_hub_says_of_a_file(server: HubServer, cache: Path) -> None:
    """Size, hash, commit and files, without a download."""
    remote = hub.remote(source())
    commit = server.repositories[REPOSITORY].commit
    assert (remote.size, remote.sha256, remote.revision) == (len(DATA), sha256(DATA), commit)
    assert [file.name for file in remote.files] == [FILE]
    assert server.sent() == 0 and not cache.exists()


def test_shards(server: HubServer, cache: Path) -> None:
    """All of them are fetched, the first is named, and a missing one is not overlooked."""
    names = [f"big/m-Q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    server.add("a/shards", {name: name.encode() * 1000 for name in names})
    wanted = Source(hf="a/shards", quant="q8_0")
    (path,) = hub.download([wanted])
    assert path.as_posix().endswith(names[0])
    parts = [path.with_name(Path(name).name).read_bytes() for name in names]
    assert parts == [name.encode() * 1000 for name in names]
    assert hub.resolve("a/shards", names[0]) == path
    path.with_name("m-Q8_0-00002-of-00003.gguf").unlink()
    assert not hub.is_downloaded(wanted)
    with pytest.raises(NotDownloaded, match="shard a/shards/big/m-Q8_0-00002-of-00003"):
        hub.resolve("a/shards", names[0])
    assert hub.download([wanted]) == [path]
    del server.repositories["a/shards"].files[names[2]]
    with pytest.raises(HubError, match="lacks the shard big/m-Q8_0-00003-of-00003"):
        hub.download([wanted])


def test_revisions(server: HubServer, cache: Path) -> None:
    """A commit is a revision of its own; main moves, and old copies stay usable."""
    first = server.repositories[REPOSITORY].commit
    (old,) = hub.download([source(revision=first)])
    assert hub.is_downloaded(source(revision=first))
    assert not (old.parents[2] / "refs").exists()
    server.repositories[REPOSITORY].files["new.gguf"] = b"new" * 1000
    hub.download([source("new.gguf")])
    # Main has moved since the first file was fetched, and has not lost it.
    assert hub.resolve(REPOSITORY, FILE) == old
    sent = server.sent()
    (current,) = hub.download([source()])
    assert current != old and current.samefile(old)
    assert server.sent() == sent
    with pytest.raises(HubError, match="no revision 'other'"):
        hub.download([source(revision="other")])
    with pytest.raises(NotDownloaded):
        hub.resolve(REPOSITORY, "new.gguf", first)


def test_files_that_are_not_in_large_file_storage(server: HubServer, cache: Path) -> None:
    """Small files have git's sha1 for a name, and are checked with it."""
    (path,) = hub.download([source("README.md")])
    assert path.read_bytes() == b"hello" and path.resolve().name == git_sha1(b"hello")


def test_tokens_go_to_the_hub_alone(
    server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gated repository opens with a token, which its storage does not get to see."""
    server.repositories[REPOSITORY].gated = True
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    hub.download([source()])
    tokens = {item.at: item.token for item in server.seen}
    assert tokens == {"api": GOOD_TOKEN, "resolve": GOOD_TOKEN, "storage": None}


def test_without_ranges_a_download_still_resumes(server: HubServer, cache: Path) -> None:
    """A server that sends everything from the first byte: what is there is not written twice."""
    server.faults.append(Fault("storage", cut_after=150_000, times=1))
    with pytest.raises(HubError, match="no connection"):
        hub.download([source()], patience=NO_PATIENCE)
    server.ranges = False
    (path,) = hub.download([source()])
    assert path.read_bytes() == DATA


def test_a_cut_connection_goes_on_where_it_was(server: HubServer, cache: Path) -> None:
    """No byte comes twice, and no partial file stays."""
    server.faults.append(Fault("storage", cut_after=150_000, times=3))
    (path,) = hub.download([source()], patience=hub.Patience(retries=1, pause=0.01))
    assert path.read_bytes() == DATA
    assert len(DATA) <= server.sent() < len(DATA) + 1000
    assert not list(cache.rglob("*.incomplete"))


def test_progress(server: HubServer, cache: Path) -> None:
    """It only grows, and ends with everything."""
    seen: list[hub.Progress] = []
    server.rate = 600_000
    hub.download([source(), source("Model.Q8_0.gguf")], seen.append)
    assert len(seen) > 2
    assert [item.done for item in seen] == sorted(item.done for item in seen)
    last = seen[-1]
    assert (last.done, last.total, last.fetched) == (2 * len(DATA), 2 * len(DATA), 2 * len(DATA))
    assert (last.files_done, last.files, last.note) == (2, 2, "")


def test_a_truncated_blob_is_fetched_again(server: HubServer, cache: Path) -> None:
    """Sizes are always compared; contents with `repair`."""
    (path,) = hub.download([source()])
    os.truncate(path, 100)
    assert hub.download([source()]) == [path] and path.read_bytes() == DATA
    broken = bytearray(DATA)
    broken[1000] ^= 1
    path.resolve().write_bytes(broken)
    plan = hub.prepare([source()])
    sent = server.sent()
    plan.fetch()
    assert path.read_bytes() == broken and server.sent() == sent
    plan.fetch(repair=True)
    assert path.read_bytes() == DATA
    plan.fetch(repair=True)
    assert server.sent() == sent + len(DATA)


def test_a_partial_file_with_a_wrong_end_is_not_trusted(server: HubServer, cache: Path) -> None:
    """After a power cut it may hold zeros; then the file is fetched from its first byte."""
    place = cache / f"models--{REPOSITORY.replace('/', '--')}" / "blobs"
    place.mkdir(parents=True)
    partial = place / f"{sha256(DATA)}.eftlocal.incomplete"
    partial.write_bytes(DATA[:1000] + bytes(1000))
    (path,) = hub.download([source()])
    assert path.read_bytes() == DATA and not partial.exists()
    path.resolve().unlink()
    partial.write_bytes(DATA + b"more")
    (path,) = hub.download([source()])
    assert path.read_bytes() == DATA and not partial.exists()


def test_without_links_the_file_itself_is_in_the_snapshot(
    server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where most users may not make symbolic links."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("A required privilege is not held by the client")

    with monkeypatch.context() as windows:
        windows.setattr(os, "symlink", refuse)
        (path,) = hub.download([source()])
        assert not path.is_symlink() and path.read_bytes() == DATA
        sent = server.sent()
        assert hub.download([source()]) == [path] and server.sent() == sent
        os.truncate(path, 5)
        assert hub.download([source()]) == [path] and path.read_bytes() == DATA


def test_xet_storage_is_read_over_http(server: HubServer, cache: Path) -> None:
    """Plain HTTP is taken even where hf_xet is installed, as it is with the hub's library."""
    server.repositories[REPOSITORY].xet = True
    (path,) = hub.download([source()])
    assert path.read_bytes() == DATA and server.sent() == len(DATA)


def test_long_files_come_in_several_requests(
    server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content networks do not send more than some tens of gigabytes at once."""
    monkeypatch.setattr("eftlocal.hub.client._PIECE", 70_000)
    (path,) = hub.download([source()])
    assert path.read_bytes() == DATA and server.sent() == len(DATA)
    ranges = [item.range for item in server.seen if item.at == "storage"]
    assert ranges[0] == "bytes=0-69999" and ranges[-1] == "bytes=280000-299999"
    assert len(ranges) == 5


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (18_000, "18.0 kB"),
        (999_960_000, "1,000 MB"),
        (4_680_000_000, "4.68 GB"),
        (12_340_000_000, "12.3 GB"),
        (10**15, "1,000,000 GB"),
    ],
)
def test_amounts(size: int, text: str) -> None:
    """Three digits, decimal units."""
    assert hub.gigabytes(size) == text


def test_parts_of_replaced_files_go(server: HubServer, cache: Path) -> None:
    """Nobody would ever complete them; parts of files that are still there stay."""
    server.faults.append(Fault("storage", cut_after=100_000, times=2))
    for file in (FILE, "Model.Q8_0.gguf"):
        with pytest.raises(HubError):
            hub.download([source(file)], patience=NO_PATIENCE)
    assert len(list(cache.rglob("*.incomplete"))) == 2
    server.repositories[REPOSITORY].files[FILE] = DATA[1:]
    (path,) = hub.download([source()])
    assert path.read_bytes() == DATA[1:]
    (left,) = cache.rglob("*.incomplete")
    assert left.name.startswith(sha256(DATA[::-1]))
