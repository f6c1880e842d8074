"""Free RAM as Linux and its cgroups tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from eftlocal.memory import ram

GIB = 1 << 30


def machine(folder: Path, available: int = 8, total: int = 16) -> dict[str, str]:
    """Arguments of `ram` for a machine of so many GiB whose files stand in `folder`."""
    (folder / "cgroup").mkdir()
    lines = f"MemTotal: {total << 20} kB\nMemFree: 1 kB\nMemAvailable: {available << 20} kB\n"
    (folder / "meminfo").write_text(lines)
    (folder / "own").write_text("0::/\n")
    return {
        "meminfo": str(folder / "meminfo"),
        "cgroup_root": str(folder / "cgroup"),
        "own_cgroup": str(folder / "own"),
    }


def limit(group: Path, most: str, used: int, files: int = 0) -> None:
    """Give a cgroup (v2) a limit; `used` bytes of it are taken, `files` of them by files."""
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {files}\n")


def test_without_limits_it_is_what_is_available(tmp_path: Path) -> None:
    """Also where the cgroup says that there is no limit."""
    given = machine(tmp_path)
    limit(tmp_path / "cgroup", "max", 3 * GIB)
    found = ram(**given)
    assert found is not None
    assert (found.free, found.total, found.kind) == (8 * GIB, 16 * GIB, "cpu")


@pytest.mark.parametrize(
    ("most", "used", "files", "free"),
    [(4, 1, 0, 3), (4, 3, 2, 3), (4, 5, 0, 0), (12, 1, 0, 8)],
    ids=["limit", "files can go", "over the limit", "less is available"],
)
def test_a_cgroup_limits_it(tmp_path: Path, most: int, used: int, files: int, free: int) -> None:
    """What is left of the limit, where that is less."""
    given = machine(tmp_path)
    limit(tmp_path / "cgroup", str(most * GIB), used * GIB, files * GIB)
    found = ram(**given)
    assert found is not None
    assert (found.free, found.total) == (free * GIB, most * GIB)


def test_the_groups_above_count_too(tmp_path: Path) -> None:
    """Nested groups (v2), and the controller of its own (v1)."""
    given = machine(tmp_path)
    (tmp_path / "own").write_text("0::/user/app\n4:cpu,memory:/docker\n")
    limit(tmp_path / "cgroup" / "user", str(6 * GIB), 2 * GIB)
    limit(tmp_path / "cgroup" / "user" / "app", str(7 * GIB), 0)
    found = ram(**given)
    assert found is not None and found.free == 4 * GIB
    old = tmp_path / "cgroup" / "memory" / "docker"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text(str(3 * GIB))
    (old / "memory.usage_in_bytes").write_text(str(2 * GIB))
    found = ram(**given)
    assert found is not None and found.free == 1 * GIB


def test_this_machine_has_memory() -> None:
    """The real files can be read."""
    found = ram()
    assert found is not None
    assert 0 < found.free <= found.total
