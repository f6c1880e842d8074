"""How many threads this process should compute with."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

_CPU = "/sys/devices/system/cpu"
_CGROUP = "/sys/fs/cgroup"


def usable_cores(cpu_root: str = _CPU, cgroup_root: str = _CGROUP) -> int:
    """Physical cores that this process may use: its affinity, within its cgroup's CPU limit.

    More threads than free cores make a step many times slower, so hyper-threads do not count.
    """
    if sys.platform == "darwin":
        return _performance_cores()
    if hasattr(os, "sched_getaffinity"):
        cores = _physical_cores(os.sched_getaffinity(0), cpu_root)
    else:
        cores = max(1, (os.cpu_count() or 2) // 2)
    return max(1, min(cores, math.floor(_cgroup_limit(cgroup_root))))


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


def _cgroup_limit(root: str) -> float:
    """CPUs granted by the cgroup (v2, then v1), at least 1; without a limit, infinity."""
    try:
        quota, period = Path(root, "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path(root, "cpu", "cpu.cfs_quota_us").read_text().strip()
            period = Path(root, "cpu", "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return sys.maxsize
    if quota == "max" or int(quota) <= 0:
        return sys.maxsize
    return max(1.0, int(quota) / int(period))


def _performance_cores() -> int:
    """Performance cores of a Mac (efficiency cores slow every step down)."""
    for name in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):
        found = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
        if found.stdout.strip().isdigit():
            return int(found.stdout)
    return max(1, (os.cpu_count() or 2) // 2)
