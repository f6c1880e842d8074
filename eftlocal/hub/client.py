"""What is asked of the Hugging Face hub.

Requests go through the session of huggingface_hub, so that its settings count: HF_ENDPOINT,
HF_TOKEN and `hf auth login`, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT, proxies. Files come over
plain HTTP even where hf_xet is installed: every file in Xet storage can be had this way too, and
only so can a download that was killed go on at the byte where it stopped.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from .failures import BadAnswer, Patience, is_answer, pause_before_retry, raise_explained

_MOST_QUESTIONS = 3
_PIECE = 8 << 30
"""Bytes per request: content networks refuse to send more than about 50 GB at once."""


def ask_repository(repository: str, revision: str | None, patience: Patience) -> Any:
    """The hub's description of a model repository, `ModelInfo`, with sizes and hashes of files.

    A hub that is busy is asked again, but not often: somebody waits and sees nothing.

    Raises:
        HubError: where it cannot be had.
    """
    from huggingface_hub import HfApi, constants

    _silence()
    api = HfApi(library_name="eftlocal")
    with raise_explained(repository, revision=revision):
        for failures in range(1, _MOST_QUESTIONS + 1):
            try:
                return api.model_info(
                    repository,
                    revision=revision,
                    files_metadata=True,
                    timeout=constants.HF_HUB_ETAG_TIMEOUT,
                )
            except (KeyError, TypeError) as error:
                raise BadAnswer from error
            except Exception as error:
                pause = pause_before_retry(error)
                last = failures > min(patience.retries, _MOST_QUESTIONS - 1)
                if last or pause != 0 or not is_answer(error):
                    raise
            time.sleep(patience.seconds(failures))


def file_lock(path: Path, seconds: float) -> AbstractContextManager[Any]:
    """The lock that the hub's own tools take, too; entering it waits that long at most.

    Raises:
        TimeoutError: on entering, where another process holds it.
    """
    lock: AbstractContextManager[Any] = _utilities().WeakFileLock(path, timeout=seconds)
    return lock


def _utilities() -> Any:
    """Names that the library offers without types."""
    from huggingface_hub import utils

    return utils


def _silence() -> None:
    """Keep the library's remarks out of progress lines and one-line errors."""
    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def file_url(repository: str, name: str, commit: str) -> str:
    """The address of a file at a commit."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repository, name, revision=commit)


@contextmanager
def read_range(url: str, start: int, end: int) -> Iterator[Iterator[bytes]]:
    """Ask for the bytes from `start` up to `end` of a file; yields them in pieces as they come.

    There may be fewer: of a long range only the first part is asked for, and connections break.

    Raises:
        Exception: those of the hub's library and its HTTP client, for `failures`.
        BadAnswer: for an answer that is not the range.
    """
    from huggingface_hub import constants, get_session, hf_raise_for_status

    headers = _utilities().build_hf_headers(library_name="eftlocal")
    last = min(end, start + _PIECE) - 1
    # Compressed answers have no lengths that one could rely on.
    headers |= {"Range": f"bytes={start}-{last}", "Accept-Encoding": "identity"}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    session = get_session()
    with session.stream(
        "GET", url, headers=headers, timeout=timeout, follow_redirects=True
    ) as response:
        hf_raise_for_status(response)
        pieces = response.iter_raw()
        if response.status_code == 206:
            _check_range(response.headers.get("Content-Range", ""), start)
            yield pieces
        else:
            # A server that knows no ranges sends the file from its first byte.
            yield _skip(pieces, start)


def _check_range(content_range: str, start: int) -> None:
    if not content_range.replace(" ", "").startswith(f"bytes{start}-"):
        raise BadAnswer(f"asked for bytes from {start}, got {content_range!r}")


def _skip(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        if count < len(piece):
            yield piece[count:]
        count = max(0, count - len(piece))
