"""Changes the user's models.toml, and leaves everything else in it as it stands.

The text is cut by the lines of its statements, so that comments, order and blanks survive; what
comes out is read again and compared before the file is touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import RegistryError, UsageError
from .entries import Entry
from .lines import Statement, read_layout
from .reading import ENTRY_NAME, parse_entries, parse_toml, read_text
from .writing import format_entry

_FIRST_LINES = """\
# Your model entries for eftlocal; of two entries with one name, the one here counts.
# `eftlocal models add` and `eftlocal models remove` change this file; so may you.
"""


def add_entry(file: Path, entry: Entry, replace: bool = False) -> None:
    """Write an entry into a models.toml, which is made where there is none.

    Args:
        file: the user's file.
        entry: what to write; stands at the end of the file, or in the place of the one before.
        replace: whether there may be one of this name in the file already.

    Raises:
        RegistryError: where there is one already, or the file cannot be read, edited or written;
            it is then as it was.
    """
    with _alone(file):
        _write(file, _with(entry, file, replace))


def _with(entry: Entry, file: Path, replace: bool) -> str:
    """The text of the file with an entry added."""
    text = read_text(file) if file.exists() else _FIRST_LINES
    before = parse_toml(text, file)
    known = _check_name(before, entry.name, file, replace)
    lines, place = _without(text, entry.name, file) if known else (_lines(text), None)
    end = "\r" if "\r\n" in text else ""
    block = [line + end for line in format_entry(entry).split("\n")[:-1]]
    if place is None:
        while lines and not lines[-1].strip():
            lines.pop()
        lines += [end, *block] if lines else block
    else:
        lines[place:place] = block
    changed = "\n".join(lines).rstrip("\n") + "\n"
    written = parse_toml(format_entry(entry), file)["models"]
    _check_same(changed, before, file, written)
    parse_entries(changed, file)
    return changed


def check_name(file: Path, name: str, replace: bool = False) -> None:
    """Find out whether `add_entry` would take a name, before anything else is done for it.

    Raises:
        UsageError: for what is no name.
        RegistryError: where there is such an entry already, or the file cannot be read.
    """
    if not re.fullmatch(ENTRY_NAME, name):
        raise UsageError(f"{name!r} is not allowed; use a name without blanks, and no - before it")
    if file.exists():
        _check_name(parse_toml(read_text(file), file), name, file, replace)


def _check_name(content: dict[str, Any], name: str, file: Path, replace: bool) -> bool:
    """Whether the file has this entry, where it may have it."""
    models = content.get("models", {})
    known = isinstance(models, dict) and name in models
    if known and not replace:
        raise RegistryError(
            f"{file}: there is an entry {name} already; give --force to replace it, "
            "or choose another name"
        )
    return known


def has_entry(file: Path, name: str) -> bool:
    """Whether a models.toml has an entry of this name, be that right or wrong.

    Raises:
        RegistryError: where the file is there, but cannot be read.
    """
    if not file.exists():
        return False
    models = parse_toml(read_text(file), file).get("models")
    return isinstance(models, dict) and name in models


def remove_entry(file: Path, name: str) -> None:
    """Take an entry out of a models.toml, with the comments inside it but none around it.

    Raises:
        RegistryError: where there is none of this name, or the file cannot be read, edited or
            written; it is then as it was.
    """
    if not has_entry(file, name):
        raise RegistryError(f"{file}: there is no entry {name!r}")
    with _alone(file):
        _write(file, _removed(name, file))


def _removed(name: str, file: Path) -> str:
    """The text of the file without an entry."""
    text = read_text(file)
    before = parse_toml(text, file)
    models = before.get("models", {})
    lines, place = _without(text, name, file)
    if len(models) == 1 and "models" not in parse_toml("\n".join(lines), file):
        # A file without entries still says that it is one of ours.
        lines[place:place] = ["[models]" + ("\r" if "\r\n" in text else "")]
    changed = "\n".join(lines)
    if text.endswith("\n") and not changed.endswith("\n"):
        changed += "\n"
    others = {key: value for key, value in models.items() if key != name}
    _check_same(changed, before | {"models": others}, file)
    return changed


def _lines(text: str) -> list[str]:
    """Lines as TOML counts them: other characters that Python takes for line ends are none."""
    return text.split("\n")


def _without(text: str, name: str, file: Path) -> tuple[list[str], int]:
    """The lines of a text without those of an entry, and where its first one was."""
    runs: list[tuple[int, int]] = []
    previous: Statement | None = None
    for statement in read_layout(text).statements:
        if statement.path[:2] == ("models", name):
            if previous is not None and previous.path[:2] == ("models", name):
                runs[-1] = (runs[-1][0], statement.last)
            else:
                runs.append((statement.first, statement.last))
        previous = statement
    if not runs:
        raise RegistryError(f"{file}: the entry {name} is written in a way that only you can edit")
    lines = _lines(text)
    for first, last in reversed(runs):
        start, end = first - 1, last
        is_blank_before = start == 0 or not lines[start - 1].strip()
        while is_blank_before and end < len(lines) - 1 and not lines[end].strip():
            end += 1
        del lines[start:end]
        if not any(line.strip() for line in lines[start:]):
            # It was the last one: what is left ends with one line end, as files do.
            while start and not lines[start - 1].strip():
                start -= 1
            lines[start:] = [""]
    return lines, runs[0][0] - 1


def _check_same(
    text: str, before: dict[str, Any], file: Path, added: dict[str, Any] | None = None
) -> None:
    """Refuse a text that says something else than the old one with the added entry."""
    wanted = before | {"models": before.get("models", {}) | (added or {})}
    try:
        same = repr(_sorted(parse_toml(text, file))) == repr(_sorted(wanted))
    except RegistryError:
        same = False
    if not same:
        raise RegistryError(f"{file}: its entries are written in a way that only you can edit")


def _sorted(value: Any) -> Any:
    """Tables with their keys in order, so that equal contents have one form, NaN included."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold a lock on the file's folder, which is made where there is none.

    Of two commands that change the file at once the second one then sees what the first one wrote.
    """
    folder = file.resolve().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = None if sys.platform == "win32" else os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _unwritable(file, error) from error
    try:
        if sys.platform != "win32" and handle is not None:
            import fcntl

            with contextlib.suppress(OSError):  # some network disks have no locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _unwritable(file: Path, error: OSError) -> RegistryError:
    return RegistryError(f"cannot write {file}: {error.strerror or error}; nothing was changed")


def _write(file: Path, text: str) -> None:
    """Put a text in the place of a file, whole or not at all; a link stays a link."""
    target = file.resolve()
    try:
        data = text.encode("utf-8")
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with open(handle, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            mode = target.stat().st_mode if target.exists() else 0o644
            os.chmod(temporary, mode & 0o777)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _unwritable(file, error) from error
    except UnicodeEncodeError as error:
        raise RegistryError(f"cannot write {file}: a name in it is no UTF-8 text") from error
