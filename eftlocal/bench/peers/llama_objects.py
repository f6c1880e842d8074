"""What one writes with llama-cpp-python's own class `Llama`: three objects, or the base alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from llama_cpp import Llama


class LlamaObjects:
    """Three `Llama` objects whose `scores` are combined with NumPy: greedy, alpha 1.

    Args:
        files: role -> GGUF file.
        n_ctx: length of each context.
        n_vocab: ids that all models have in common; logits of others are cut off.
        threads: of the CPU.
    """

    def __init__(self, *, files: dict[str, str], n_ctx: int, n_vocab: int, threads: int) -> None:
        # Only with logits_all does the class keep any scores.
        roles = ("base", "tuned", "reference")
        self._llamas = [_load(files[role], n_ctx, threads, logits_all=True) for role in roles]
        self._n_vocab = n_vocab

    @property
    def facts(self) -> dict[str, Any]:
        """Nothing that others need."""
        return {}

    def decode(self, prompt: Sequence[int], n_tokens: int) -> tuple[float, list[int]]:
        """See `worker.Loop`."""
        for llama in self._llamas:
            llama.reset()
            llama.eval(prompt[:-1])
        token, tokens = prompt[-1], []
        start = time.perf_counter()
        for _ in range(n_tokens):
            for llama in self._llamas:
                llama.eval([token])
            base, tuned, reference = (
                llama.scores[llama.n_tokens - 1, : self._n_vocab] for llama in self._llamas
            )
            token = int(np.argmax(base + (tuned - reference)))
            tokens.append(token)
        return time.perf_counter() - start, tokens


class BaseAlone:
    """One `Llama` object that generates greedily by itself.

    Args:
        files: role -> GGUF file, of which it takes the base.
        n_ctx: length of the context.
        threads: of the CPU.
    """

    def __init__(self, *, files: dict[str, str], n_ctx: int, threads: int) -> None:
        self._llama = _load(files["base"], n_ctx, threads)

    @property
    def facts(self) -> dict[str, Any]:
        """Nothing that others need."""
        return {}

    def decode(self, prompt: Sequence[int], n_tokens: int) -> tuple[float, list[int]]:
        """See `worker.Loop`."""
        self._llama.reset()
        self._llama.eval(prompt[:-1])
        # Generating finds the prompt in the cache and evaluates its last token.
        greedy = self._llama.generate(list(prompt), temp=0.0, repeat_penalty=1.0)
        start = time.perf_counter()
        tokens = list(islice(greedy, n_tokens))
        return time.perf_counter() - start, tokens


def _load(path: str, n_ctx: int, threads: int, **more: Any) -> Any:
    """A `Llama` object whose other settings are the class's defaults."""
    return Llama(
        path, n_ctx=n_ctx, n_threads=threads, n_threads_batch=threads, verbose=False, **more
    )
