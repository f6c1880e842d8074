"""What goes wrong between here and the hub: one line each with the next step; nothing is lost."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants

from eftlocal import hub
from eftlocal.errors import HubError
from eftlocal.registry import Source

from .hub_client import hub_at, in_cache
from .hub_data import Fault, sha256
from .hub_server import HubServer

REPOSITORY = "someone/Model-GGUF"
FILE = "Model.Q4_K_M.gguf"
DATA = random.Random(2).randbytes(200_000)
SOURCE = Source(hf=REPOSITORY, file=FILE)
ONCE = hub.Patience(retries=0)
QUICK = hub.Patience(retries=3, pause=0.01)


@pytest.fixture
def server() -> Iterator[HubServer]:
    """A stand-in with one repository."""
    with HubServer() as running:
        running.add(REPOSITORY, {FILE: DATA})
        yield running


@pytest.fixture
def cache(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own."""
    with hub_at(server, tmp_path / "home", monkeypatch) as folder:
        yield folder


def failure(source: Source = SOURCE, patience: hub.Patience = ONCE) -> str:
    """The line that a download ends with."""
    with pytest.raises(HubError) as caught:
        hub.download([source], patience=patience)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 420
    return text


def assert_no_rest(cache: Path) -> None:
    """Nothing half-written has the name of something whole."""
    for path in cache.rglob("*"):
        if path.is_file() and ".locks" not in path.parts:
            assert path.name.endswith(".eftlocal.incomplete") and DATA.startswith(path.read_bytes())


def test_gated(server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where to accept the terms, and how to log in; a token without access is no different."""
    server.repositories[REPOSITORY].gated = True
    text = failure()
    assert f"{REPOSITORY}/{FILE} is gated: accept its terms at {server.url}/{REPOSITORY}" in text
    assert "hf auth login" in text and "HF_TOKEN" in text
    assert_no_rest(cache)


def test_tokens(server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the hub does not know, and one that does not help."""
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not accept your token" in failure()
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    server.repositories[REPOSITORY].private = True
    hub.download([SOURCE])
    assert "no such repository" in failure(Source(hf="no/body", file="x.gguf"))


@pytest.mark.parametrize("private", [True, False])
def test_missing_repository(server: HubServer, cache: Path, private: bool) -> None:
    """A private one looks the same from outside."""
    if private:
        server.repositories[REPOSITORY].private = True
    else:
        del server.repositories[REPOSITORY]
    text = failure()
    assert f"{REPOSITORY}: there is no such repository, or it is private; check the name" in text
    assert not cache.exists()


def test_missing_files(server: HubServer, cache: Path) -> None:
    """What there is instead is named."""
    server.add("a/b", {"m.Q8_0.gguf": b"1", "m.Q5_K_M.gguf": b"2"})
    text = failure(Source(hf="a/b", quant="Q4_K_M"))
    assert "a/b has no Q4_K_M file; it has: Q5_K_M, Q8_0; name one as hf:a/b:QUANT" in text
    text = failure(Source(hf="a/b", file="M.Q8_0.gguf"))
    assert "a/b has no file M.Q8_0.gguf; did you mean m.Q8_0.gguf? it has: Q5_K_M, Q8_0" in text
    server.faults.append(Fault("resolve", 404, {"X-Error-Code": "EntryNotFound"}))
    assert "is not on the hub; see" in failure()


def test_offline(server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is named; what is downloaded is found all the same."""
    hub.download([SOURCE])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(server.seen)
    assert hub.is_downloaded(SOURCE)
    assert "HF_HUB_OFFLINE is set" in failure()
    assert len(server.seen) == asked


@pytest.mark.parametrize("at", ["api", "resolve", "storage"])
@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (401, {}, "there is no such repository, or it is private"),
        (403, {"X-Error-Message": "ask the owner"}, "the hub refuses (403: ask the owner)"),
        (404, {}, "there is no such repository"),
        (429, {"Retry-After": "7"}, "too many requests (429); what was fetched is kept: try again"),
        (429, {"RateLimit": '"api";r=0;t=55'}, "try again in 55 seconds"),
        (500, {}, "the hub has a problem (500)"),
        (503, {}, "the hub has a problem (503); what was fetched is kept: try again later"),
        (418, {}, "the hub refuses (418)"),
    ],
)
def test_statuses(
    server: HubServer, cache: Path, at: str, status: int, headers: dict[str, str], says: str
) -> None:
    """Every answer has its line, wherever it comes."""
    server.faults.append(Fault(at, status, headers))
    assert says in failure()
    assert_no_rest(cache)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("at", ["api", "resolve", "storage"])
def test_busy_servers_are_asked_again(server: HubServer, cache: Path, at: str, status: int) -> None:
    """A few times, with pauses; then it works."""
    server.faults.append(Fault(at, status, times=2))
    (path,) = hub.download([SOURCE], patience=QUICK)
    assert path.read_bytes() == DATA and server.sent() == len(DATA)


def test_an_expired_address_is_asked_for_again(server: HubServer, cache: Path) -> None:
    """Storage refuses signatures after some minutes; the hub gives a new one."""
    server.faults.append(Fault("storage", 403, times=1))
    hub.download([SOURCE], patience=QUICK)
    assert sum(item.at == "resolve" for item in server.seen) == 2
    server.faults.append(Fault("resolve", 403, times=1))
    Path(hub.resolve(REPOSITORY, FILE)).resolve().unlink()
    assert "the hub refuses (403)" in failure(patience=QUICK)


def test_the_pause_that_a_server_asks_for_is_kept() -> None:
    """Longer ones than our own; not for ever."""
    from eftlocal.hub.failures import pause_before_retry

    class Answer:
        status_code = 429
        headers: dict[str, str]
        url = constants.ENDPOINT + "/x"

    class Refused(Exception):
        response = Answer()

    for value, seconds in (("7", 7), ("100000", 300), ("soon", 0), ("", 0)):
        Answer.headers = {"Retry-After": value}
        assert pause_before_retry(Refused()) == seconds
    patience = hub.Patience()
    assert [patience.seconds(i) for i in (1, 2, 3, 9)] == [1, 2, 4, 16]


def test_no_space(server: HubServer, cache: Path) -> None:
    """It is refused before the first byte, with what is needed and what is free."""
    server.repositories[REPOSITORY].claimed[FILE] = 10**15
    text = failure()
    assert "not enough space: 1,000,000 GB are to be fetched" in text
    assert f"are free in {cache}" in text and "HF_HOME" in text
    assert server.sent() == 0 and not cache.exists()


def test_the_disk_gets_full_on_the_way(server: HubServer, cache: Path) -> None:
    """Somebody else took the space: one line, and no name of a whole file."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    place = cache / f"models--{REPOSITORY.replace('/', '--')}" / "blobs"
    place.mkdir(parents=True)
    (place / f"{sha256(DATA)}.eftlocal.incomplete").symlink_to("/dev/full")
    text = failure()
    assert f"no space left in {cache}" in text and "what was fetched is kept" in text
    assert not hub.is_downloaded(SOURCE) and not (place / sha256(DATA)).exists()


def test_wrong_checksum(server: HubServer, cache: Path) -> None:
    """What came is thrown away, because nobody knows which byte of it is wrong."""
    server.faults.append(Fault("storage", flip=True, times=1))
    text = failure()
    assert "wrong checksum" in text and sha256(DATA) in text and "try again" in text
    assert in_cache(cache) == {}
    hub.download([SOURCE])


def test_an_entry_that_states_another_hash(server: HubServer, cache: Path) -> None:
    """The publisher has changed the file, or the entry is wrong: nothing is fetched."""
    text = failure(Source(hf=REPOSITORY, file=FILE, sha256="0" * 64))
    assert f"its sha256 on the hub is {sha256(DATA)}, the model entry says {'0' * 64}" in text
    assert server.sent() == 0
    hub.download([Source(hf=REPOSITORY, file=FILE, sha256=sha256(DATA))])


def test_cut_connections(server: HubServer, cache: Path) -> None:
    """After so many in a row without a new byte it ends; what came is kept."""
    server.faults.append(Fault("storage", cut_after=100_000, times=1))
    server.faults.append(Fault("storage", cut_after=0))
    text = failure(patience=QUICK)
    assert f"no connection to {server.url}" in text and "what was fetched is kept" in text
    (partial,) = cache.rglob("*.incomplete")
    assert partial.read_bytes() == DATA[: partial.stat().st_size]
    assert partial.stat().st_size == server.sent() > 80_000
    assert sum(item.at == "storage" for item in server.seen) == 1 + QUICK.retries
    server.faults.clear()
    (path,) = hub.download([SOURCE])
    assert path.read_bytes() == DATA and server.sent() == len(DATA)


def test_slow_connections(server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stands still is given up after a while; slow but steady is fine."""
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    server.faults.append(Fault("storage", stall_after=100_000, times=1))
    text = failure()
    assert "nothing came for too long" in text and "HF_HUB_DOWNLOAD_TIMEOUT" in text
    (partial,) = cache.rglob("*.incomplete")
    assert partial.stat().st_size > 80_000
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 5)
    server.rate = 200_000
    hub.download([SOURCE])
    assert server.sent() == len(DATA)


def test_no_connection(server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there: the address is named."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    text = failure()
    assert f"no connection to {url}" in text and "check the network" in text


@pytest.mark.parametrize(
    "body", [b"<html>Log in to the hotel</html>", b"[]", b"{}", b'{"sha": 7, "siblings": []}']
)
def test_something_else_answers(server: HubServer, cache: Path, body: bytes) -> None:
    """A log-in page, or another service at that address."""
    server.faults.append(Fault("api", body=body))
    text = failure()
    assert "HF_ENDPOINT" in text


@pytest.mark.parametrize("name", ["../../x.gguf", "/etc/x.gguf"])
def test_names_that_lead_out_of_the_cache(server: HubServer, cache: Path, name: str) -> None:
    """Even if the hub has such a file."""
    server.add("a/evil", {name: DATA})
    assert "can be stored" in failure(Source(hf="a/evil", file=name))
    assert server.sent() == 0 and not cache.exists()


def test_malformed_repositories(server: HubServer, cache: Path) -> None:
    """What is not user/name is not even asked for."""
    assert "write it as user/repository" in failure(Source(hf="a--b/c..d", file="x.gguf"))
    assert server.seen == []


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Permissions do not stop root."""
    if os.name == "nt":
        pytest.skip("folders have no such permissions there")
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_read_only_cache(server: HubServer, cache: Path) -> None:
    """The folder and what to set are named; what is in it can be used all the same."""
    (path,) = hub.download([SOURCE])
    server.add("a/b", {"x.gguf": DATA[:100]})
    folders = [cache, *(item for item in cache.rglob("*") if item.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    outside = [folder for folder in cache.parents if folder.stat().st_mode & 0o005 != 0o005]
    modes = [folder.stat().st_mode for folder in outside]
    for folder in outside:
        folder.chmod(0o755)
    try:
        with ordinary_user():
            text = failure(Source(hf="a/b", file="x.gguf"))
            assert hub.download([SOURCE]) == [path]
    finally:
        for folder, mode in zip(outside, modes, strict=True):
            folder.chmod(mode)
        for folder in folders:
            folder.chmod(0o755)
    assert f"cannot write {cache}" in text and "Permission denied" in text and "HF_HOME" in text
    assert not (cache / "models--a--b").exists()


def test_a_file_in_the_way(server: HubServer, cache: Path) -> None:
    """A cache that is no folder is named."""
    cache.parent.mkdir()
    cache.touch()
    assert f"cannot write {cache}" in failure()


def test_the_first_failure_ends_the_others(server: HubServer, cache: Path) -> None:
    """What they had by then is kept for the next time."""
    server.add("a/slow", {"x.gguf": random.Random(3).randbytes(3_000_000)})
    server.rate = 1_000_000
    server.faults.append(Fault("storage", 404, match="someone"))
    with pytest.raises(HubError, match="no such repository"):
        hub.download([Source(hf="a/slow", file="x.gguf"), SOURCE], patience=ONCE)
    assert server.sent("a/slow/x.gguf") < 2_000_000
    server.rate = 0
    server.faults.clear()
    hub.download([Source(hf="a/slow", file="x.gguf"), SOURCE])
    assert server.sent() < 3_200_000 + 100_000
