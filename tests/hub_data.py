"""What a stand-in hub holds, what goes wrong with it, and what it was asked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

GOOD_TOKEN = "hf_good"


@dataclass
class Repository:
    """A model repository with one branch, main.

    Attributes:
        files: name -> contents.
        gated: only `GOOD_TOKEN` may read files.
        private: without `GOOD_TOKEN` it does not exist.
        claimed: name -> size that is stated instead of the true one.
        small: names that are not in large-file storage.
        xet: say that there is Xet storage, which these servers do not have.
    """

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    claimed: dict[str, int] = field(default_factory=dict)
    small: frozenset[str] = frozenset()
    xet: bool = False

    @property
    def commit(self) -> str:
        """Changes with the contents."""
        parts = [name + sha256(data) for name, data in sorted(self.files.items())]
        return hashlib.sha1("".join(parts).encode()).hexdigest()


@dataclass
class Fault:
    """What goes wrong, for so many requests.

    Attributes:
        at: "api", "resolve" or "storage".
        status, headers: of an answer instead of the one that was asked for.
        cut_after: bytes after which the connection is closed.
        stall_after: bytes after which nothing more comes.
        body: answered with status 200, such as a log-in page.
        flip: send the first byte wrong.
        times: how many requests.
        match: part of the path.
    """

    at: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    stall_after: int | None = None
    body: bytes | None = None
    flip: bool = False
    times: int = 1 << 30
    match: str = ""


@dataclass
class Seen:
    """One request: which server and path, the range and token that came, the bytes that left."""

    at: str
    method: str
    path: str
    range: str | None
    token: str | None
    sent: int = 0


def sibling(name: str, size: int, data: bytes, small: bool) -> dict[str, Any]:
    """A file as the hub describes it."""
    found: dict[str, Any] = {"rfilename": name, "size": size, "blobId": git_sha1(data)}
    if not small:
        found["lfs"] = {"sha256": sha256(data), "size": size, "pointerSize": 134}
    return found


@lru_cache(maxsize=64)
def sha256(data: bytes) -> str:
    """The name of a large file; remembered, because it is asked for at every request."""
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    """The name of a small file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
