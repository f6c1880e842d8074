"""llama.cpp behind our own types: weights, adapters, vocabularies, contexts.

Nothing outside this package knows llama_cpp, and only `library` imports it. Uses the low-level
API; every size that llama.cpp would abort the process on is checked in Python first.
"""

from .adapter import Adapter, is_adapter
from .context import ContextSettings, LlamaContext
from .vocabulary import Vocabulary, check_vocabularies
from .weights import Weights, WeightsSettings

__all__ = [
    "Adapter",
    "ContextSettings",
    "LlamaContext",
    "Vocabulary",
    "Weights",
    "WeightsSettings",
    "check_vocabularies",
    "is_adapter",
]
