"""The output of `eftlocal generate`: a file that only grows, so that a stopped run goes on.

Beside OUTPUT lies OUTPUT.settings.json: a hash of the input and all settings. A run goes on after
the last whole line where both are the same; the input may have grown at its end.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from ..errors import UsageError
from ..textfiles import writing

Settings = Mapping[str, Any]
"""What all lines depend on, as JSON's types."""


class LineFile:
    """One file of lines; only whole lines count.

    Args:
        path: made where it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        with writing(path):
            self._file = os.open(path, flags, 0o644)
        self.done = self.failed = 0

    def lock(self) -> None:
        """Keep other processes that do this out, where the system can.

        Raises:
            UsageError: where one is at work.
        """
        try:
            import fcntl
        except ImportError:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another eftlocal generate is writing {self.path}") from None
        except OSError:
            return

    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        return os.fstat(self._file).st_size == 0

    def clear(self) -> None:
        """Forget everything in it."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)

    def find_end(self) -> None:
        """Count the whole lines and cut off what comes after the last one."""
        end = 0
        with open(os.dup(self._file), "rb") as file:
            file.seek(0)
            for line in file:
                if line.endswith(b"\n"):
                    end += len(line)
                    self.done += 1
                    self.failed += is_failure(line)
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)

    def write(self, text: str) -> None:
        """Put a line on the disk.

        Raises:
            EftlocalError: where it cannot be written; what was written of it is no whole line.
        """
        data = f"{text}\n".encode()
        with writing(self.path):
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def is_failure(line: bytes) -> bool:
    """Whether a line of an output tells an error."""
    if b'"error"' not in line:
        return False
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("error") is not None


@dataclass
class Pipe:
    """An output that cannot be read again: standard output, a pipe, a device."""

    name: str
    file: BinaryIO
    done: int = 0
    failed: int = 0

    def write(self, text: str) -> None:
        """Write a line at once.

        Raises:
            EftlocalError: where it cannot be written.
        """
        with writing(self.name):
            self.file.write(f"{text}\n".encode())
            self.file.flush()

    def close(self) -> None:
        """Close it, if it was opened here."""
        if self.file not in (sys.stdout.buffer, sys.stderr.buffer):
            # What could not be written has been told.
            with suppress(OSError):
                self.file.close()


class Output:
    """Where results go; use it as a context manager.

    Attributes:
        done, failed: lines that are there already, and those of them that tell errors.
        can_go_on: whether another run may write the rest.
    """

    def __init__(self, lines: LineFile | Pipe, errors: LineFile | Pipe | None) -> None:
        self._lines, self._errors = lines, errors
        self.done = lines.done + (errors.done if errors else 0)
        self.failed = lines.failed + (errors.done if errors else 0)
        self.can_go_on = isinstance(lines, LineFile)

    def write(self, text: str, is_error: bool) -> None:
        """Write the next line, or tell what went wrong with it.

        Raises:
            EftlocalError: where it cannot be written.
        """
        (self._errors if is_error and self._errors else self._lines).write(text)
        self.done += 1
        self.failed += is_error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()
        if self._errors:
            self._errors.close()


def open_output(
    name: str, content: bytes, settings: Settings, *, overwrite: bool, own_errors: bool
) -> Output:
    """Open an output where the last run stopped.

    Args:
        name: of the file; - is standard output.
        content: the whole input.
        settings: what else the lines depend on.
        overwrite: begin anew.
        own_errors: errors go to OUTPUT.errors.jsonl, or to stderr where OUTPUT is no file.

    Raises:
        UsageError: where the file holds something else.
        EftlocalError: where it cannot be written.
    """
    path = Path(name)
    if name == "-" or (path.exists() and not path.is_file() and not path.is_dir()):
        with writing(name):
            pipe = Pipe(name, sys.stdout.buffer if name == "-" else path.open("wb"))
        return Output(pipe, Pipe("stderr", sys.stderr.buffer) if own_errors else None)
    if path.is_dir():
        raise UsageError(f"--output {name} is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"--output {name}: there is no folder {path.parent}")
    anew = overwrite or not path.exists()
    beside = path.with_name(f"{path.name}.settings.json")
    told = path.with_name(f"{path.name}.errors.jsonl")
    with ExitStack() as opened:
        lines = LineFile(path)
        opened.callback(lines.close)
        lines.lock()
        with writing(path):
            has_errors = own_errors and told.exists() and told.stat().st_size > 0
            if not anew and (has_errors or not lines.is_empty()):
                _compare(path, beside, content, settings)
            errors = LineFile(told) if own_errors else None
            if errors:
                opened.callback(errors.close)
            for file in [lines, errors] if errors else [lines]:
                file.clear() if anew else file.find_end()
            _keep(beside, content, settings)
        opened.pop_all()
    return Output(lines, errors)


def _keep(beside: Path, content: bytes, settings: Settings) -> None:
    """Write the settings in one step."""
    told = {
        "input": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        "settings": dict(settings),
    }
    new = beside.with_name(f"{beside.name}.new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(told, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, beside)


def _compare(path: Path, beside: Path, content: bytes, settings: Settings) -> None:
    """Check that an output was made of this input with these settings.

    Raises:
        UsageError: naming the first difference.
    """
    advice = "name another --output, or give --overwrite to begin anew"
    try:
        told = json.loads(beside.read_text(encoding="utf-8"))
        size, digest = told["input"]["bytes"], told["input"]["sha256"]
        before = told["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{path} is there already, and no {beside.name} says what it was made of; {advice}"
        ) from None
    # JSON has no tuples.
    now = json.loads(json.dumps(dict(settings)))
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            was, is_now = (json.dumps(each.get(key)) for each in (before, now))
            raise UsageError(f"{path} was made with {key} = {was}, now it is {is_now}; {advice}")
    is_same = hashlib.sha256(content[:size]).hexdigest() == digest
    # More lines may have come, but no more of the last one.
    whole = content[:size].endswith(b"\n") or content[size:].startswith((b"\n", b"\r\n"))
    if not is_same or not (whole or len(content) == size):
        raise UsageError(f"{path} was made of another input; {advice}")
