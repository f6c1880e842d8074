"""Files that llama.cpp may die of, tried in a child process first.

llama.cpp ends the process where some numbers of a header do not go together (a division by zero,
a failed assertion). The header's own checks find most of them, but not all.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from ..errors import ModelFileError
from .library import collected_errors, lib, llama_cpp_version, reason, set_fields

PROBE_SECONDS = 5.0
"""How long a child process may take, the start of a Python included."""

_CHILD = "import sys; from eftlocal.llama.probe import answer; answer(sys.argv[1])"
_REFUSED = 71
_MOST_REMEMBERED = 1000
_good: set[str] = set()
"""Files that this process knows to be good; see `_key`."""


def probe(path: Path) -> None:
    """Refuse a file that ends llama.cpp; one that it was seen to load is not tried again.

    What is known to be good is remembered by path, size and time of change in
    XDG_CACHE_HOME/eftlocal (~/.cache/eftlocal).

    Raises:
        ModelFileError: where llama.cpp refuses the file, ends its process, or takes too long.
    """
    key = _key(path)
    if key in _good or not sys.executable or getattr(sys, "frozen", False):
        return
    if key not in _remembered():
        _try(path)
        _remember(key)
    _good.add(key)


def answer(path: str) -> None:
    """Load a file without its tensors and make a context, as a model would; ends the process.

    Run in a process of its own.
    """
    params = lib.llama_model_default_params()
    set_fields(params, n_gpu_layers=0, load_mode=0, use_extra_bufts=False, no_alloc=True)
    with collected_errors() as errors:
        model = lib.llama_model_load_from_file(path.encode(), params)
        if model:
            vocab = lib.llama_model_get_vocab(model)
            for token in range(lib.llama_vocab_n_tokens(vocab)):
                lib.llama_vocab_is_eog(vocab, token)
            settings = lib.llama_context_default_params()
            set_fields(settings, n_ctx=256, n_batch=32, n_ubatch=32, n_seq_max=1)
            model = lib.llama_init_from_model(model, settings)
    if not model:
        print(reason("llama.cpp cannot load this file", errors), flush=True)
    # Nothing is freed: the process ends, and what a damaged model frees could end it earlier.
    os._exit(0 if model else _REFUSED)


def _try(path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "GGML_NO_BACKTRACE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(path)], env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=PROBE_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ModelFileError(
            f"{path}: llama.cpp did not read its header within {PROBE_SECONDS:.0f} seconds; "
            "the file is damaged, or this machine is very busy"
        ) from None
    if done.returncode == _REFUSED:
        raise ModelFileError(f"{path}: {done.stdout.decode('utf-8', 'replace').strip()}")
    if done.returncode != 0:
        raise ModelFileError(
            f"{path}: llama.cpp crashes on this file; it is damaged, or made for another version "
            f"than that of llama-cpp-python {llama_cpp_version}"
        )


def _key(path: Path) -> str:
    """What a file is remembered by."""
    stat = path.stat()
    return f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {llama_cpp_version}"


def _memory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "eftlocal", "probed.json")


def _remembered() -> list[str]:
    try:
        keys = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []


def _remember(key: str) -> None:
    """Add a key; a cache that cannot be written only costs the next probe."""
    keys = [*_remembered(), key][-_MOST_REMEMBERED:]
    file = _memory()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.with_name(f"{file.name}.{os.getpid()}")
        written.write_text(json.dumps(keys), encoding="utf-8")
        written.replace(file)
