"""The parent's end of a worker process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...errors import BackendError

_PATIENCE = 10.0
"""Seconds that a worker has for ending by itself."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What decoding took.

    Attributes:
        seconds: of all tokens, without the prompt.
        tokens: their ids.
        resident_bytes: afterwards; None where the system does not say.
        peak_bytes: the most that was ever resident.
    """

    seconds: float
    tokens: tuple[int, ...]
    resident_bytes: int | None
    peak_bytes: int | None


class Worker:
    """A loop of `worker.LOOPS` that stays loaded in a process of its own.

    Args:
        name: what to call it in errors.
        loop: a key of LOOPS.
        arguments: of that class; what JSON can hold.

    Raises:
        BackendError: with the error's line, where loading fails.
    """

    def __init__(self, name: str, loop: str, arguments: Mapping[str, Any]) -> None:
        self._name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eftlocal.bench.peers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=_environment(),
        )
        try:
            self.facts = self._ask({"loop": loop, "arguments": dict(arguments)})
        except BaseException:
            self.close()
            raise

    def decode(self, prompt: Sequence[int], n_tokens: int, **options: Any) -> Decoded:
        """Continue a prompt greedily by so many tokens.

        Raises:
            BackendError: where that fails.
        """
        request = {"prompt": list(prompt), "n_tokens": n_tokens, "options": options}
        answer = self._ask(request)
        return Decoded(**{**answer, "tokens": tuple(answer["tokens"])})

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BackendError(f"{self._name}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BackendError(f"{self._name}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        """Why the process has ended without an answer."""
        code = self._process.wait()
        if code < 0:
            return f"its process was ended by signal {-code}; is there enough memory?"
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"its process ended with {code}"

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _environment() -> dict[str, str]:
    """The environment of workers: they find this package, and reach for no network."""
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(paths)}
