"""Files of the chat: saved conversations, and the state directory with history and autosaves."""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..options import option_name
from .conversation import Conversation
from .options import Files
from .tables import GENERATION

KEPT_CHATS = 50
"""Autosaved conversations that are kept; older ones are deleted."""

_FIELDS = {option_name(field): field for field in GENERATION}

LARGEST_FILE = 16 << 20
"""Bytes of a file that /load and /read accept."""


@dataclass(frozen=True, slots=True)
class SavedChat:
    """What a conversation's file holds.

    Attributes:
        entry: the model entry, or None.
        files: the models where they were given as files.
        options: generation options that were set, as /set parameter or the command line did.
        unanswered: a last user message without a reply.
    """

    conversation: Conversation
    entry: str | None = None
    files: Files = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    unanswered: str = ""


def state_directory() -> Path:
    """Return the directory for history and autosaves ($XDG_STATE_HOME/eftlocal).

    Raises:
        OSError: if nobody knows where the user's home is.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):
        return Path(state) / "eftlocal"
    try:
        return Path.home() / ".local" / "state" / "eftlocal"
    except RuntimeError as error:
        raise OSError(str(error)) from None


def _private(directory: Path) -> Path:
    """Create a directory that only its owner may look into, and return it."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory


def history_file() -> Path:
    """Return the file with what was typed at the prompt; its directory exists afterwards."""
    return _private(state_directory()) / "history"


def autosave_file() -> Path:
    """Return a new name in the autosave directory; its directory exists afterwards."""
    # Parents that mkdir makes on the way would be open to all.
    directory = _private(_private(state_directory()) / "chats")
    # The nanoseconds keep apart two chats that begin in one second.
    now = time.time_ns()
    return directory / f"{time.strftime('%Y%m%d-%H%M%S')}-{now % 1_000_000_000:09}.json"


def last_chat() -> Path | None:
    """Return the file of the conversation that was saved last."""
    return max(_autosaves(), key=_modified, default=None)


def remove_old_chats() -> None:
    """Delete all but the newest autosaved conversations."""
    for path in sorted(_autosaves(), key=_modified, reverse=True)[KEPT_CHATS:]:
        path.unlink(missing_ok=True)


def _autosaves() -> list[Path]:
    return list((state_directory() / "chats").glob("*.json"))


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another eftlocal deleted it
        return 0.0


def write_chat(path: Path, chat: SavedChat) -> None:
    """Write a conversation so that the file is whole whenever it exists.

    Raises:
        OSError: where it cannot be written.
    """
    options = {option_name(name): value for name, value in chat.options.items()}
    if "logit_bias" in options:  # JSON has no integer keys
        options["logit_bias"] = {str(t): bias for t, bias in options["logit_bias"].items()}
    content: dict[str, Any] = {"model": chat.entry, "files": chat.files, "options": options}
    content = {key: value for key, value in content.items() if value}
    content = {**chat.conversation.to_json(), **content}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=1)
            file.write("\n")
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_chat(path: Path) -> SavedChat:
    """Read a conversation.

    Raises:
        UsageError: if the file cannot be read or is no saved conversation.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
        conversation, unanswered = Conversation.from_json(content)
        entry, files, options = (content.get(key) for key in ("model", "files", "options"))
        _check_fields(entry, files or {}, options or {})
        options = {_FIELDS.get(name, name): value for name, value in (options or {}).items()}
        if "logit_bias" in options:
            options["logit_bias"] = {int(token): b for token, b in options["logit_bias"].items()}
    except (UsageError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from None
    except ValueError as error:  # json.JSONDecodeError is one
        raise UsageError(f"{path}: not a saved conversation: {error}") from None
    return SavedChat(conversation, entry, dict(files or {}), options, unanswered)


def _check_fields(entry: object, files: object, options: object) -> None:
    if not (entry is None or isinstance(entry, str)):
        raise UsageError("model is not a name")
    if not isinstance(files, dict) or not all(map(_is_paths, files.values())):
        raise UsageError("files are not paths")
    if files and (set(files) != {"base", "tuned", "reference"} or isinstance(files["base"], list)):
        raise UsageError("files are not those of base, tuned and reference")
    if not isinstance(options, dict) or not isinstance(options.get("logit_bias", {}), dict):
        raise UsageError("options or their logit_bias are not an object")


def _is_paths(value: object) -> bool:
    """Whether it is a path, or a list of at least one."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(path, str) for path in value)
    return isinstance(value, str)


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        UsageError: in one line, if it is missing, not a file, too large or not UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a file")
        if path.stat().st_size > LARGEST_FILE:
            raise UsageError(f"{path} is larger than {LARGEST_FILE >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
