"""Constraints of options, made for one vocabulary or only checked."""

from __future__ import annotations

import threading
from typing import Literal

from ..errors import UsageError
from ..masking import Constraint
from ..options import GenerationOptions
from .grammars import lark_of
from .matching import Compiled, Tokens, Words, limits, refusal
from .thinking import AfterThinking, Markers

Thinking = Literal["opened", "allowed", "none"]


def _lark(options: GenerationOptions) -> str | None:
    return lark_of(options.json_schema, options.regex, options.grammar)


def check(options: GenerationOptions) -> None:
    """Check the constraint of options, if there is one, before there is a vocabulary.

    Raises:
        UsageError: where it is wrong, not supported, too large or too deep.
    """
    lark = _lark(options)
    if lark is None:
        return
    import llguidance

    failed, messages = llguidance.LLMatcher.validate_grammar_with_warnings(
        lark, limits=limits(lark)
    )
    if failed:
        raise UsageError(refusal(messages[0]))


class Compiler:
    """Makes constraints for one vocabulary; any thread may call it.

    Args:
        words: the vocabulary.
        n_vocab: width of masks.
        eog: ids that end a text.
    """

    def __init__(self, words: Words, n_vocab: int, eog: frozenset[int]) -> None:
        self._words = words
        self._n_vocab = n_vocab
        self._eog = eog
        self._lock = threading.Lock()
        self._tokens: Tokens | None = None
        self._markers: Markers | None = None

    def compile(self, options: GenerationOptions, thinking: Thinking = "none") -> Constraint | None:
        """The constraint that options ask for; None where they ask for none.

        Args:
            options: of a request.
            thinking: whether the text begins with a <think> block, so that the constraint is for
                what follows it: "opened" by the prompt, "allowed", or "none".

        Raises:
            UsageError: where the constraint is wrong, not supported, too large or too deep.
        """
        lark = _lark(options)
        if lark is None:
            return None
        with self._lock:
            if self._tokens is None:
                self._tokens = Tokens(self._words, self._n_vocab, self._eog)
            if thinking != "none" and self._markers is None:
                self._markers = Markers.of(self._tokens.pieces, self._eog)
        compiled = Compiled(lark, self._tokens)
        if thinking == "none" or not self._markers:
            return compiled
        if thinking == "allowed" and self._markers.opening is None:
            return compiled
        return AfterThinking(compiled, self._markers, thinking == "opened")
