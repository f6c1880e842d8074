"""eftlocal itself, as the other loops see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import BackendError
from ...llama import LlamaContext
from ...llama.library import lib
from ...loading import load
from ..subject import PLAIN, Subject
from ..timing import QUICK

_TEXT = "The capital of Chile is"
_DEPTH = 32


class FusedLoop:
    """A loaded trio: greedy, alpha 1.

    Args:
        random: whether its weights are random, so that its prompt is.
        arguments: of `loading.load`.
    """

    def __init__(self, *, random: bool, arguments: dict[str, Any]) -> None:
        self._model = load(**arguments)
        self._random = random

    @property
    def facts(self) -> dict[str, Any]:
        """What the other loops need: files by role, sizes, and a prompt for all."""
        model = self._model
        if self._random:
            prompt = Subject(model, QUICK, random=True).tokens(_DEPTH)
        else:
            prompt = model.complete(_TEXT, **{**PLAIN, "max_tokens": 1}).prompt_tokens
        return {
            "files": model.files,
            "n_vocab": model.n_vocab,
            "n_ctx": model.n_ctx,
            "n_weights": self._n_weights(),
            "prompt": list(prompt),
        }

    def _n_weights(self) -> int:
        """How many numbers base, tuned and reference have together."""
        ensemble = self._model.engine.ensemble
        total = 0
        for i in (ensemble.roles.base, *ensemble.roles.experts[0]):
            context = ensemble.contexts[i]
            assert isinstance(context, LlamaContext)
            total += int(lib.llama_model_n_params(context.weights.model))
        return total

    def decode(
        self, prompt: Sequence[int], n_tokens: int, draft: str | int = "off"
    ) -> tuple[float, list[int]]:
        """See `worker.Loop`; a completion that ends earlier is started again."""
        seconds, tokens = 0.0, list[int]()
        options = {**PLAIN, "draft": draft}
        while len(tokens) < n_tokens:
            done = self._model.complete(prompt, max_tokens=n_tokens - len(tokens), **options)
            if not done.tokens:
                raise BackendError("the model ends its text at once")
            seconds += done.timings.generation_seconds
            tokens += done.tokens
        return seconds, tokens
