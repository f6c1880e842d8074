"""Memory of this machine: devices as data, and the RAM that this process may still take."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CGROUP = "/sys/fs/cgroup"
_OWN_CGROUP = "/proc/self/cgroup"
_MEMINFO = "/proc/meminfo"
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Device:
    """Something that holds layers of models.

    Attributes:
        name: such as "CUDA0"; "RAM" is this machine's own memory.
        kind: "cpu", "gpu", or "igpu" (a GPU that takes its memory out of the RAM).
        free, total: bytes.
        description: what it is, such as a card's name.
    """

    name: str
    kind: str
    free: int
    total: int
    description: str = ""


def ram(
    meminfo: str = _MEMINFO, cgroup_root: str = _CGROUP, own_cgroup: str = _OWN_CGROUP
) -> Device | None:
    """RAM that can be taken without swapping, within the limits of this process's cgroups.

    Args:
        meminfo: where Linux says what is free.
        cgroup_root: where cgroups are mounted; a container sees its own cgroup there.
        own_cgroup: a file with lines such as `0::/user.slice` (v2) and `4:memory:/docker/7f` (v1).

    Returns:
        None where the system does not say.
    """
    sizes = _meminfo(Path(meminfo)) or _sysconf()
    if sizes is None:
        return None
    free, total = sizes
    description = ""
    for limit, left in _limits(Path(cgroup_root), Path(own_cgroup)):
        if limit < total:
            total, description = limit, "limited by a cgroup"
        free = min(free, left)
    return Device("RAM", "cpu", max(free, 0), total, description)


def _meminfo(file: Path) -> tuple[int, int] | None:
    """(available, total) as Linux counts them: memory that files occupy can be taken."""
    try:
        lines = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
        available, total = (
            int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal")
        )
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return available, total


def _sysconf() -> tuple[int, int] | None:
    """(total, total): other systems do not tell without more packages what could be freed."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return total, total


def _limits(root: Path, own: Path) -> Iterator[tuple[int, int]]:
    """(limit, what is left of it) of this process's memory cgroup and those above it."""
    groups = {root, root / "memory"}
    with contextlib.suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            mount = root / "memory" if controllers else root
            if not controllers or "memory" in controllers.split(","):
                group = mount / path.strip("/")
                groups |= {g for g in (group, *group.parents) if g.is_relative_to(mount)}
    for group in sorted(groups):
        for limit_name, usage_name, cached_name in (_V2, _V1):
            with contextlib.suppress(OSError, ValueError):
                limit = int((group / limit_name).read_text())
                used = int((group / usage_name).read_text())
                if limit < _NO_LIMIT:
                    yield limit, limit - used + _cached(group / "memory.stat", cached_name)


def _cached(stat: Path, name: str) -> int:
    """Bytes of a cgroup that only keep files, and are given up where they are needed."""
    with contextlib.suppress(OSError, ValueError):
        for line in stat.read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0
