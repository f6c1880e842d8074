"""Compares model files with what the hub, the cache and the model entries say of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import HubError
from ..registry import Source
from . import cache
from .failures import Absent
from .listing import Listing, RemoteFile, list_files
from .names import shards_of
from .transfer import new_hasher

_BLOCK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_AGAIN = "`eftlocal pull --repair` with its entry fetches it again"
OnBytes = Callable[[int, int], None]
"""Called with the bytes that are hashed and those that will be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one file.

    Attributes:
        name: repository and file, or the path.
        status: "ok"; "present" (there, with nothing to compare it with); "not downloaded";
            "outdated" (intact, but the hub has another one now); "wrong" (not what it should be);
            or "missing" (from the hub, or a path that does not exist).
        size: bytes of the copy here, or else of the file on the hub.
        detail: what is wrong and what to do, or else what is worth knowing; often empty.
        path: the copy here.
    """

    name: str
    status: str
    size: int | None = None
    detail: str = ""
    path: Path | None = None

    @property
    def is_good(self) -> bool:
        """Whether what is there, and what is stated, is right."""
        return self.status not in ("wrong", "missing")


@dataclass(frozen=True, slots=True)
class _Check:
    """A copy whose contents are to be compared with a digest, and what to say if they agree."""

    path: Path
    digest: str
    size: int
    good: Finding


def verify(
    sources: Iterable[Source], offline: bool = False, on_bytes: OnBytes | None = None
) -> list[Finding]:
    """Look at every file of some sources: is it on the hub as stated, is the copy here intact.

    Args:
        sources: each is looked at once.
        offline: ask nothing of the hub; copies are compared with the hashes that the cache and
            the model entries state.
        on_bytes: hears how far hashing is.

    Raises:
        HubError: where the hub cannot be asked.
    """
    listings: dict[tuple[str, str | None], Listing | Absent] = {}
    checks: list[_Check | Finding] = []
    for source in dict.fromkeys(
        replace(source, evidence=None, scale=None, size=None) for source in sources
    ):
        if source.path is not None:
            checks.append(_check_path(source, source.path))
        elif offline:
            checks += _check_cache(source)
        else:
            checks += _check_hub(source, listings)
    copies = dict.fromkeys(check for check in checks if isinstance(check, _Check))
    total, done = sum(check.size for check in copies), 0
    results: dict[_Check, Finding] = {}
    for check in copies:
        results[check] = _compare(check, _part(on_bytes, done, total))
        done += check.size
    found = (results[item] if isinstance(item, _Check) else item for item in checks)
    return list(dict.fromkeys(found))


def _check_path(source: Source, path: Path) -> _Check | Finding:
    if not path.is_file():
        return Finding(str(path), "missing", detail="there is no such file; correct the entry")
    size = path.stat().st_size
    good = Finding(str(path), "ok", size, path=path)
    if source.sha256 is None:
        return replace(good, status="present")
    return _Check(path, source.sha256, size, good)


def _check_cache(source: Source) -> Iterator[_Check | Finding]:
    """The files of a source as far as they are here."""
    file = source.file or cache.find_downloaded(source)
    if file is None:
        yield Finding(str(source), "not downloaded")
        return
    for name in shards_of(file):
        title = f"{source.hf}/{name}"
        path = cache.find_copy(source.hf or "", name, source.revision)
        if path is None:
            yield Finding(title, "not downloaded")
            continue
        size = path.stat().st_size
        digest = _stated_digest(path)
        # An entry states the hash of the one file that it names.
        wanted = source.sha256 if name == source.file else None
        if digest and wanted and digest != wanted:
            detail = f"the model entry states the sha256 {wanted}, the cache {digest}; {_AGAIN}"
            yield Finding(title, "wrong", size, detail, path)
        elif digest or wanted:
            yield _Check(path, wanted or digest, size, Finding(title, "ok", size, path=path))
        else:
            yield Finding(title, "present", size, path=path)


def _check_hub(
    source: Source, listings: dict[tuple[str, str | None], Listing | Absent]
) -> Iterator[_Check | Finding]:
    """The files of a source on the hub, and their copies here."""
    key = (source.hf or "", source.revision)
    if key not in listings:
        try:
            listings[key] = list_files(*key)
        except Absent as error:
            listings[key] = error
    listing = listings[key]
    if isinstance(listing, Absent):
        yield Finding(str(source), "missing", detail=str(listing))
        return
    try:
        files = listing.find(source).files
    except HubError as error:
        status = "missing" if isinstance(error, Absent) else "wrong"
        yield Finding(str(source), status, detail=str(error))
        return
    for file in files:
        yield _check_copy(file, source.revision)


def _check_copy(file: RemoteFile, revision: str | None) -> _Check | Finding:
    newest = cache.place_of(file).pointer
    found = newest if newest.is_file() else None
    path = found or cache.find_copy(file.repository, file.name, revision)
    if path is None:
        part = cache.fetched_bytes(file)
        detail = f"{part / file.size:.0%} of it is fetched" if part else ""
        return Finding(str(file), "not downloaded", file.size, detail)
    size = path.stat().st_size
    good = Finding(str(file), "ok", size, path=path)
    stated = file.digest if path == newest else _stated_digest(path)
    if stated != file.digest:
        old = "the hub has a newer one; `eftlocal pull` with its entry fetches it"
        good = replace(good, status="outdated", detail=old)
    return _Check(path, stated, size, good) if stated else good


def _stated_digest(path: Path) -> str:
    """The name of the blob that a snapshot links to, which is its digest; "" where it is none."""
    try:
        name = Path(os.readlink(path)).name
    except OSError:
        return ""
    return name if _DIGEST.fullmatch(name) else ""


def _compare(check: _Check, on_bytes: Callable[[int], None]) -> Finding:
    hasher = new_hasher(check.digest, check.size)
    done = 0
    try:
        with open(check.path, "rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                hasher.update(block)
                done += len(block)
                on_bytes(done)
    except OSError as error:
        detail = f"it cannot be read: {error.strerror or error}"
        return replace(check.good, status="wrong", detail=detail)
    digest = hasher.hexdigest()
    if digest == check.digest:
        return check.good
    detail = f"its hash is {digest}, it should be {check.digest}; {_AGAIN}"
    return replace(check.good, status="wrong", detail=detail)


def _part(on_bytes: OnBytes | None, start: int, total: int) -> Callable[[int], None]:
    if on_bytes is None:
        return lambda done: None
    return lambda done: on_bytes(start + done, total)
