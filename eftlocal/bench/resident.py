"""Load time and resident memory, measured in a process of its own that does nothing else.

`python -m eftlocal.bench.resident` reads {"tokens": n, "arguments": of `load`} as JSON from
standard input and prints what `measure` returns, or `measure_filled` where n is not 0; sizes are
bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendError
from ..options import MAX_DRAFT

_TOKENS = 16
_WARMING_TOKENS = 100
_SAVED_TOKENS = 8
_SAVED_POSITION = 12
"""Bytes that a saved token has beside keys and values: its position and its sequences."""

_STATM = Path("/proc/self/statm")


def measure_apart(arguments: Mapping[str, Any]) -> dict[str, float | None]:
    """Run `measure` in a new process.

    Args:
        arguments: of `loading.load`; what JSON can hold.

    Raises:
        BackendError: with the last line of its errors, where it fails.
    """
    return _apart(arguments, 0)


def measure_filled_apart(arguments: Mapping[str, Any], n_tokens: int) -> dict[str, float | None]:
    """Run `measure_filled` in a new process; see `measure_apart`."""
    return _apart(arguments, n_tokens)


def _apart(arguments: Mapping[str, Any], n_tokens: int) -> dict[str, float | None]:
    command = [sys.executable, "-m", "eftlocal.bench.resident"]
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        command,
        input=json.dumps({"tokens": n_tokens, "arguments": arguments}),
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise BackendError(f"loading in a process of its own failed: {lines[-1]}")
    result: dict[str, float | None] = json.loads(done.stdout)
    return result


def measure(arguments: Mapping[str, Any]) -> dict[str, float | None]:
    """Load a model, decode some tokens, and say what that took.

    Returns:
        load_seconds, first_token_seconds (of a prompt of 32 tokens), python_bytes (resident before
        anything is loaded, None where the system does not say), resident_bytes, weights_bytes, and
        cache_bytes of all KV caches.
    """
    before = resident_bytes()
    started = time.perf_counter()
    from ..loading import load

    with load(**arguments) as model:
        loaded = time.perf_counter() - started
        prompt = [model.n_vocab // 2 + i for i in range(min(32, model.n_ctx // 2))]
        done = model.complete(prompt, max_tokens=_TOKENS, temperature=1, draft="off")
        return {
            "load_seconds": loaded,
            "first_token_seconds": done.timings.first_token_seconds,
            "python_bytes": before,
            "resident_bytes": resident_bytes(),
            "weights_bytes": sum(weights_bytes(model.engine).values()),
            "cache_bytes": cache_bytes(model.engine),
        }


def measure_filled(arguments: Mapping[str, Any], n_tokens: int) -> dict[str, float | None]:
    """Load a model, fill its caches, and say what memory it takes and what decoding adds to it.

    Args:
        arguments: of `loading.load`.
        n_tokens: how many tokens are decoded; the memory is looked at before and after them.

    Returns:
        python_bytes, resident_bytes, weights_bytes and cache_bytes as `measure` does, with all
        cells of the caches in use and 100 tokens decoded as the model is set; and grown_bytes,
        what decoding the tokens added after rounds of MAX_DRAFT rows.
    """
    python = resident_bytes()
    from ..loading import load

    with load(**arguments) as model:
        prompt = [model.n_vocab // 2 + i % 64 for i in range(model.n_ctx - 1)]
        model.complete(prompt, max_tokens=1, draft="off")
        _decode(model, _WARMING_TOKENS)
        resident = resident_bytes()
        # Blocks of all sizes have their rows and buffers afterwards, whatever auto chooses.
        _decode(model, _WARMING_TOKENS, draft=MAX_DRAFT)
        before = resident_bytes()
        _decode(model, n_tokens)
        after = resident_bytes()
        known = before is not None and after is not None
        return {
            "python_bytes": python,
            "resident_bytes": resident,
            "grown_bytes": (after or 0) - (before or 0) if known else None,
            "weights_bytes": sum(weights_bytes(model.engine).values()),
            "cache_bytes": cache_bytes(model.engine),
        }


def _decode(model: Any, n_tokens: int, **options: Any) -> None:
    """Decode so many tokens in one completion, or in more where one ends early."""
    prompt = [model.n_vocab // 2 + i for i in range(8)]
    done = 0
    while done < n_tokens:
        given = {"max_tokens": n_tokens - done, "temperature": 1, "seed": done, **options}
        done += len(model.complete(prompt, **given).tokens)


def resident_bytes() -> int | None:
    """Resident memory of this process, where the system says so in /proc."""
    if not _STATM.exists():
        return None
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def weights_bytes(engine: Any) -> dict[Path, int]:
    """Bytes of the tensors of every file once."""
    return {c.weights.path: c.weights.n_bytes for c in engine.ensemble.contexts}


def cache_bytes(engine: Any) -> int:
    """Bytes of all KV caches: cells times what one token adds to a saved sequence."""
    from ..context import Block
    from ..llama.library import lib

    total = 0
    for context in engine.ensemble.contexts:
        context.rewind(0, len(context.tokens(0)))
        sizes = []
        for _ in range(2):
            context.decode([Block(0, [1] * _SAVED_TOKENS, 0)])
            sizes.append(lib.llama_state_seq_get_size(context.handle, 0))
        of_token = (sizes[1] - sizes[0]) // _SAVED_TOKENS - _SAVED_POSITION
        total += of_token * lib.llama_n_ctx(context.handle)
    return total


if __name__ == "__main__":
    # The interpreter's own share includes NumPy.
    np.zeros(1).sum()
    given = json.load(sys.stdin)
    found = (
        measure_filled(given["arguments"], given["tokens"])
        if given["tokens"]
        else measure(given["arguments"])
    )
    print(json.dumps(found))
