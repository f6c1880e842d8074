"""How many threads this process should compute with."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

_CPU = "/sys/devices/system/cpu"
_LOAD = "/proc/loadavg"
_TASKS = "/proc/self/task"
_CGROUP = "/sys/fs/cgroup"
_OWN_CGROUP = "/proc/self/cgroup"
# So often in a row a core must be seen busy before it is given up, idle before it is taken.
_SAMPLES_TO_GIVE, _SAMPLES_TO_TAKE = 2, 8


class IdleCores:
    """How many of the usable cores other programs leave idle, followed over time.

    A step waits for its slowest thread. With two threads on two cores, one of them busy with
    another program, small models were seen to be 28 times slower than with one thread. So a core
    is given up soon after it is needed elsewhere, and taken back only when it has been idle for a
    while.

    Args:
        usable: cores that this process may use; None finds out.
        load_file, tasks: where Linux tells what runs: on this machine, and of this process.

    Attributes:
        threads: to compute with, at least 1.
    """

    def __init__(
        self, usable: int | None = None, load_file: str = _LOAD, tasks: str = _TASKS
    ) -> None:
        self._usable = usable or usable_cores()
        self._sources = Path(load_file), Path(tasks)
        self._seen: deque[int] = deque(maxlen=_SAMPLES_TO_TAKE)
        for wait in (0.0, 0.004, 0.004):
            time.sleep(wait)
            self._seen.append(self._idle())
        self.threads = max(self._seen)

    def look(self) -> int:
        """Look once more, best every half a second; returns `threads`."""
        self._seen.append(self._idle())
        self.threads = min(self.threads, max(list(self._seen)[-_SAMPLES_TO_GIVE:]))
        if len(self._seen) == _SAMPLES_TO_TAKE:
            self.threads = max(self.threads, min(self._seen))
        return self.threads

    def _idle(self) -> int:
        """Cores that are idle this moment, but for this process; at least 1."""
        load, tasks = self._sources
        try:
            running = int(load.read_text().split()[3].split("/")[0])
        except (OSError, ValueError, IndexError):
            return self._usable
        others = running - sum(map(_is_running, tasks.glob("*/stat")))
        return max(1, min(self._usable, (os.cpu_count() or 1) - others))


def _is_running(stat: Path) -> bool:
    """Whether a thread of this process runs or wants to; its name in brackets may hold spaces."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "R"
    except (OSError, IndexError):
        return False


def usable_cores(
    cpu_root: str = _CPU, cgroup_root: str = _CGROUP, own_cgroup: str = _OWN_CGROUP
) -> int:
    """Physical cores that this process may use: its affinity, within its cgroups' CPU limits.

    More threads than free cores make a step many times slower, so hyper-threads do not count.
    """
    if sys.platform == "darwin":
        return _performance_cores()
    if hasattr(os, "sched_getaffinity"):
        cores = _physical_cores(os.sched_getaffinity(0), cpu_root)
    else:
        cores = max(1, (os.cpu_count() or 2) // 2)
    return max(1, math.floor(min(cores, _cgroup_limit(cgroup_root, own_cgroup))))


def _physical_cores(cpus: Iterable[int], root: str) -> int:
    """Cores behind the given logical CPUs; each CPU is its own core where Linux does not say."""
    cores = set()
    for cpu in cpus:
        siblings = Path(root, f"cpu{cpu}", "topology", "thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def _cgroup_limit(root: str, own: str) -> float:
    """CPUs granted by this process's cgroup and those above it; infinity without a limit.

    Args:
        root: where cgroups are mounted; a container sees its own cgroup there.
        own: a file with lines such as `0::/user.slice` (v2) and `4:cpu,cpuacct:/docker/7f` (v1).
    """
    version_2, version_1 = Path(root), Path(root, "cpu")
    groups = {version_2, version_1}
    with contextlib.suppress(OSError):
        for line in Path(own).read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            mount = version_1 if controllers else version_2
            if not controllers or "cpu" in controllers.split(","):
                group = mount / path.strip("/")
                groups |= {g for g in (group, *group.parents) if g.is_relative_to(mount)}
    return min(_quota(group) for group in groups)


def _quota(group: Path) -> float:
    """CPUs granted by one cgroup (v2: cpu.max, v1: two files), infinity where it says nothing."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        cpus = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return math.inf
    return cpus if cpus > 0 else math.inf


def _performance_cores() -> int:
    """Performance cores of a Mac (efficiency cores slow every step down)."""
    for name in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):
        found = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
        if found.stdout.strip().isdigit():
            return int(found.stdout)
    return max(1, (os.cpu_count() or 2) // 2)
