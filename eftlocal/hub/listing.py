"""What a repository holds, as dataclasses: names, sizes, hashes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import HubError
from ..registry import Source
from .client import ask_repository, file_url
from .failures import Absent, Patience
from .names import check_name, choose, describe, models_in, shards_of

MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository at one commit.

    Attributes:
        repository, name: where it is.
        size: bytes.
        digest: its sha256; or for a file that is not in large-file storage git's sha1 of it.
        commit: of the repository.
        revision: the branch, tag or commit that was asked for.
    """

    repository: str
    name: str
    size: int
    digest: str
    commit: str
    revision: str = MAIN

    def __str__(self) -> str:
        return f"{self.repository}/{self.name}"

    @property
    def url(self) -> str:
        """Where it is read from."""
        return file_url(self.repository, self.name, self.commit)


@dataclass(frozen=True, slots=True)
class Remote:
    """A model on the hub.

    Attributes:
        size: bytes of all its files.
        sha256: of its first file; None where the hub does not say it.
        revision: the commit.
        files: one, or all shards in their order.
    """

    size: int
    sha256: str | None
    revision: str
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of a repository at one commit: name -> file."""

    repository: str
    commit: str
    files: Mapping[str, RemoteFile]

    def find_name(self, source: Source) -> str:
        """The name of a source's file, the first one of several shards.

        Raises:
            HubError: where there is none; says what there is.
        """
        if source.file is None:
            found = choose(self.files, source.quant or "")
            if found is None:
                raise Absent(
                    f"{self.repository} has no {source.quant} file; it has: "
                    f"{describe(self.files)}; name one as hf:{self.repository}:QUANT"
                )
            return found
        first = shards_of(source.file)[0]
        if first not in self.files:
            same = [name for name in models_in(self.files) if name.lower() == first.lower()]
            hint = f"did you mean {same[0]}? " if same else ""
            raise Absent(
                f"{self.repository} has no file {first}; {hint}it has: {describe(self.files)}; "
                f"name one as hf:{self.repository}:QUANT, or `eftlocal models` has other entries"
            )
        return first

    def find(self, source: Source) -> Remote:
        """The files of a source.

        Raises:
            HubError: where one is missing, or its hash is not the one that the source states.
        """
        names = shards_of(self.find_name(source))
        for name in names:
            if name not in self.files:
                raise Absent(
                    f"{self.repository} lacks the shard {name}, one of {len(names)}; tell its "
                    "publisher, or choose another quantization"
                )
        files = tuple(self.files[name] for name in names)
        sha256 = files[0].digest if len(files[0].digest) == 64 else None
        if source.sha256 is not None and sha256 != source.sha256:
            raise HubError(
                f"{files[0]}: its sha256 on the hub is {sha256}, the model entry says "
                f"{source.sha256}: the file was changed; if you trust it, correct the entry"
            )
        return Remote(sum(file.size for file in files), sha256, self.commit, files)


def list_files(repository: str, revision: str | None, patience: Patience | None = None) -> Listing:
    """Ask the hub what a repository holds.

    Raises:
        HubError: where it cannot be had.
    """
    if revision is not None:
        check_name(revision, "revision")
    info = ask_repository(repository, revision, patience or Patience())
    commit = info.sha
    if not (isinstance(commit, str) and _COMMIT.fullmatch(commit)):
        raise HubError(f"{repository}: the hub names no commit of it; check HF_ENDPOINT")
    listed = (_file(repository, item, commit, revision) for item in info.siblings or ())
    return Listing(repository, commit, {file.name: file for file in listed if file is not None})


def _file(repository: str, item: Any, commit: str, revision: str | None) -> RemoteFile | None:
    """One line of the hub's list; None for what has no size or hash, which no model file lacks."""
    digest = item.lfs.sha256 if item.lfs else item.blob_id
    size = item.lfs.size if item.lfs else item.size
    if not isinstance(size, int) or not _DIGEST.fullmatch(digest or ""):
        return None
    if size < 0:
        raise HubError(f"{repository}/{item.rfilename}: the hub gives a size of {size} bytes")
    return RemoteFile(repository, item.rfilename, size, digest, commit, revision or MAIN)
