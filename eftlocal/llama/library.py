"""The package's own import of llama_cpp: its C functions, its log, safe setting of fields."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
from llama_cpp import __version__ as llama_cpp_version

from ..errors import BackendError

__all__ = [
    "collected_errors",
    "function",
    "has_amx",
    "lib",
    "llama_cpp_version",
    "local_gpus",
    "reason",
    "set_fields",
]

logger = logging.getLogger("eftlocal.llama")

_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.INFO, 4: logging.ERROR}
_last_level = logging.DEBUG
_collected: list[str] | None = None


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes, _user_data: object) -> None:
    """Route llama.cpp's log to logging, or errors to whoever collects them."""
    global _last_level
    _last_level = _LEVELS.get(level, _last_level)  # level 5 continues the line before
    line = text.decode("utf-8", "replace").strip()
    if not line or line == ".":
        return
    if _last_level == logging.ERROR and _collected is not None:
        _collected.append(line)
        logger.debug("%s", line)
    else:
        logger.log(_last_level, "%s", line)


@contextmanager
def collected_errors() -> Iterator[list[str]]:
    """Keep llama.cpp's error lines for the message of an exception instead of printing them."""
    global _collected
    _collected = []
    try:
        yield _collected
    finally:
        _collected = None


lib.llama_log_set(_log, ctypes.c_void_p(0))
lib.llama_backend_init()


def set_fields(struct: ctypes.Structure, **values: object) -> None:
    """Set fields of a C struct; ctypes alone would accept a misspelt or renamed one in silence.

    Raises:
        BackendError: where the installed llama-cpp-python has no such field.
    """
    known = {entry[0] for entry in struct._fields_}
    for name, value in values.items():
        if name not in known:
            raise BackendError(
                f"llama-cpp-python {llama_cpp_version} has no {type(struct).__name__}.{name}; "
                "install a version that eftlocal supports: pip install 'llama-cpp-python==0.3.36'"
            )
        setattr(struct, name, value)


def function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A C function of llama.cpp's libraries that llama_cpp does not bind, by its ctypes.

    Raises:
        BackendError: where no library has it.
    """
    library = lib._lib
    # Only Windows does not search the libraries that a library needs.
    more = sorted(Path(library._name).parent.glob("ggml*.dll"))
    for found in (library, *(ctypes.CDLL(str(file)) for file in more)):
        if hasattr(found, name):
            made: Callable[..., Any] = ctypes.CFUNCTYPE(result, *arguments)((name, found))
            return made
    raise BackendError(f"llama-cpp-python {llama_cpp_version} has no {name}")


def local_gpus() -> list[int]:
    """llama.cpp's handles of this machine's GPUs; integrated ones where there are no others."""
    if not lib.llama_supports_gpu_offload():
        return []
    count = function("ggml_backend_dev_count", ctypes.c_size_t)
    get = function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    kind = function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    devices = [get(i) for i in range(count())]
    separate, integrated = ([x for x in devices if kind(x) == wanted] for wanted in (1, 2))
    return separate or integrated


def has_amx() -> bool:
    """Whether llama.cpp would use AMX tiles, with which many builds crash in their first decode.

    The tile configuration is lost to the optimiser, or not permitted in worker threads
    (llama.cpp's pull request 26954).
    """
    return b"AMX_INT8 = 1" in lib.llama_print_system_info()


def reason(otherwise: str, errors: Sequence[str]) -> str:
    """`otherwise`, and the most telling of llama.cpp's error lines without its function names."""
    lines = [line.split(": ", 1)[-1].removeprefix("error loading model: ") for line in errors]
    told = [line for line in lines if "failed to load model" not in line]
    return f"{otherwise}: {(told or lines)[0]}" if lines else otherwise
