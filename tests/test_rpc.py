"""The base's layers on rpc-servers: the same text, and one line for whatever is wrong.

Tests with servers run where llama-cpp-python was built with RPC; those that need a real one also
need llama.cpp's `ggml-rpc-server` (or `rpc-server`) on the PATH or beside Python.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eftlocal
from eftlocal.errors import BackendError
from eftlocal.llama import servers
from eftlocal.llama.library import lib

from .adapters import write_adapter
from .cli_helpers import environment, files, run
from .conftest import LARGE, N_VOCAB, SMALL, Trio, write_trio
from .gguf_models import END, ModelShape

PROMPT = "The quick brown fox jumps over the lazy dog, and then"
EXACT = {"flash_attention": "off", "cache_type": "f32"}
HELLO_BYTES = 33
HAS_RPC = bool(lib.llama_supports_rpc())
FOLDERS = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
BINARY = shutil.which("ggml-rpc-server", path=FOLDERS) or shutil.which("rpc-server", path=FOLDERS)

with_rpc = pytest.mark.skipif(not HAS_RPC, reason="llama-cpp-python was built without GGML_RPC")
with_servers = pytest.mark.skipif(
    not (HAS_RPC and BINARY), reason="needs a build with GGML_RPC and llama.cpp's ggml-rpc-server"
)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def rpc_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real rpc-server on one thread: its HOST:PORT and its process."""
    assert BINARY is not None
    port = free_port()
    quiet = subprocess.DEVNULL
    command = [BINARY, "--port", str(port), "--threads", "1"]
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        for _ in range(400):
            try:
                servers.address(f"127.0.0.1:{port}")
                break
            except BackendError:
                assert process.poll() is None
                time.sleep(0.05)
        yield f"127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[str, str]]:
    """Two rpc-servers on this machine."""
    with rpc_server() as (first, _), rpc_server() as (second, _):
        yield first, second


@pytest.fixture(scope="module")
def q8_0_trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    """Random models with quantised weights."""
    base = ModelShape(n_vocab=N_VOCAB, width=128, layers=4, ffn=256, quantization="Q8_0")
    small = ModelShape(n_vocab=N_VOCAB, quantization="Q8_0")
    return write_trio(tmp_path_factory.mktemp("q8_0"), base, small)


@contextmanager
def fake_server(reply: bytes | None) -> Iterator[str]:
    """Something that listens and answers whatever it hears with `reply`; None never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held: list[socket.socket] = []
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                connection, _ = listening.accept()
                held.append(connection)
                if reply is not None and connection.recv(HELLO_BYTES, socket.MSG_WAITALL):
                    connection.sendall(reply)
                    connection.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=serve)
        thread.start()
        place = listening.getsockname()
        yield f"127.0.0.1:{place[1]}"
        stop.set()
        socket.create_connection(place).close()
        thread.join()
        for connection in held:
            connection.close()


def load(trio: Trio, **options: object) -> eftlocal.FusedModel:
    """The trio on one thread, with the kernels that round least."""
    more: dict[str, Any] = {"threads": 1, "logit_bias": {END: -100.0}, **EXACT, **options}
    return eftlocal.load(base=trio.base, tuned=trio.tuned, reference=trio.reference, **more)


@pytest.mark.skipif(HAS_RPC, reason="this build has RPC")
def test_a_build_without_rpc_says_how_to_get_one(trio: Trio) -> None:
    """One line with the command, also from the command line."""
    how = r'built without RPC; build it again: CMAKE_ARGS="-DGGML_RPC=on" pip install [^\n]*==0\.'
    with pytest.raises(BackendError, match=rf"^[^\n]*{how}[^\n]*$"):
        load(trio, rpc="127.0.0.1:50052")
    done = run("complete", "Hello", *files(trio), "--rpc", "127.0.0.1:50052")
    assert done.exit_code != 0
    assert re.search(rf"^[^\n]*{how}[^\n]*\n$", done.stderr)


def test_wrong_servers_are_told_before_anything_is_loaded(trio: Trio, tmp_path: Path) -> None:
    """The command line, the environment and models.toml say which form is meant."""
    entry = tmp_path / "models.toml"
    roles = [f'{role} = {{ path = "{path}" }}' for role, path in trio._asdict().items()]
    entry.write_text("\n".join(["[models.x]", *roles, 'rpc = ["127.0.0.1"]']))
    question = ("complete", "Hello")
    for done in (
        run(*question, *files(trio), "--rpc", "127.0.0.1"),
        run(*question, *files(trio), env={"EFTLOCAL_RPC": "127.0.0.1"}),
        run(*question, "--models", str(entry), "-m", "x"),
    ):
        assert done.exit_code != 0
        assert re.search(r"rpc = .* is not allowed; use HOST:PORT\[,HOST:PORT\]", done.stderr)


def test_unreachable_servers_are_one_line() -> None:
    """Nothing listens, no such host, a name that is none: each says which server it is."""
    port = free_port()
    wrong = [
        (f"127.0.0.1:{port}", rf"^rpc: 127\.0\.0\.1:{port} cannot be reached \(.*refused"),
        ("no-such-host.invalid:1", r"^rpc: no-such-host\.invalid:1: no IPv4 address of"),
        (f"{'x' * 70}.invalid:1", r"invalid:1 cannot be reached"),
    ]
    for server, message in wrong:
        with pytest.raises(BackendError, match=message) as caught:
            servers.address(server)
        assert "\n" not in str(caught.value)


def test_a_server_has_one_address() -> None:
    """However it is written, llama.cpp gets the IPv4 address that was tried."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        found = {servers.address(f"{host}:{port}") for host in ("localhost", "127.0.0.1", "127.1")}
        assert found | {servers.address(f"127.0.0.1:{port:05}")} == {f"127.0.0.1:{port}"}


@with_rpc
@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"", "is no rpc-server; use the rpc-server that belongs to llama-cpp-python 0"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no rpc-server"),
        ((28).to_bytes(8, "little") + bytes([6, 1, 2]) + bytes(25), r"speaks version 6\.1\.2 of"),
    ],
    ids=["silence", "a web server", "another version"],
)
def test_what_is_no_rpc_server_does_not_end_the_process(
    trio: Trio, reply: bytes, message: str
) -> None:
    """llama.cpp would abort; here it is one line that names the server."""
    with (
        fake_server(reply) as server,
        pytest.raises(BackendError, match=rf"^rpc: {server} {message}[^\n]*$"),
    ):
        load(trio, rpc=server)


@with_rpc
def test_a_busy_server_is_not_waited_for(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts the connection and stays silent is named after some time."""
    monkeypatch.setattr(servers, "ANSWER_SECONDS", 4.0)
    with (
        fake_server(None) as server,
        pytest.raises(BackendError, match=rf"^rpc: {server} does not answer; [^\n]* one client"),
    ):
        load(trio, rpc=server)


@with_rpc
def test_one_server_under_two_names(trio: Trio) -> None:
    """It is found out before it is connected to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(BackendError, match=r"^rpc: localhost:\d+ and 127.* the same server$"):
            load(trio, rpc=[f"localhost:{port}", f"127.0.0.1:{port}"])


def greedy(model: eftlocal.FusedModel, prompt: str = PROMPT) -> list[eftlocal.TokenEvent]:
    """Forty likeliest tokens, each with the two likeliest."""
    options = {"temperature": 0.0, "max_tokens": 40, "top_logprobs": 2}
    return list(model.stream_complete(prompt, **options))


def assert_same_text(local: list[eftlocal.TokenEvent], remote: list[eftlocal.TokenEvent]) -> None:
    """Equal tokens, up to a near-tie that the kernels of another build may decide otherwise."""
    assert len(local) > 5
    for one, other in zip(local, remote, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=0.01)
        if one.token != other.token:
            assert one.top[0][1] - one.top[1][1] < 0.01
            break


@with_servers
@pytest.mark.parametrize("kind", ["trio", "q8_0_trio"])
def test_two_servers_hold_the_base_and_change_nothing(
    kind: str,
    pair: tuple[str, str],
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its layers are on both servers, tuned and reference stay here, the text is the same."""
    trio = request.getfixturevalue(kind)
    with load(trio) as model:
        local = greedy(model)
    caplog.set_level(logging.DEBUG, "eftlocal.llama")
    with load(trio, rpc=",".join(pair)) as model:
        remote = greedy(model)
        first, *others = caplog.text.split("loaded meta data")[1:]
        again = greedy(model)
    assert_same_text(local, remote)
    assert [event.logprob for event in again] == [event.logprob for event in remote]
    assert all(f"[{server}] model buffer size" in first for server in pair)
    assert len(others) == 2
    assert not any("RPC" in part.split("llama_context")[0] for part in others)


@with_servers
def test_atlas_answers_the_same(pair: tuple[str, str]) -> None:
    """The packaged models, with their own settings, in a chat."""
    question = [{"role": "user", "content": "What is the capital of France?"}]
    with eftlocal.load("atlas", threads=1) as model:
        local = model.chat(question, max_tokens=40)
    with eftlocal.load("atlas", threads=1, rpc=list(pair)) as model:
        remote = model.chat(question, max_tokens=40)
    assert local.text == remote.text
    assert "Paris" in remote.text
    np.testing.assert_allclose(local.logprobs, remote.logprobs, atol=0.01)


@with_servers
def test_an_adapter_on_the_base_goes_with_it(pair: tuple[str, str], tmp_path: Path) -> None:
    """Where base and reference are one file, its adapter works on the servers as well."""
    trio = write_trio(tmp_path, LARGE, SMALL)
    adapter = write_adapter(tmp_path / "adapter.gguf", trio.base)
    shared = Trio(trio.base, adapter, trio.base)
    with load(shared) as model:
        local = greedy(model)
    with load(shared, rpc=pair[0]) as model:
        assert_same_text(local, greedy(model))


@with_servers
def test_models_of_one_process_share_a_server(trio: Trio, pair: tuple[str, str]) -> None:
    """A second model uses the server beside the first, and both free it for other processes."""
    with load(trio, rpc=pair[0]) as one, load(trio, rpc=pair) as two:
        first = greedy(one)
        assert_same_text(first, greedy(two))
        assert_same_text(first, greedy(one))
    options = ("--rpc", pair[0], "--max-tokens", "3", "--threads", "1")
    done = subprocess.run(
        [sys.executable, "-m", "eftlocal", "complete", "Hello", *files(trio), *options],
        env=environment(trio.base.parent), capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@with_servers
def test_a_failed_load_leaves_the_servers(trio: Trio, pair: tuple[str, str]) -> None:
    """After an interrupt, an unusable server or a damaged file the next load works."""

    def interrupt(value: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(trio, rpc=pair, progress=interrupt)
    with fake_server(b"") as fake, pytest.raises(BackendError, match=f"^rpc: {fake} is no"):
        load(trio, rpc=(pair[0], fake))
    assert servers._held == []
    with load(trio, rpc=pair) as model:
        assert len(greedy(model)) == 40
    assert servers._held == []


SCRIPT = """
import sys, eftlocal
base, tuned, reference, server = sys.argv[1:]
model = eftlocal.load(base=base, tuned=tuned, reference=reference, rpc=server, threads=1)
print("ready", flush=True)
input()
model.complete("Hello", max_tokens=3)
print("done", flush=True)
"""


@with_servers
@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
def test_the_end_of_a_process(trio: Trio, tmp_path: Path, lost: bool) -> None:
    """Without `close` it ends cleanly; a server that dies leaves a clear line, no stack trace."""
    with rpc_server() as (server, process):
        child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *map(str, trio), server],
            env=environment(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        if lost:
            process.kill()
            process.wait()
        told, errors = child.communicate("\n", timeout=120)
    if lost:
        assert child.returncode == -signal.SIGABRT
        *before, last = errors.splitlines()
        assert last == "eftlocal: an rpc-server was lost; llama.cpp ends the process"
        assert all("failed" in line for line in before)
    else:
        assert (child.returncode, told, errors) == (0, "done\n", "")
