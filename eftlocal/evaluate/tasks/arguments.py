"""Arguments of the harness for a model (`--model_args`) -> what is evaluated, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...options import RuntimeOptions
from ...registry import ROLES
from ..store import Store
from ..systems import PLAIN, Models, System
from .gen_kwargs import MAX_GEN_TOKS, count_of

OnRequest = Callable[[int, int], None]
"""Called with requests that are done and requests in all, for each kind of requests."""

_RUNTIME = frozenset(item.name for item in fields(RuntimeOptions))
_OF_EVERY_MODEL = ("device", "max_batch_size")


def unwatched(done: int, total: int) -> None:
    """An `OnRequest` that tells nobody."""


@dataclass(frozen=True)
class Setup:
    """What is evaluated, and how.

    Attributes:
        system: what is evaluated.
        store: where its results are kept; None keeps none.
        max_gen_toks: length of a reply where the task does not say.
        add_bos_token: put BOS before every text where the model has one.
        reuse_prompts: read a context once for all its continuations; see `requests.Score`.
        on_request: told of progress.
    """

    system: System
    store: Store | None = None
    max_gen_toks: int = MAX_GEN_TOKS
    add_bos_token: bool = False
    reuse_prompts: bool = False
    on_request: OnRequest = unwatched


def read_setup(entry: str | None, given: Mapping[str, Any]) -> Setup:
    """What the arguments of the harness say.

    Args:
        entry: a name of models.toml; None where `given` has base, tuned and reference, or for the
            default one.
        given: models (a models.toml of your own), batch_size (requests at once; the option
            `parallel`), cache (a folder where results are kept by content), max_gen_toks,
            add_bos_token and reuse_prompts as in `Setup`; files of the three roles, fields of
            `RuntimeOptions` and `GenerationOptions`. What the harness passes to every model
            (device, max_batch_size) is left out.

    Raises:
        UsageError: for a value that is not allowed.
    """
    left = {name: value for name, value in given.items() if name not in _OF_EVERY_MODEL}
    cache = left.pop("cache", None)
    store = Store(Path(cache).expanduser()) if cache is not None else None
    length = count_of("max_gen_toks", left.pop("max_gen_toks", MAX_GEN_TOKS))
    add_bos = _switch(left, "add_bos_token")
    reuse = _switch(left, "reuse_prompts")
    return Setup(_system(entry, left), store, length, add_bos, reuse)


def _switch(left: dict[str, Any], name: str) -> bool:
    """An argument that is on or off; taken out."""
    value = left.pop(name, False)
    if value not in (True, False):
        raise UsageError(f"{name} = {value!r} is not allowed; use True or False")
    return bool(value)


def _system(entry: str | None, left: dict[str, Any]) -> System:
    """The models, and options of their generations."""
    path = left.pop("models", None)
    parallel = count_of("batch_size", left.pop("batch_size", 1))
    files = {role: left.pop(role) for role in ROLES if role in left}
    runtime = {name: left.pop(name) for name in tuple(left) if name in _RUNTIME}
    # In caches of their own, sequences do not change each other's rounding.
    runtime = {"kv_unified": "off", "parallel": parallel, **runtime}
    own = Path(path).expanduser() if path is not None else None
    return System(entry or "files", Models(entry, files, own, runtime), {**PLAIN, **left})
