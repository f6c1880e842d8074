"""Whether the models of an entry go together, by the headers of their files.

Of a file on the hub only the header is fetched, so that a mismatch is found before a download.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import gguf, hub
from .errors import ModelFileError
from .gguf import VOCABULARY_KEYS, Header, read_header
from .registry import Entry, Source


def check_entry(entry: Entry) -> dict[str, Header]:
    """Read the headers of an entry's files and check that its models share one vocabulary.

    Returns:
        Role -> header, roles as in `Entry.sources`.

    Raises:
        VocabularyMismatch: naming the first token that differs.
        ModelFileError: for a file that is missing, is no GGUF, or cannot play its role.
        HubError: for a file of the hub that cannot be read.
    """
    headers = read_headers(entry)
    check_headers(entry, headers)
    return headers


def check_vocabularies(sources: Sequence[Source]) -> None:
    """The same for sources whose roles do not matter.

    Raises:
        VocabularyMismatch: naming the first token that differs.
        ModelFileError: for a file that is missing or is no GGUF.
        HubError: for a file of the hub that cannot be read.
    """
    _check_tokens([_read(source) for source in dict.fromkeys(sources)])


def read_headers(entry: Entry) -> dict[str, Header]:
    """Role -> header of every file of an entry; each file is read once.

    Raises:
        ModelFileError: for a file that is missing or is no GGUF.
        HubError: for a file of the hub that cannot be read.
    """
    read: dict[Source, Header] = {}
    headers = {}
    for role, source in entry.sources():
        if source not in read:
            read[source] = _read(source)
        headers[role] = read[source]
    return headers


def check_headers(entry: Entry, headers: Mapping[str, Header]) -> int:
    """Check roles and vocabularies; returns the number of token ids that all models share.

    Raises:
        VocabularyMismatch: naming the first token that differs.
        ModelFileError: for a file that cannot play its role.
    """
    for role, source in entry.sources():
        header = headers[role]
        if header.is_adapter and not role.endswith("tuned"):
            raise ModelFileError(
                f"{header.name}: an adapter, not a whole model; only tuned can be one"
            )
        if source.scale is not None and not header.is_adapter:
            raise ModelFileError(f"{header.name}: a whole model, not an adapter; it has no scale")
    return _check_tokens(list(headers.values()))


def _check_tokens(headers: Sequence[Header]) -> int:
    """Compare the vocabularies of all whole models; adapters have none."""
    models = {header.name: header for header in headers if not header.is_adapter}
    return gguf.check_headers(models.values()) if models else 0


def _read(source: Source) -> Header:
    if source.path is not None:
        return read_header(source.path, keep=VOCABULARY_KEYS)
    with hub.open_remote(source) as file:
        return read_header(file, str(source), keep=VOCABULARY_KEYS)
