"""A running server, as `eftlocal ps` and `eftlocal stop` talk to it; needs no web package."""

from __future__ import annotations

import functools
import http.client
import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import EftlocalError, UsageError
from .options import option, with_options
from .output import plain_text

DEFAULT_URL = "http://127.0.0.1:8080"

_UNIX = "unix:"
_FORMS = "http://HOST:PORT, https://HOST:PORT or unix:PATH"
_LONGEST_ANSWER = 8 << 20
_LONGEST_SENTENCE = 500


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is.

    Attributes:
        url: as the user wrote it.
        key: sent with every request; "" for none.
    """

    url: str
    key: str = ""

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, seconds: float = 10.0
    ) -> dict[str, Any]:
        """The JSON object of an answer.

        Raises:
            UsageError: for a URL that is none.
            EftlocalError: where no server answers, or with an error; one line.
        """
        connection, prefix = self._connect(seconds)
        headers = {"Accept": "application/json", "Host": connection.host}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, prefix + path, data, headers)
            response = connection.getresponse()
            content = response.read(_LONGEST_ANSWER)
        except TimeoutError:
            raise EftlocalError(f"the server at {self.url} does not answer") from None
        except (http.client.HTTPException, ssl.SSLError) as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            raise EftlocalError(
                f"what answers at {self.url} is no such server ({reason})"
            ) from None
        except OSError as error:
            raise EftlocalError(
                f"no server answers at {self.url} ({error.strerror or error}); start one with "
                "`eftlocal serve`, or say where it is with --url"
            ) from None
        finally:
            connection.close()
        return self._read(response.status, content)

    def _connect(self, seconds: float) -> tuple[http.client.HTTPConnection, str]:
        """A connection that is opened with the first request, and what paths begin with."""
        if self.url.startswith(_UNIX):
            return _UnixConnection(self.url.removeprefix(_UNIX), seconds), ""
        url = self.url if "://" in self.url else f"http://{self.url}"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        if host is None or parts.scheme not in kinds or parts.query or parts.fragment:
            raise UsageError(f"--url {self.url!r} is not allowed; use {_FORMS}")
        return kinds[parts.scheme](host, port, timeout=seconds), parts.path.rstrip("/")

    def _read(self, status: int, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if status == 401:
            raise EftlocalError(f"the server at {self.url} wants a key: set EFTLOCAL_API_KEY")
        if not isinstance(found, dict):
            raise EftlocalError(f"what answers at {self.url} is no such server (status {status})")
        if status != 200:
            error = found.get("error")
            told = error.get("message") if isinstance(error, dict) else error
            sentence = plain_text(str(told or f"status {status}"))[:_LONGEST_SENTENCE]
            raise EftlocalError(f"the server at {self.url}: {sentence}")
        return found


class _UnixConnection(http.client.HTTPConnection):
    """HTTP through a Unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --url and --api-key; `command` gets both as `server`."""

    @functools.wraps(command)
    def gathered(url: str, api_key: str | None, **given: Any) -> Any:
        return command(server=Server(url, api_key or ""), **given)

    declared = with_options(
        option("--url", default=DEFAULT_URL, show_default=True, metavar="URL",
               help=f"Where the server is: {_FORMS}."),
        option("--api-key", metavar="KEY",
               help="A key of the server; better in EFTLOCAL_API_KEY, which nobody else sees."),
    )  # fmt: skip
    return declared(gathered)
