"""What goes wrong between here and the hub, in one line each that ends with the next step."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import HubError

_KEPT = "what was fetched is kept"
_BUSY = (408, 429, 500, 502, 503, 504)
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_LONGEST_PAUSE = 300.0


class Absent(HubError):
    """The hub does not have this, or does not give it; others may be had."""


class BadAnswer(Exception):
    """An answer that a hub would not give; the text says more, if there is any."""


class CutShort(Exception):
    """The connection ended before the last byte, without an error."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often something is tried.

    Attributes:
        retries: further attempts in a row that bring no new byte.
        pause: seconds before the first of them; doubled each time, up to `longest`.
    """

    retries: int = 5
    pause: float = 1.0
    longest: float = 16.0

    def seconds(self, failures: int) -> float:
        """The pause after so many failures in a row."""
        return float(min(self.longest, self.pause * 2 ** (failures - 1)))


@dataclass(frozen=True, slots=True)
class _Subject:
    """What was asked for."""

    repository: str
    file: str | None
    revision: str | None

    def __str__(self) -> str:
        return f"{self.repository}/{self.file}" if self.file else self.repository


@contextmanager
def raise_explained(
    repository: str, file: str | None = None, revision: str | None = None
) -> Iterator[None]:
    """Turn the errors of the hub's library, of HTTP and of the disk into one line each.

    Raises:
        HubError: instead of any of them; others pass through.
    """
    try:
        yield
    except Exception as error:
        text = _explain(error, _Subject(repository, file, revision))
        if text is None:
            raise
        absent = _status(error) in (401, 403, 404)
        raise (Absent if absent else HubError)(text) from error


def pause_before_retry(error: Exception) -> float | None:
    """How many seconds the hub asks to wait before another try; None where none would help."""
    status = _status(error)
    if status is None:
        return 0.0 if isinstance(error, CutShort) or _is_transport(error) else None
    if status in _BUSY:
        return _asked_pause(error)
    # The address of the storage behind the hub is signed for some minutes only.
    return 0.0 if status in (401, 403) and not _is_from_hub(error) else None


def is_answer(error: Exception) -> bool:
    """Whether the hub answered at all, with an error."""
    return _status(error) is not None


def disk_error(error: OSError, folder: Path) -> HubError:
    """The line for a disk that is full, or a folder that cannot be written to."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HubError(
            f"no space left in {folder}: {reason}; {_KEPT}: free some, or set HF_HOME to a "
            "folder on another disk"
        )
    place = error.filename or folder
    return HubError(f"cannot write {place}: {reason}; set HF_HOME to a folder that you may write")


def _explain(error: Exception, subject: _Subject) -> str | None:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "OfflineModeIsEnabled" in kinds:
        return f"{subject}: HF_HUB_OFFLINE is set, so the hub is not asked; unset it and try again"
    if "HFValidationError" in kinds:
        return f"{subject.repository!r} is not a repository of the hub; write it as user/repository"
    if _status(error) is not None:
        return _explain_status(error, subject, kinds)
    if isinstance(error, BadAnswer | ValueError):
        detail = f" ({error})" if isinstance(error, BadAnswer) and str(error) else ""
        return (
            f"{subject}: {_endpoint()} does not answer as the hub does{detail}; check HF_ENDPOINT, "
            "and whether a proxy or a log-in page stands between"
        )
    if isinstance(error, CutShort) or _is_transport(error):
        reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
        if "Timeout" in type(error).__name__:
            reason = "nothing came for too long; HF_HUB_DOWNLOAD_TIMEOUT=60 would wait longer"
        return (
            f"{subject}: no connection to {_endpoint()} ({reason}); {_KEPT}: check the network "
            "and try again"
        )
    return None


def _explain_status(error: Exception, subject: _Subject, kinds: set[str]) -> str:
    status = _status(error) or 0
    headers = _headers(error)
    code = headers.get("X-Error-Code", "")
    said = headers.get("X-Error-Message", "")
    page = f"{_endpoint()}/{subject.repository}"
    if "GatedRepoError" in kinds or code == "GatedRepo":
        return f"{subject} is gated: accept its terms at {page}, then {_LOG_IN}"
    if "DisabledRepoError" in kinds:
        return f"{subject}: the hub has disabled this repository; choose another one"
    if "RevisionNotFoundError" in kinds or code == "RevisionNotFound":
        return f"{subject} has no revision {subject.revision!r}; see {page}/tree/main"
    if "EntryNotFoundError" in kinds or code == "EntryNotFound":
        return f"{subject} is not on the hub; see {page}/tree/main for what is"
    if status == 401 and "credentials" in said:
        return f"{subject}: the hub does not accept your token; {_LOG_IN}"
    if status in (401, 404) or "RepositoryNotFoundError" in kinds:
        return (
            f"{subject}: there is no such repository, or it is private; check the name at {page}, "
            f"and for a private one {_LOG_IN}"
        )
    if status == 429:
        pause = _asked_pause(error)
        when = f"in {pause:.0f} seconds" if pause else "in some minutes"
        return f"{subject}: too many requests (429); {_KEPT}: try again {when}, or {_LOG_IN}"
    if status >= 500:
        return f"{subject}: the hub has a problem ({status}); {_KEPT}: try again later"
    why = f"{status}: {said}" if said else str(status)
    return f"{subject}: the hub refuses ({why}); check what your token may read, or {_LOG_IN}"


def _status(error: Exception) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _headers(error: Exception) -> Any:
    return getattr(getattr(error, "response", None), "headers", {})


def _is_transport(error: Exception) -> bool:
    """Whether the HTTP client reports it: connecting, sending, receiving, time-outs."""
    # By name, because versions of the hub's library come with different clients.
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _is_from_hub(error: Exception) -> bool:
    url = str(getattr(getattr(error, "response", None), "url", ""))
    return url.startswith(_endpoint() + "/")


def _asked_pause(error: Exception) -> float:
    """Seconds from Retry-After, or from the hub's RateLimit header; 0 where neither is there."""
    headers = _headers(error)
    found = re.fullmatch(r"\s*(\d+)\s*", headers.get("Retry-After", ""))
    limit = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("RateLimit", ""))
    match = found or limit
    return min(float(match[1]), _LONGEST_PAUSE) if match else 0.0


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT
