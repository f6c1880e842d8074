"""Downloads that are killed, stopped with Ctrl-C or run twice at once, as real processes."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from .cli_helpers import command
from .hub_client import hub_environment, in_cache, stored_bytes
from .hub_data import sha256
from .hub_server import HubServer

REPOSITORY = "someone/Large-GGUF"
FILE = "Large.Q8_0.gguf"
SIZE = 32 << 20
RATE = 24e6
NAME = f"hf:{REPOSITORY}:Q8_0"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")


@pytest.fixture(scope="module")
def data() -> bytes:
    """The contents of the large file."""
    return random.Random(4).randbytes(SIZE)


@pytest.fixture
def server(data: bytes) -> Iterator[HubServer]:
    """A stand-in with one large file, which takes about a second."""
    with HubServer() as running:
        running.add(REPOSITORY, {FILE: data})
        running.rate = RATE
        yield running


def hear_interrupts() -> None:
    """A process that a shell runs in the background, and all that it starts, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(server: HubServer, home: Path, *args: str) -> subprocess.Popen[str]:
    """Begin `eftlocal pull`."""
    return subprocess.Popen(
        command("pull", *args, NAME),
        env=hub_environment(server, home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end: exit code, output, errors."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something to happen."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def keeps_up(server: HubServer, cache: Path, goal: float, lost: int) -> bool:
    """Whether so many bytes left the server, and nearly all are in the file.

    On a busy machine many may lie between the two, in buffers of the system.
    """
    sent = server.sent() - lost
    return sent >= goal and sent - stored_bytes(cache) <= 0.003 * SIZE


def blob(data: bytes) -> str:
    """Where the contents belong in the cache."""
    return f"models--{REPOSITORY.replace('/', '--')}/blobs/{sha256(data)}"


def test_killed_downloads_lose_nothing(server: HubServer, tmp_path: Path, data: bytes) -> None:
    """At 10, 50 and 90 %: at most 1 % comes twice each time, and nothing else stays."""
    cache = tmp_path / "hub"
    lost = 0
    for share in (0.1, 0.5, 0.9):
        server.limit = lost + (share + 0.05) * SIZE
        process = start(server, tmp_path)
        wait_until(partial(keeps_up, server, cache, share * SIZE, lost))
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
        kept = in_cache(cache)
        assert list(kept) == [f"{blob(data)}.eftlocal.incomplete"]
        (fetched,) = kept.values()
        assert data.startswith(fetched)
        lost, before = server.sent() - len(fetched), lost
        print(f"killed at {share:.0%}: {lost - before} of {SIZE} bytes sent in vain")
        assert lost - before <= 0.01 * SIZE
    server.limit = math.inf
    code, out, err = finish(start(server, tmp_path, "--json"))
    assert (code, err) == (0, "")
    (file,) = json.loads(out)["files"]
    assert Path(file["path"]).read_bytes() == data
    print(f"in all: {server.sent() - SIZE} of {SIZE} bytes twice")
    assert server.sent() - SIZE <= 0.03 * SIZE
    commit = server.repositories[REPOSITORY].commit.encode()
    assert set(in_cache(cache).values()) == {data, commit}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub"]


def test_ctrl_c_keeps_what_was_fetched(server: HubServer, tmp_path: Path, data: bytes) -> None:
    """Exit code 130, and one line that says how to go on."""
    server.limit = SIZE / 2
    process = start(server, tmp_path)
    wait_until(lambda: keeps_up(server, tmp_path / "hub", SIZE / 3, 0))
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out) == (130, "")
    assert err.count("\n") == 1 and f"`eftlocal pull {NAME}` goes on" in err
    (fetched,) = in_cache(tmp_path / "hub").values()
    assert data.startswith(fetched) and server.sent() - len(fetched) <= 0.01 * SIZE
    server.limit = math.inf
    assert finish(start(server, tmp_path))[0] == 0
    assert server.sent() - SIZE <= 0.01 * SIZE


def test_two_at_once_make_one_good_copy(server: HubServer, tmp_path: Path, data: bytes) -> None:
    """The second waits for the first, and nothing is fetched twice."""
    both = [start(server, tmp_path), start(server, tmp_path)]
    assert [finish(process)[0] for process in both] == [0, 0]
    assert server.sent() == SIZE
    assert in_cache(tmp_path / "hub")[blob(data)] == data
    assert not list(tmp_path.rglob("*.incomplete"))


def test_the_second_goes_on_when_the_first_dies(
    server: HubServer, tmp_path: Path, data: bytes
) -> None:
    """A lock of a killed process holds nobody up."""
    server.limit = SIZE * 3 / 4
    first = start(server, tmp_path)
    wait_until(lambda: server.sent() > SIZE / 4)
    second = start(server, tmp_path)
    wait_until(lambda: keeps_up(server, tmp_path / "hub", SIZE / 2, 0))
    first.kill()
    finish(first)
    server.limit = math.inf
    assert finish(second)[0] == 0
    assert in_cache(tmp_path / "hub")[blob(data)] == data
    assert server.sent() - SIZE <= 0.01 * SIZE


def test_our_downloads_and_those_of_the_hubs_tools_wait_for_each_other(
    server: HubServer, tmp_path: Path, data: bytes
) -> None:
    """`hf download` and `eftlocal pull` at once end with one good copy."""
    code = f"from huggingface_hub import hf_hub_download as f; f({REPOSITORY!r}, {FILE!r})"
    environment = hub_environment(server, tmp_path, HF_HUB_DISABLE_PROGRESS_BARS="1")
    other = subprocess.Popen([sys.executable, "-c", code], env=environment)
    mine = start(server, tmp_path)
    assert other.wait(60) == 0 and finish(mine)[0] == 0
    assert in_cache(tmp_path / "hub")[blob(data)] == data
    assert server.sent() == SIZE
    assert not list(tmp_path.rglob("*.incomplete"))
