"""`eftlocal serve` as a process of its own, as users run it."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .cli_helpers import command, environment

READY = "eftlocal serves "


@dataclass
class Server:
    """A process that serves, and what it has written on stderr so far."""

    process: subprocess.Popen[str]
    lines: list[str]

    @property
    def log(self) -> str:
        """All lines of stderr."""
        return "".join(self.lines)

    @property
    def url(self) -> str:
        """Where it serves; waits until it says so."""
        found = re.search(r"at (http://\S+|unix:\S+)", self.wait_for(r"listening at|" + READY))
        assert found is not None
        return found[1].rstrip(",")

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """The first line that matches."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if re.search(pattern, line):
                    return line
            if self.process.poll() is not None and not self.reader.is_alive():
                break
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in:\n{self.log}")

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    @property
    def memory(self) -> int:
        """Bytes of anonymous memory, which is no file's: what leaks would be."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.findall(r"^Anonymous: +([0-9]+) kB", text, re.MULTILINE)[0]) * 1024

    def terminate(self) -> int:
        """Send SIGTERM; the exit code."""
        self.process.terminate()
        return self.wait()

    def wait(self, seconds: float = 30) -> int:
        """The exit code."""
        code = self.process.wait(seconds)
        self.reader.join(10)
        return code


@contextmanager
def serving(
    folder: Path, *args: str, ready: bool = True, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run `eftlocal serve` on a free port until the block ends.

    Args:
        folder: for what it writes.
        args: more options.
        ready: wait until the model is loaded.
        env: more of the environment.
    """
    place = () if "--unix-socket" in args else ("--port", "0")
    process = subprocess.Popen(
        command("serve", *place, *args),
        # glibc gives many threads a heap each; how many is no question of leaks.
        env=environment(folder, MALLOC_ARENA_MAX="2", **(env or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    server = Server(process, [])
    try:
        if ready:
            server.wait_for(READY)
        yield server
    finally:
        process.kill()
        process.wait()
        server.reader.join(10)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
