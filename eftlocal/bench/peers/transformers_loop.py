"""The usual proxy-tuning loop with transformers; alone imports torch and transformers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache


class TransformersLoop:
    """Base, tuned and reference as transformers models on the CPU, each with its own KV cache.

    base + (tuned - reference) of the next token's logits, its likeliest token, and that one is fed
    to all three (Liu et al., arXiv 2401.08565, equation 1, greedy).

    Args:
        files: role -> GGUF file; transformers turns its weights into `dtype`.
        dtype: "bfloat16" or "float32".
        n_vocab: ids that all models have in common; logits of others are cut off.
        threads: of the CPU.
    """

    def __init__(self, *, files: dict[str, str], dtype: str, n_vocab: int, threads: int) -> None:
        torch.set_num_threads(threads)
        roles = ("base", "tuned", "reference")
        self._models = [_load(Path(files[role]), getattr(torch, dtype)) for role in roles]
        self._n_vocab = n_vocab

    @property
    def facts(self) -> dict[str, Any]:
        """Nothing that others need."""
        return {}

    def new_caches(self) -> list[Any]:
        """An empty KV cache per model."""
        return [DynamicCache(config=model.config) for model in self._models]

    def fused(self, tokens: Sequence[int], caches: list[Any]) -> Any:
        """Read tokens into the caches: fused logits (n_vocab) of the next one, a tensor."""
        with torch.inference_mode():
            ids = torch.tensor([list(tokens)])
            base, tuned, reference = (
                model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]
                for model, cache in zip(self._models, caches, strict=True)
            )
            n = self._n_vocab
            return base[:n] + (tuned[:n] - reference[:n])

    def decode(self, prompt: Sequence[int], n_tokens: int) -> tuple[float, list[int]]:
        """See `worker.Loop`."""
        caches = self.new_caches()
        if len(prompt) > 1:
            self.fused(prompt[:-1], caches)
        token, tokens = prompt[-1], []
        start = time.perf_counter()
        for _ in range(n_tokens):
            token = int(self.fused([token], caches).argmax())
            tokens.append(token)
        return time.perf_counter() - start, tokens


def _load(path: Path, dtype: Any) -> Any:
    """A model of a GGUF file, its weights turned into `dtype`."""
    # Of a bare name transformers would prefer the file in the current folder.
    file = str(path.resolve())
    model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=file, dtype=dtype)
    return model.eval()
