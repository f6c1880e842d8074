"""Fetches one file into the cache so that nothing is lost when it is stopped in any way.

Bytes are appended to a partial file next to the place of the blob as they arrive. Whoever comes
next, after a kill or a cut connection, hashes what is there and asks for the rest. Only a file
with the right hash gets the name of the blob, so there is never a wrong or half copy under it.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, get_ident
from typing import Any, BinaryIO

from ..errors import HubError
from . import cache
from .client import file_lock, read_range
from .failures import CutShort, Patience, disk_error, pause_before_retry, raise_explained
from .listing import RemoteFile

_BLOCK = 1 << 20
_LOCK_SECONDS = 0.3


class Stopped(Exception):
    """Somebody set the event that stops a download."""


@dataclass(slots=True)
class Transfer:
    """One file on its way; other threads may read its numbers.

    Attributes:
        file: what is fetched.
        stop: ends it.
        done: bytes that are there, of `file.size`.
        fetched: bytes that this process took from the network.
        note: what it waits for, "" while bytes come.
    """

    file: RemoteFile
    stop: Event
    patience: Patience
    done: int = 0
    fetched: int = 0
    note: str = ""

    def run(self, repair: bool = False) -> Path:
        """Have the file in the cache; returns its name there.

        Args:
            repair: compare a copy that is there with its hash, and fetch a wrong one again.

        Raises:
            HubError: where that is not possible; what was fetched stays.
            Stopped: after `stop`.
        """
        place = cache.place_of(self.file)
        try:
            if not repair and cache.local_copy(self.file) is not None:
                # In a cache that is read-only there is nothing to keep.
                with suppress(OSError):
                    _keep_reference(place, self.file.commit)
            else:
                for folder in (place.blob.parent, place.lock.parent):
                    folder.mkdir(parents=True, exist_ok=True)
                self._with_lock(place, repair)
        except OSError as error:
            raise disk_error(error, cache.cache_folder()) from error
        self.done = self.file.size
        return place.pointer

    def _with_lock(self, place: cache.Place, repair: bool) -> None:
        while True:
            self._check()
            with ExitStack() as stack:
                try:
                    stack.enter_context(file_lock(place.lock, _LOCK_SECONDS))
                except TimeoutError:
                    self.note = "another process fetches it"
                    self.done = cache.fetched_bytes(self.file)
                    continue
                self.note = ""
                return self._make(place, repair)

    def _make(self, place: cache.Place, repair: bool) -> None:
        there = place.blob if place.blob.exists() else place.pointer
        if there.exists() and self._is_good(there, repair):
            place.partial.unlink(missing_ok=True)
        else:
            self._fetch(place)
            there = place.blob
        _publish(place, there, self.file.commit)

    def _is_good(self, path: Path, compare_hash: bool) -> bool:
        if path.stat().st_size != self.file.size:
            return False
        return not compare_hash or self._digest_of(path) == self.file.digest

    def _fetch(self, place: cache.Place) -> None:
        """Complete the partial file and give it the name of the blob."""
        resumed = place.partial.exists() and place.partial.stat().st_size > 0
        digest = self._complete(place.partial)
        if digest != self.file.digest and resumed:
            # Power cuts leave blocks of zeros at the end of files: what was there does not count.
            place.partial.unlink()
            digest = self._complete(place.partial)
        if digest != self.file.digest:
            place.partial.unlink()
            raise HubError(
                f"{self.file}: wrong checksum: what came has {digest}, the hub says "
                f"{self.file.digest}; it was thrown away: try again, and if that does not help, "
                "do not trust this network"
            )
        os.replace(place.partial, place.blob)

    def _complete(self, partial: Path) -> str:
        """Fetch what a partial file lacks; returns the digest of the whole."""
        with open(partial, "ab", buffering=0):
            pass
        with open(partial, "r+b", buffering=0) as out:
            size = os.fstat(out.fileno()).st_size
            if size > self.file.size:
                out.truncate(size := 0)
            hasher = new_hasher(self.file.digest, self.file.size)
            self._read(out, size, hasher)
            self._receive(out, hasher)
            os.fsync(out.fileno())
        return str(hasher.hexdigest())

    def _receive(self, out: BinaryIO, hasher: Any) -> None:
        failures = 0
        while self.done < self.file.size:
            before = self.done
            try:
                self._receive_once(out, hasher)
                if self.done == before:
                    raise CutShort("it was closed without an answer")
                failures = 0
            except (HubError, Stopped):
                raise
            except Exception as error:
                failures = 1 if self.done > before else failures + 1
                pause = pause_before_retry(error)
                if pause is None or failures > self.patience.retries:
                    with raise_explained(self.file.repository, self.file.name):
                        raise
                self._wait(max(pause, self.patience.seconds(failures)), error)

    def _receive_once(self, out: BinaryIO, hasher: Any) -> None:
        with read_range(self.file.url, self.done, self.file.size) as pieces:
            for piece in pieces:
                self._check()
                self.note = ""
                data = piece[: self.file.size - self.done]
                _write(out, data)
                hasher.update(data)
                self.done += len(data)
                self.fetched += len(data)
                if self.done >= self.file.size:
                    return

    def _wait(self, seconds: float, error: Exception) -> None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        self.note = f"trying again ({status or 'no connection'})"
        if self.stop.wait(seconds):
            raise Stopped

    def _digest_of(self, path: Path) -> str:
        hasher = new_hasher(self.file.digest, self.file.size)
        with open(path, "rb", buffering=0) as file:
            self._read(file, self.file.size, hasher)
        return str(hasher.hexdigest())

    def _read(self, file: BinaryIO, size: int, hasher: Any) -> None:
        """Hash the first bytes of a file, which may turn out to be fewer."""
        self.note = "checking what is there"
        self.done = 0
        while block := file.read(min(_BLOCK, size - self.done)):
            self._check()
            hasher.update(block)
            self.done += len(block)
        self.note = ""

    def _check(self) -> None:
        if self.stop.is_set():
            raise Stopped


def new_hasher(digest: str, size: int) -> Any:
    """What makes such a digest: sha256, or the sha1 with which git names a blob of that size."""
    if len(digest) == 64:
        return hashlib.sha256()
    return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)


def _write(out: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        # A raw file may take less than all of it.
        view = view[out.write(view) :]


def _publish(place: cache.Place, there: Path, commit: str) -> None:
    """Give complete contents their name in the snapshot, and note the commit."""
    linked = place.pointer.exists() and place.pointer.samefile(there)
    if not linked:
        place.pointer.parent.mkdir(parents=True, exist_ok=True)
        place.pointer.unlink(missing_ok=True)
        try:
            place.pointer.symlink_to(os.path.relpath(place.blob, place.pointer.parent))
        except (OSError, NotImplementedError):
            # Without links, as on most Windows machines, the file itself stands in the snapshot.
            os.replace(place.blob, place.pointer)
    _keep_reference(place, commit)


def _keep_reference(place: cache.Place, commit: str) -> None:
    if place.reference is None or _says(place.reference, commit):
        return
    own = f"{place.reference.name}.{os.getpid()}.{get_ident()}.eftlocal"
    temporary = place.reference.with_name(own)
    place.reference.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(commit, encoding="utf-8")
    os.replace(temporary, place.reference)


def _says(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except OSError:
        return False
