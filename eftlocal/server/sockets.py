"""Where a server listens: a TCP port or a Unix socket, bound before anything is loaded."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import EftlocalError
from .settings import Settings

_BACKLOG = 512


class CannotListen(EftlocalError):
    """The address is in use or cannot be had."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that is bound and listens.

    Attributes:
        socket: for the server.
        url: what clients use; "unix:PATH" for a Unix socket.
        path: of a Unix socket, else None.
        inode: of that path; another server may have put its own there since.
    """

    socket: socket.socket
    url: str
    path: Path | None = None
    inode: int = 0

    @property
    def page(self) -> str | None:
        """The address of the page for a browser on this machine; None for a Unix socket."""
        if self.path is not None:
            return None
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        try:
            address = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return f"{self.url}/"
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "[::1]"
        return f"http://{host}:{port}/"

    def close(self) -> None:
        """Stop listening, and remove the file of a Unix socket."""
        self.socket.close()
        if self.path is not None:
            with suppress(OSError):
                if self.path.lstat().st_ino == self.inode:
                    self.path.unlink()


def listen(settings: Settings) -> Listener:
    """Bind what the settings say.

    Raises:
        CannotListen: with the reason in one line.
    """
    if settings.unix_socket is not None:
        return _listen_unix(settings.unix_socket)
    return _listen_tcp(settings.host, settings.port)


def _listen_tcp(host: str, port: int) -> Listener:
    name = host.strip("[]")
    place = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise CannotListen(f"--host {host}: there is no such address") from None
    # Clients try 127.0.0.1 for localhost in any case.
    found.sort(key=lambda item: item[0] != socket.AF_INET)
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise CannotListen(_reason(error, place)) from None
    bound.setblocking(False)
    actual = bound.getsockname()[1]
    return Listener(bound, f"http://{f'[{name}]' if ':' in name else name}:{actual}")


def _reason(error: OSError, place: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{place} is in use by another program; choose another --port, or 0 for a free one"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{place}: this user may not listen there; choose a --port above 1023"
    return f"{place}: cannot listen there: {error.strerror}"


def _listen_unix(path: Path) -> Listener:
    if not hasattr(socket, "AF_UNIX"):
        raise CannotListen("this system has no Unix sockets; use --host and --port")
    path = path.absolute()
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        bound.bind(str(path))
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        text = error.strerror or str(error)
        raise CannotListen(f"{path}: cannot listen there: {text}") from None
    finally:
        os.umask(before)
    bound.setblocking(False)
    return Listener(bound, f"unix:{path}", path, path.stat().st_ino)


def _remove_stale(path: Path) -> None:
    """Remove the socket file of a server that is gone.

    Raises:
        CannotListen: where a server answers there, or the file is no socket.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotListen(f"{path}: there is a file that is no socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                path.unlink()
            return
        except OSError as error:
            text = error.strerror or str(error)
            raise CannotListen(f"{path}: cannot listen there: {text}") from None
    raise CannotListen(f"{path}: another server listens there")
