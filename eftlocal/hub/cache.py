"""The Hugging Face cache on disk: where a file of a repository lies, and whether it is there.

Layout (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), per repository:
    blobs/DIGEST                 the contents
    blobs/DIGEST.eftlocal.incomplete   what is fetched so far; ours, next to where the blob will be
    snapshots/COMMIT/NAME        a symbolic link to a blob, or the file itself where there are none
    refs/REVISION                the commit that a branch or tag meant when it was last asked for
and .locks/REPOSITORY/DIGEST.lock, which the hub's own tools take too.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import HubError, NotDownloaded
from ..registry import Source
from .client import file_lock
from .listing import MAIN, RemoteFile
from .names import check_name, choose, shards_of

_PARTIAL = ".eftlocal.incomplete"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one file of the hub lies in the cache.

    Attributes:
        blob: its contents.
        partial: what is fetched of it so far.
        pointer: its name in a snapshot.
        reference: the file that says which commit a revision is; None for a commit itself.
        lock: who holds it writes the others.
    """

    blob: Path
    partial: Path
    pointer: Path
    reference: Path | None
    lock: Path


def cache_folder() -> Path:
    """The cache that all programs share: HF_HUB_CACHE, else `hub` in HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def place_of(file: RemoteFile) -> Place:
    """Where a file of the hub belongs.

    Raises:
        HubError: for a name that cannot be stored.
    """
    folder = _repository_folder(file.repository)
    same = file.revision == file.commit
    return Place(
        blob=folder / "blobs" / file.digest,
        partial=folder / "blobs" / f"{file.digest}{_PARTIAL}",
        pointer=folder / "snapshots" / file.commit / check_name(file.name),
        reference=None if same else folder / "refs" / check_name(file.revision, "revision"),
        lock=_lock(folder, file.digest),
    )


def local_copy(file: RemoteFile) -> Path | None:
    """The complete copy of a file at its commit, by its size; None where there is none."""
    pointer = place_of(file).pointer
    return pointer if _size(pointer) == file.size else None


def fetched_bytes(file: RemoteFile) -> int:
    """How much of a file is in the cache: all of it, or what earlier attempts left."""
    place = place_of(file)
    if file.size in (_size(place.pointer), _size(place.blob)):
        return file.size
    return min(_size(place.partial), file.size)


def remove_partials(repository: str, current: Collection[str]) -> None:
    """Remove what was fetched of files that the hub has replaced since; nobody would go on there.

    Args:
        repository: whose.
        current: digests of the files that it has now.
    """
    folder = _repository_folder(repository)
    for partial in (folder / "blobs").glob(f"*{_PARTIAL}"):
        digest = partial.name.removesuffix(_PARTIAL)
        if digest not in current:
            # A process that is at work on it holds the lock.
            with suppress(OSError), file_lock(_lock(folder, digest), 0.05):
                partial.unlink(missing_ok=True)


def resolve(hf: str, file: str, revision: str | None = None, entry: str | None = None) -> Path:
    """The downloaded copy of a file of a repository; of a model in shards the first of them.

    Args:
        hf: the repository.
        file: the name of the file in it.
        revision: a branch, tag or commit; None takes the newest copy.
        entry: the name of the model entry that it belongs to, for the message.

    Raises:
        NotDownloaded: where it, or one of its shards, is not in the cache; says how to get it.
    """
    folder = _repository_folder(hf)
    names = shards_of(file)
    lacking: list[str] = names
    for snapshot in _snapshots(folder, revision):
        missing = [name for name in names if not (snapshot / check_name(name)).is_file()]
        if not missing:
            return snapshot / names[0]
        lacking = min(lacking, missing, key=len)
    what = f"{hf}/{file}"
    if 0 < len(lacking) < len(names):
        what = f"the shard {hf}/{lacking[0]} (one of {len(names)})"
    command = f"eftlocal pull {entry or f'hf:{hf}/{file}'}"
    raise NotDownloaded(f"{what} is not downloaded yet; get it with: {command}")


def is_downloaded(source: Source) -> bool:
    """Whether all files of a source are there; no network. A path is there if it is a file."""
    return find_local(source) is not None


def find_local(source: Source) -> Path | None:
    """The file of a source on this machine, the first of its shards; None where one is not there.

    Needs no network.
    """
    if source.path is not None:
        return source.path if source.path.is_file() else None
    if source.hf is None:
        return None
    try:
        file = source.file or find_downloaded(source)
        return None if file is None else resolve(source.hf, file, source.revision)
    except HubError:  # not there, or no name that could be there
        return None


def find_copy(repository: str, name: str, revision: str | None) -> Path | None:
    """The copy of one file, shard or not; None where there is none."""
    for snapshot in _snapshots(_repository_folder(repository), revision):
        if (snapshot / check_name(name)).is_file():
            return snapshot / name
    return None


def find_downloaded(source: Source) -> str | None:
    """The name of the downloaded file of a source that states only a quantization."""
    folder = _repository_folder(source.hf or "")
    for snapshot in _snapshots(folder, source.revision):
        names = (
            path.relative_to(snapshot).as_posix()
            for path in snapshot.rglob("*.gguf")
            if path.is_file()
        )
        found = choose(names, source.quant or "")
        if found is not None:
            return found
    return None


def _snapshots(folder: Path, revision: str | None) -> Iterator[Path]:
    """Snapshots that fit a revision, the best first; any where none is asked for."""
    check_name(revision or MAIN, "revision")
    commit = _read_text(folder / "refs" / (revision or MAIN))
    if commit:
        yield folder / "snapshots" / commit
    if revision is not None:
        yield folder / "snapshots" / revision
        return
    # Since a file was fetched, its branch may have moved for the sake of another file.
    try:
        others = [path for path in (folder / "snapshots").iterdir() if path.name != commit]
    except OSError:
        return
    yield from sorted(others, key=_changed, reverse=True)


def _repository_folder(repository: str) -> Path:
    check_name(repository, "repository")
    return cache_folder() / "--".join(("models", *repository.split("/")))


def _lock(folder: Path, digest: str) -> Path:
    return cache_folder() / ".locks" / folder.name / f"{digest}.lock"


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _size(path: Path) -> int:
    """Bytes of a file, links followed; 0 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
