"""Downloads the files of several sources at once, after it is known that there is room for them."""

from __future__ import annotations

import queue
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread

from ..errors import HubError
from ..registry import Source
from . import cache
from .failures import Patience
from .listing import Listing, Remote, RemoteFile, list_files
from .names import shards_of
from .transfer import Stopped, Transfer

_PARALLEL = 4
_TICK = 0.2
_STOPPING_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is, over all its files.

    Attributes:
        done, total: bytes that are there, and that there will be.
        fetched: bytes that came over the network since it began.
        files_done, files: complete files, and all.
        note: what it waits for, "" while bytes come.
    """

    done: int
    total: int
    fetched: int
    files_done: int
    files: int
    note: str


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a download will do.

    Attributes:
        remotes: what the hub says of each source, in order; None for a path.
        paths: the sources' own paths; None for what is on the hub.
        current: repository -> digests of all its files, where its main branch was looked at.
    """

    remotes: tuple[Remote | None, ...]
    paths: tuple[Path | None, ...]
    current: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """Every file once; sources may share some."""
        return tuple(
            dict.fromkeys(file for remote in self.remotes if remote for file in remote.files)
        )

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def missing(self) -> int:
        """Bytes that are not in the cache yet."""
        blobs = {(file.repository, file.digest): file for file in self.files}
        return sum(file.size - cache.fetched_bytes(file) for file in blobs.values())

    def check_space(self) -> None:
        """Find out whether the missing bytes fit on the disk.

        Raises:
            HubError: where they do not; says what is needed and what is free.
        """
        folder = cache.cache_folder()
        missing, free = self.missing(), free_bytes(folder)
        if missing > free:
            raise HubError(
                f"not enough space: {gigabytes(missing)} are to be fetched, {gigabytes(free)} are "
                f"free in {folder}: free some, or set HF_HOME to a folder on another disk"
            )

    def fetch(
        self,
        on_progress: OnProgress | None = None,
        patience: Patience | None = None,
        repair: bool = False,
    ) -> list[Path]:
        """Have all files in the cache; what is there already is not fetched again.

        Args:
            on_progress: called in this thread, about five times a second.
            patience: how often a transfer is tried.
            repair: compare files that are there with their hashes, and fetch wrong ones again.

        Returns:
            For every source its file, of a model in shards the first one.

        Raises:
            HubError: for the first file that cannot be had; what was fetched stays.
        """
        self.check_space()
        stop = Event()
        transfers = [Transfer(file, stop, patience or Patience()) for file in self.files]
        _run(transfers, on_progress or (lambda progress: None), repair)
        for repository, digests in self.current.items():
            cache.remove_partials(repository, digests)
        places = []
        for path, remote in zip(self.paths, self.remotes, strict=True):
            if path is not None:
                places.append(path)
            elif remote is not None:
                places.append(cache.place_of(remote.files[0]).pointer)
        return places


def prepare(sources: Sequence[Source], patience: Patience | None = None) -> Plan:
    """Ask the hub for the files of sources.

    Raises:
        HubError: where one of them cannot be had.
    """
    listings: dict[tuple[str, str | None], Listing] = {}
    remotes = []
    for source in sources:
        key = (source.hf or "", source.revision)
        if source.path is None and key not in listings:
            listings[key] = list_files(*key, patience)
        remotes.append(None if source.path else listings[key].find(source))
    current = {
        repository: frozenset(file.digest for file in listing.files.values())
        for (repository, revision), listing in listings.items()
        if revision is None
    }
    return Plan(tuple(remotes), tuple(source.path for source in sources), current)


def download(
    sources: Sequence[Source],
    on_progress: OnProgress | None = None,
    patience: Patience | None = None,
) -> list[Path]:
    """Have the files of sources in the shared cache, see `prepare` and `Plan.fetch`."""
    return prepare(sources, patience).fetch(on_progress, patience)


def remote(source: Source) -> Remote:
    """What the hub says of a source: size, sha256, commit, files.

    Raises:
        HubError: where that cannot be had.
    """
    return list_files(source.hf or "", source.revision).find(source)


def find_file(source: Source) -> Source:
    """The same source with the name of its file, where it states only a quantization.

    What is downloaded comes first, so that nothing is asked of the hub for it.

    Raises:
        HubError: where the hub has no such file, or cannot be asked.
    """
    if source.file is not None or source.path is not None:
        return source
    file = cache.find_downloaded(source)
    if file is None:
        file = list_files(source.hf or "", source.revision).find_name(source)
    return replace(source, file=shards_of(file)[0], quant=None)


def free_bytes(folder: Path | None = None) -> int:
    """Free bytes of the disk that a folder is on, by default the cache; it need not exist yet."""
    folder = folder or cache.cache_folder()
    for place in (folder, *folder.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return 0


def gigabytes(size: int) -> str:
    """A number of bytes for people: 4.68 GB, 12.3 MB."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            value = size / 10**power
            return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{size} bytes"


def _run(transfers: Sequence[Transfer], on_progress: OnProgress, repair: bool) -> None:
    """Work through all transfers in threads; the first failure ends the others."""
    waiting: queue.SimpleQueue[Transfer] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[Transfer, BaseException | None]] = queue.SimpleQueue()
    # Two names of one digest wait for the same lock, so a thread more would not help.
    for transfer in sorted(transfers, key=lambda transfer: -transfer.file.size):
        waiting.put(transfer)

    def work() -> None:
        while not waiting.empty():
            try:
                transfer = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                transfer.run(repair)
                finished.put((transfer, None))
            except BaseException as error:
                finished.put((transfer, error))
                return

    # Daemons, because a read that hangs must not keep a process alive that wants to end.
    threads = [Thread(target=work, daemon=True) for _ in range(min(_PARALLEL, len(transfers)))]
    for thread in threads:
        thread.start()
    try:
        _watch(transfers, finished, on_progress)
    finally:
        for transfer in transfers:
            transfer.stop.set()
        _join(threads)


def _watch(
    transfers: Sequence[Transfer],
    finished: queue.SimpleQueue[tuple[Transfer, BaseException | None]],
    on_progress: OnProgress,
) -> None:
    n_done = 0
    while n_done < len(transfers):
        try:
            _, error = finished.get(timeout=_TICK)
            n_done += 1
        except queue.Empty:
            error = None
        on_progress(_progress(transfers, n_done))
        if error is not None and not isinstance(error, Stopped):
            raise error


def _progress(transfers: Sequence[Transfer], n_done: int) -> Progress:
    notes = (transfer.note for transfer in transfers if transfer.done < transfer.file.size)
    return Progress(
        done=sum(transfer.done for transfer in transfers),
        total=sum(transfer.file.size for transfer in transfers),
        fetched=sum(transfer.fetched for transfer in transfers),
        files_done=n_done,
        files=len(transfers),
        note=next(filter(None, notes), ""),
    )


def _join(threads: Iterable[Thread]) -> None:
    end = time.monotonic() + _STOPPING_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
