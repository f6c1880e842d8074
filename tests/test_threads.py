"""Affinity, hyper-threads and cgroup limits, from trees as Linux shows them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eftlocal.threads import IdleCores, usable_cores

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="affinity is a thing of Linux"
)
EIGHT = {0, 1, 2, 3, 4, 5, 6, 7}


@pytest.fixture
def cpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], None]:
    """Choose the logical CPUs that this process may use, beyond those of the machine."""
    return lambda allowed: monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)


@pytest.fixture
def real_affinity() -> Iterator[set[int]]:
    """The CPUs that this process may use; restored afterwards."""
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


def write(path: Path, text: str) -> None:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


class Machine:
    """A fake /sys and /proc."""

    def __init__(self, folder: Path) -> None:
        self.cpu, self.cgroup, self.own = folder / "cpu", folder / "cgroup", folder / "own"

    def siblings(self, lists: dict[int, str]) -> None:
        """Say which logical CPUs share a core."""
        for cpu, siblings in lists.items():
            write(self.cpu / f"cpu{cpu}" / "topology" / "thread_siblings_list", siblings)

    def cores(self) -> int:
        """What the process may use here."""
        return usable_cores(str(self.cpu), str(self.cgroup), str(self.own))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that says nothing yet."""
    return Machine(tmp_path)


def test_every_cpu_is_a_core_where_nothing_is_said(
    machine: Machine, cpus: Callable[[set[int]], None]
) -> None:
    """Without sysfs and cgroups it is the affinity that counts."""
    cpus({1, 3, 5})
    assert machine.cores() == 3


def test_hyper_threads_do_not_count(machine: Machine, cpus: Callable[[set[int]], None]) -> None:
    """Eight CPUs on four cores are four; two siblings alone are one."""
    machine.siblings({cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in EIGHT})
    cpus(EIGHT)
    assert machine.cores() == 4
    cpus({2, 6})
    assert machine.cores() == 1
    cpus({0, 1, 6})
    assert machine.cores() == 3


def test_the_affinity_of_this_process_counts(machine: Machine, real_affinity: set[int]) -> None:
    """As taskset would: pinned to one CPU, one core is left."""
    assert machine.cores() == len(real_affinity)
    os.sched_setaffinity(0, {min(real_affinity)})
    assert machine.cores() == 1


VERSION_2 = {
    "none": ("max 100000", 8),
    "three": ("300000 100000", 3),
    "a fraction": ("250000 100000", 2),
    "less than one": ("20000 100000", 1),
    "more than there are": ("6400000 100000", 8),
    "garbage": ("many", 8),
    "no period": ("100000 0", 8),
}


@pytest.mark.parametrize(("limit", "wanted"), VERSION_2.values(), ids=VERSION_2)
def test_version_2(
    machine: Machine, cpus: Callable[[set[int]], None], limit: str, wanted: int
) -> None:
    """cpu.max where a container sees its own cgroup at the root."""
    cpus(EIGHT)
    write(machine.cgroup / "cpu.max", limit)
    assert machine.cores() == wanted


VERSION_1 = {
    "none": ("-1", "100000", 8),
    "two": ("200000", "100000", 2),
    "less than one": ("50000", "100000", 1),
    "garbage": ("", "", 8),
}


@pytest.mark.parametrize(("quota", "period", "wanted"), VERSION_1.values(), ids=VERSION_1)
def test_version_1(
    machine: Machine, cpus: Callable[[set[int]], None], quota: str, period: str, wanted: int
) -> None:
    """cfs_quota_us and cfs_period_us of the cpu controller."""
    cpus(EIGHT)
    write(machine.cgroup / "cpu" / "cpu.cfs_quota_us", quota)
    write(machine.cgroup / "cpu" / "cpu.cfs_period_us", period)
    assert machine.cores() == wanted


def test_the_own_cgroup_and_those_above_it_count(
    machine: Machine, cpus: Callable[[set[int]], None]
) -> None:
    """On a host (systemd, Slurm) the limit stands at the process's own path or above it."""
    cpus(EIGHT)
    write(machine.own, "0::/user.slice/session-1.scope")
    session = machine.cgroup / "user.slice" / "session-1.scope"
    write(machine.cgroup / "user.slice" / "cpu.max", "500000 100000")
    write(session / "cpu.max", "max 100000")
    write(machine.cgroup / "other.slice" / "cpu.max", "100000 100000")
    assert machine.cores() == 5
    write(session / "cpu.max", "300000 100000")
    assert machine.cores() == 3


def test_the_own_cgroup_of_version_1_counts(
    machine: Machine, cpus: Callable[[set[int]], None]
) -> None:
    """Only the line of the cpu controller names a folder below it."""
    cpus(EIGHT)
    write(machine.own, "5:memory:/memory\n4:cpu,cpuacct:/docker/7f\n1:name=systemd:/other")
    for name, quota in {"docker/7f": "200000", "memory": "100000", "other": "100000"}.items():
        write(machine.cgroup / "cpu" / name / "cpu.cfs_quota_us", quota)
        write(machine.cgroup / "cpu" / name / "cpu.cfs_period_us", "100000")
    assert machine.cores() == 2


def test_a_path_that_is_not_mounted_here_is_ignored(
    machine: Machine, cpus: Callable[[set[int]], None]
) -> None:
    """A container's /proc may name the host's cgroup, of which it sees only its own root."""
    cpus(EIGHT)
    write(machine.own, "0::/../../host/container")
    write(machine.cgroup / "cpu.max", "400000 100000")
    assert machine.cores() == 4


def test_this_machine_has_at_least_one_core() -> None:
    """With the real roots it is one core or more, and never more than the affinity."""
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


class Running:
    """A fake of what Linux says of threads that run: of the machine, and of this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: 8)
        self.load, self.tasks = folder / "loadavg", folder / "task"

    def say(self, others: int, own: str = "R") -> None:
        """Set how many threads of others run, and the state of each of this process."""
        running = others + own.count("R")
        write(self.load, f"3.90 0.50 0.10 {running}/812 4711")
        shutil.rmtree(self.tasks, ignore_errors=True)
        for i, state in enumerate(own):
            write(self.tasks / str(i) / "stat", f"{i} (a) b (c) {state} 9581 9581 0 0")

    def cores(self, usable: int = 4) -> IdleCores:
        """What follows it."""
        return IdleCores(usable, str(self.load), str(self.tasks))


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    """A machine of eight cores."""
    return Running(tmp_path, monkeypatch)


def test_other_programs_keep_their_cores(running: Running) -> None:
    """What is runnable beside this process takes cores, but never the last one."""
    for others, threads in ((0, 4), (3, 4), (4, 4), (5, 3), (7, 1), (40, 1)):
        for own in ("R", "RRSR", "RSS"):
            running.say(others, own)
            assert running.cores().threads == threads


def test_a_core_is_given_up_soon_and_taken_back_late(running: Running) -> None:
    """One busy moment changes nothing, two do; eight idle ones in a row bring it back."""
    running.say(0)
    cores = running.cores()

    def look(*others: int) -> list[int]:
        seen = []
        for n in others:
            running.say(n)
            seen.append(cores.look())
        return seen

    assert look(7, 0, 6, 0, 8, 0) == [4] * 6
    assert look(7, 7) == [4, 1]
    assert look(0, 0, 0, 6, 0, 0, 0) == [1] * 7
    assert look(0, 0, 0, 0, 0) == [2, 2, 2, 2, 4]


@pytest.mark.parametrize("content", ["", "0.1 0.2", "a b c d/e f", "0.1 0.2 0.3 /5 6"])
def test_without_a_load_all_usable_cores_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """Other systems, or a file that says nothing."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    file = tmp_path / "loadavg"
    file.write_text(content)
    missing = str(tmp_path / "missing")
    assert IdleCores(3, str(file), missing).look() == 3
    assert IdleCores(3, missing, missing).look() == 3
