"""Emulated fine-tuning with llama.cpp: three GGUF models fused token by token.

>>> import eftlocal
>>> with eftlocal.load("atlas") as model:
...     print(model.chat([{"role": "user", "content": "What is the capital of France?"}]).text)

Importing this package is light; the modules behind its names are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import (
        BackendError,
        ConstraintError,
        ContextFull,
        EftlocalError,
        HubError,
        ModelFileError,
        NotDownloaded,
        PromptError,
        RegistryError,
        UsageError,
        VocabularyMismatch,
    )
    from .generation import TokenEvent
    from .loading import load
    from .model import FusedModel
    from .options import GenerationOptions, RuntimeOptions
    from .stream import Completion, Stream, Timings

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Completion",
    "ConstraintError",
    "ContextFull",
    "EftlocalError",
    "FusedModel",
    "GenerationOptions",
    "HubError",
    "ModelFileError",
    "NotDownloaded",
    "PromptError",
    "RegistryError",
    "RuntimeOptions",
    "Stream",
    "Timings",
    "TokenEvent",
    "UsageError",
    "VocabularyMismatch",
    "__version__",
    "load",
]

_MODULES = {
    "loading": ("load",),
    "model": ("FusedModel",),
    "stream": ("Completion", "Stream", "Timings"),
    "generation": ("TokenEvent",),
    "options": ("GenerationOptions", "RuntimeOptions"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the module behind a public name (PEP 562), and remember the name."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted(__all__)
