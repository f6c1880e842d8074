"""How tests make this process, or another one, use a stand-in hub and a cache of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .hub_server import HubServer

NO_PROXY = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
"""The stand-in is on this machine, whatever proxy the others are behind."""


@contextmanager
def hub_at(server: HubServer, home: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let this process use the stand-in and an own cache; yields the cache.

    The hub's library reads its settings when it is imported, hence its constants.
    """
    from huggingface_hub import constants

    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    with patch.context() as own:
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_DOWNLOAD_TIMEOUT": 2,
            "HF_HUB_ETAG_TIMEOUT": 2,
        }.items():
            own.setattr(constants, name, value)
        own.delenv("HF_TOKEN", raising=False)
        for name, value in NO_PROXY.items():
            own.setenv(name, value)
        yield home / "hub"


def hub_settings(server: HubServer, home: Path) -> dict[str, str]:
    """Variables with which a process uses the stand-in and an own cache."""
    return NO_PROXY | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
        "HF_TOKEN": "",
    }


def hub_environment(server: HubServer, home: Path, **more: str) -> dict[str, str]:
    """The whole environment of such a process."""
    return dict(os.environ) | hub_settings(server, home) | more


def in_cache(cache: Path) -> dict[str, bytes]:
    """Every file in a cache that is not a link, by its path; locks are left out."""
    return {
        path.relative_to(cache).as_posix(): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and not path.is_symlink() and ".locks" not in path.parts
    }


def stored_bytes(cache: Path) -> int:
    """Bytes of all contents in a cache, complete or not."""
    total = 0
    for path in cache.glob("*/blobs/*"):
        with suppress(FileNotFoundError):  # it has just got its final name
            total += path.stat().st_size
    return total
