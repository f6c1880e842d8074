"""How many threads this process should compute with."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

_CPU = "/sys/devices/system/cpu"
_LOAD = "/proc/loadavg"
_CGROUP = "/sys/fs/cgroup"
_OWN_CGROUP = "/proc/self/cgroup"


def idle_cores(usable: int | None = None, load_file: str = _LOAD) -> int:
    """Of the usable cores, those that other programs leave idle right now; at least one.

    A step waits for its slowest thread. With two threads on two cores, one of them busy with
    another program, small models were seen to be 28 times slower than with one thread.
    """
    busy = min(_runnable(load_file, wait) for wait in (0.0, 0.004, 0.004)) - 1
    return max(1, min(usable or usable_cores(), (os.cpu_count() or 1) - busy))


def _runnable(load_file: str, wait: float) -> int:
    """Threads of this machine that run or want to, this one included; 1 where nobody says."""
    time.sleep(wait)
    try:
        return int(Path(load_file).read_text().split()[3].split("/")[0])
    except (OSError, ValueError, IndexError):
        return 1


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
