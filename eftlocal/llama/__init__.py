"""llama.cpp behind our own types: weights, vocabularies, contexts.

Nothing outside this package knows llama_cpp, and only `library` imports it. Uses the low-level
API; every size that llama.cpp would abort the process on is checked in Python first.
"""

from .context import ContextSettings, LlamaContext
from .vocabulary import Vocabulary
from .weights import Weights, WeightsSettings

__all__ = ["ContextSettings", "LlamaContext", "Vocabulary", "Weights", "WeightsSettings"]
