"""llama.cpp's rpc-servers: processes, mostly on other machines, that hold layers of a model.

llama.cpp aborts the process where a server is not there, is something else or speaks another
version, and waits for ever where it serves another client; so a child process tries it first.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ..errors import BackendError
from .library import function, lib, llama_cpp_version, local_gpus

REACH_SECONDS = 5.0
"""How long a machine may take to accept a connection."""
ANSWER_SECONDS = 30.0
"""How long all servers together may take to answer, the start of a Python included."""

_MOST_DEVICES = 14  # of 16 (GGML_SCHED_MAX_BACKENDS), the CPU and BLAS take two; more would abort
_CHILD = "import sys; from eftlocal.llama.servers import answer; answer(sys.argv[1:])"
_ABORTED = 70
_held: list[str] = []
"""Endpoints that models of this process are connected to, once for every model."""

_AbortCallback = ctypes.CFUNCTYPE(None, ctypes.c_char_p)


class Servers:
    """rpc-servers for the layers of one model, connected until `release`.

    Args:
        servers: HOST:PORT of each.

    Attributes:
        devices: what llama.cpp may put layers on, a list that ends with NULL: the servers'
            devices, then this machine's GPUs, as in llama.cpp's own tools.

    Raises:
        BackendError: where llama.cpp was built without RPC, or a server cannot be used.
    """

    def __init__(self, servers: Sequence[str]) -> None:
        if not lib.llama_supports_rpc():
            raise BackendError(
                "this llama-cpp-python was built without RPC; build it again: "
                'CMAKE_ARGS="-DGGML_RPC=on" pip install --force-reinstall --no-cache-dir '
                f"llama-cpp-python=={llama_cpp_version}"
            )
        names: dict[str, str] = {}
        for server in servers:
            endpoint = address(server)
            if endpoint in names:
                raise BackendError(f"rpc: {names[endpoint]} and {server} are the same server")
            names[endpoint] = server
        # A server serves one client at a time, and this process is one: see `_held`.
        _try({endpoint: name for endpoint, name in names.items() if endpoint not in _held})
        _call_at_abort(_say_goodbye)
        self._connections: dict[str, int] = {}
        try:
            self.devices = self._find_devices(list(names))
        except BaseException:
            self.release()
            raise

    def _find_devices(self, endpoints: Sequence[str]) -> ctypes.Array[ctypes.c_void_p]:
        """Connect to the servers and list their devices; see `devices`."""
        found: list[int | None] = []
        for endpoint in endpoints:
            devices, self._connections[endpoint] = _connect(endpoint)
            _held.append(endpoint)
            found += devices
        found += local_gpus()
        if len(found) > _MOST_DEVICES:
            raise BackendError(f"rpc: {len(found)} devices; llama.cpp takes {_MOST_DEVICES}")
        return (ctypes.c_void_p * (len(found) + 1))(*found, None)

    def release(self) -> None:
        """Leave the servers to other clients; models on them have to be freed before."""
        while self._connections:
            endpoint, connection = self._connections.popitem()
            function("ggml_backend_free", None, ctypes.c_void_p)(connection)
            _held.remove(endpoint)


def address(server: str) -> str:
    """The IPv4 address and port of a server that listens, which is what llama.cpp connects to.

    Raises:
        BackendError: where the host has no such address, or nothing listens there.
    """
    host, _, port = server.rpartition(":")
    try:
        found = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)
        place = (str(found[0][4][0]), int(port))
        endpoint = f"{place[0]}:{place[1]}"
        if endpoint not in _held:
            socket.create_connection(place, REACH_SECONDS).close()
    except socket.gaierror as error:
        raise BackendError(f"rpc: {server}: no IPv4 address of {host} is known") from error
    except (OSError, UnicodeError) as error:
        problem = (getattr(error, "strerror", None) or str(error)).lower()
        raise BackendError(
            f"rpc: {server} cannot be reached ({problem}); start llama.cpp's rpc-server there"
        ) from error
    return endpoint


def answer(endpoints: Sequence[str]) -> None:
    """Connect to all servers as a model would, writing the name of each before; ends the process.

    Run in a process of its own: llama.cpp aborts it where a server is not what it should be.
    """
    _call_at_abort(_leave)
    for endpoint in endpoints:
        print(endpoint, flush=True)
        _connect(endpoint)  # stays connected: one server under two names would not answer
    os._exit(0)


def _call_at_abort(callback: object) -> None:
    function("ggml_set_abort_callback", ctypes.c_void_p, _AbortCallback)(callback)


def _try(names: Mapping[str, str]) -> None:
    """Let a child process connect to servers; names: endpoint -> what the user calls it."""
    if not names or not sys.executable or getattr(sys, "frozen", False):
        return
    command = [sys.executable, "-c", _CHILD, *names]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=ANSWER_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        server = _last(error.stdout, names)
        problem = "does not answer; an rpc-server serves one client at a time"
        raise BackendError(f"rpc: {server} {problem}") from error
    if done.returncode != 0:
        aborted = done.returncode == _ABORTED
        errors = done.stderr.decode("utf-8", "replace")
        problem = _complaint(errors) if aborted else f"cannot be tried: {errors.splitlines()[-1:]}"
        raise BackendError(f"rpc: {_last(done.stdout, names)} {problem}")


def _last(output: bytes | None, names: Mapping[str, str]) -> str:
    """The server that the child tried last."""
    tried = (output or b"").decode().split()
    return names[tried[-1]] if tried else ", ".join(names.values())


def _complaint(errors: str) -> str:
    """What is wrong with a server on which llama.cpp aborted the child."""
    version = errors.partition("version mismatch: ")[2].split()
    problem = f"speaks version {version[0]} of the protocol" if version else "is no rpc-server"
    return f"{problem}; use the rpc-server that belongs to llama-cpp-python {llama_cpp_version}"


def _connect(endpoint: str) -> tuple[list[int], int]:
    """The devices of a server, and a connection to it that all its users share."""
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    registry = function("ggml_backend_reg_by_name", pointer, text)(b"RPC")
    look_up = function("ggml_backend_reg_get_proc_address", pointer, pointer, text)
    symbol = look_up(registry, b"ggml_backend_rpc_add_server")
    server = ctypes.CFUNCTYPE(pointer, text)(symbol)(endpoint.encode())
    if not server:
        raise BackendError(f"rpc: {endpoint} offers no devices")
    count = function("ggml_backend_reg_dev_count", size, pointer)(server)
    get = function("ggml_backend_reg_dev_get", pointer, pointer, size)
    devices = [get(server, i) for i in range(count)]
    return devices, function("ggml_backend_dev_init", pointer, pointer, text)(devices[0], None)


@_AbortCallback  # type: ignore[untyped-decorator]
def _leave(message: bytes) -> None:
    """End the child without a stack trace."""
    os._exit(_ABORTED)


@_AbortCallback  # type: ignore[untyped-decorator]
def _say_goodbye(message: bytes) -> None:
    """One line before an abort that can no longer be prevented."""
    lost = b"RPC" in message or b"Failed to connect" in message
    line = b"eftlocal: an rpc-server was lost; llama.cpp ends the process" if lost else message
    os.write(2, line + b"\n")
