"""What `eftlocal serve` was told, as one frozen object that every part of the server reads."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from .. import FusedModel


@dataclass(frozen=True, slots=True)
class Served:
    """One model that requests may name.

    Attributes:
        name: what `model` in a request and /v1/models call it.
        entry: the model entry; None where files were given.
        files: role -> file, or files of several experts; empty where an entry was given.
        models: the user's models.toml; None for the usual one.
        runtime: changes to RuntimeOptions, such as {"parallel": 4}.
        generation: changes to GenerationOptions: the defaults of requests.
    """

    name: str
    entry: str | None = None
    files: Mapping[str, str | list[str]] = field(default_factory=dict)
    models: Path | None = None
    runtime: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)

    def load(
        self, progress: Callable[[float], None] | None = None, verbose: bool = False
    ) -> FusedModel:
        """Load it in the calling thread; `generation` becomes the defaults of its requests.

        Args:
            progress: called with 0 to 1; may raise to abort.
            verbose: have llama.cpp's own log.

        Raises:
            EftlocalError: as `eftlocal.load` does.
        """
        import eftlocal

        files: dict[str, Any] = dict(self.files)
        return eftlocal.load(
            None if files else self.entry,
            models=self.models,
            progress=progress,
            verbose=verbose,
            **files,
            **self.runtime,
            **self.generation,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one client may ask of the server, before any model is involved.

    Attributes:
        max_body: bytes of a request body.
        body_timeout: seconds that a body may take to arrive.
        max_requests: requests under way at once; more get 503.
        max_connections: open connections; more get 503.
        max_head: bytes of the request line and headers together.
        keep_alive: seconds until a connection without a whole request head is closed.
        write_timeout: seconds that a client may leave an answer unread.
    """

    max_body: int = 8 * 1024 * 1024
    body_timeout: float = 30.0
    max_requests: int = 256
    max_connections: int = 512
    max_head: int = 32 * 1024
    keep_alive: int = 30
    write_timeout: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is fixed while a server runs.

    Attributes:
        served: the models, the first being what requests without a name get.
        host, port: where to listen; port 0 takes a free one.
        unix_socket: listen there instead.
        open_page: whether a browser is opened when it listens.
        keys: any of them lets a request in; none where the server is open.
        insecure: whether an address that others reach may go without keys.
        allow_hosts: names that a Host header may have beside those of this machine.
        cors_origins: origins whose pages may use the server from a browser; "*" is any.
        queue: requests that may wait for a sequence, per model.
        max_loaded: models in memory at once; 0 takes as many as fit.
        idle_timeout: seconds without a request after which a model is unloaded; 0 is never, and
            None what its entry says.
        grace: seconds that running requests get when the server ends.
        limits: what a client may ask of it.
        log_json: one JSON object per line of the log.
        log_level: "debug", "info", "warning" or "error".
        verbose: whether llama.cpp's own log is wanted.
    """

    served: tuple[Served, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    unix_socket: Path | None = None
    open_page: bool = False
    keys: tuple[str, ...] = field(default=(), repr=False)
    insecure: bool = False
    allow_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    queue: int = 64
    max_loaded: int = 0
    idle_timeout: float | None = None
    grace: float = 4.0
    limits: Limits = Limits()
    log_json: bool = False
    log_level: str = "info"
    verbose: bool = False

    def __post_init__(self) -> None:
        """Raise UsageError for what cannot be served, or would be open to everybody."""
        names = [served.name for served in self.served]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"model {twice} is given twice; every model needs a name of its own")
        if not self.is_local and not self.keys and not self.insecure:
            raise UsageError(
                f"--host {self.host} can be reached by other machines: give --api-key-file FILE, "
                "or --insecure to let everybody in"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.unix_socket is not None or is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a bind address is one of this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
