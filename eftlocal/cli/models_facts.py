"""What can be said of a model entry without loading it: sizes, files, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import hub
from ..errors import EftlocalError
from ..options import RuntimeOptions
from ..registry import Entry, Source

if TYPE_CHECKING:
    from ..gguf import Header
    from ..memory import Device, Need, Plan

_OVERHEAD = 1.1
"""An entry's stated memory lacks compute buffers; with them it is about so many times as much."""


@dataclass(frozen=True, slots=True)
class Facts:
    """An entry and what is known of its files.

    Attributes:
        entry: the entry.
        sizes: source -> bytes, None where they are not known.
        present: source -> its file, None where it is not on this machine.
        need: what its models take, from their headers; None where files are not there.
        memory: bytes of that, or else an estimate; None where nothing is known.
    """

    entry: Entry
    sizes: Mapping[Source, int | None]
    present: Mapping[Source, Path | None]
    need: Need | None
    memory: int | None

    @property
    def size(self) -> int:
        """Bytes of all files whose size is known, each once."""
        return sum(size or 0 for size in self.sizes.values())

    @property
    def size_is_complete(self) -> bool:
        """Whether the size of every file is known."""
        return None not in self.sizes.values()

    @property
    def n_present(self) -> int:
        """How many files are on this machine."""
        return sum(path is not None for path in self.present.values())

    def plan(self, devices: Sequence[Device]) -> Plan | None:
        """What goes where; None where files are not there."""
        from ..memory import plan

        return None if self.need is None else plan(self.need, devices)

    def fits(self, devices: Sequence[Device]) -> bool | None:
        """Whether the models fit into what is free on devices; None where that is not known."""
        if not devices or self.memory is None:
            return None
        plan = self.plan(devices)
        if plan is not None:
            return plan.fits
        return self.memory <= sum(device.free for device in devices if device.kind != "igpu")


def gather(entry: Entry, read: dict[Path, Header] | None = None) -> Facts:
    """Look at the files of an entry; nothing is asked of the network.

    Args:
        entry: of the registry.
        read: headers that were read for other entries; gets those that are read for this one.
    """
    sources = dict.fromkeys(source for _, source in entry.sources())
    present = {source: hub.find_local(source) for source in sources}
    headers = _headers(entry, present, {} if read is None else read)
    sizes = {source: _size(source, path) for source, path in present.items()}
    need = None
    if headers is not None:
        for role, source in entry.sources():
            sizes[source] = headers[role].n_bytes
        need = _need(entry, headers)
    memory = need.total if need else _estimate(entry, sizes)
    return Facts(entry, sizes, present, need, memory)


def size_text(n_bytes: int) -> str:
    """A number of bytes for people: 4.68 GB, 12.3 MB, 900 kB."""
    for unit, power in (("GB", 9), ("MB", 6)):
        if n_bytes >= 10**power:
            return f"{n_bytes / 10**power:.3g} {unit}"
    return f"{n_bytes / 1000:.3g} kB"


def _headers(
    entry: Entry, present: Mapping[Source, Path | None], read: dict[Path, Header]
) -> dict[str, Header] | None:
    """Role -> header where all files are there and can be read."""
    from ..gguf import read_model

    headers = {}
    try:
        for role, source in entry.sources():
            path = present[source]
            if path is None:
                return None
            if path not in read:
                read[path] = read_model(path)
            headers[role] = read[path]
    except EftlocalError:
        return None
    return headers


def _need(entry: Entry, headers: Mapping[str, Header]) -> Need | None:
    from ..memory import need

    styles = {role: entry.style(role.rpartition(" ")[2]) for role in headers}
    try:
        return need(headers, RuntimeOptions().updated(entry.runtime), styles)
    except (EftlocalError, ValueError, KeyError):  # a shape that is not understood
        return None


def _size(source: Source, path: Path | None) -> int | None:
    if path is None:
        return source.size
    try:
        return max(path.stat().st_size, source.size or 0)
    except OSError:
        return source.size


def _estimate(entry: Entry, sizes: Mapping[Source, int | None]) -> int | None:
    if entry.memory is not None:
        return round(entry.memory * _OVERHEAD)
    known = [size for size in sizes.values() if size is not None]
    return round(sum(known) * _OVERHEAD) if len(known) == len(sizes) else None
