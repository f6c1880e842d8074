"""Why a server cannot answer now: exceptions that say when to try again.

Unavailable(retry_after)  503 with Retry-After
├── Loading               the model entry is being loaded
├── Overloaded            the queue is full, or nothing idle can be unloaded
└── Closing               the server or the model entry is ending
ClientLeft                nobody reads the answer any more; status 499, which no one sees
"""

from __future__ import annotations

from ..errors import EftlocalError


class Unavailable(EftlocalError):
    """The server is sound but cannot take this request now.

    Args:
        retry_after: whole seconds until another try makes sense, at least 1.
        message: one line for the client; the class has a default.
    """

    default = "the server cannot take this request now; try again later"

    def __init__(self, retry_after: int = 1, message: str | None = None) -> None:
        super().__init__(message or self.default)
        self.retry_after = max(1, int(retry_after))


class Loading(Unavailable):
    """The model entry is being loaded."""

    default = "the model is being loaded; try again in a moment"


class Overloaded(Unavailable):
    """The queue is full, or every loaded model entry is busy."""

    default = "the server has too many requests; try again in a moment"


class Closing(Unavailable):
    """The server ends, or the model entry is being unloaded."""

    default = "the server is shutting down"


class LoadFailed(EftlocalError):
    """A model entry could not be loaded.

    Args:
        name: of the entry.
        reason: why, in a few words that may be shown to clients; the log says more.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"the model {name} cannot be loaded: {reason}; the server's log says more")


class ClientLeft(EftlocalError):
    """The client closed its connection before the answer was ready."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection")
