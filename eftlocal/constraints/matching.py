"""llguidance behind the protocol of `masking`; the only module that holds its objects."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..errors import ConstraintError, UsageError
from ..masking import Mask

# An object with 250 optional members needs 100,000 items, for masks of 1 ms; a state takes 0.5 kB.
LIMITS = {
    "initial_lexer_fuel": 150_000,
    "step_lexer_fuel": 60_000,
    "max_lexer_states": 100_000,
    "max_items_in_row": 4_000,
    "step_max_items": 150_000,
    "max_grammar_size": 50_000,
    "verbose_errors": False,
}
"""What a grammar, and one mask, may take."""
# Items of ambiguous rules take ten times as long as those of JSON.
_MOST_GRAMMAR_ITEMS = 15_000


class Words(Protocol):
    """What is needed of a vocabulary."""

    n_tokens: int

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that a token adds to a text; markers only where `special`."""

    def is_control(self, token: int) -> bool:
        """Whether a token is a marker, not text."""


def limits(lark: str) -> Any:
    """What a grammar and its masks may take, for llguidance."""
    import llguidance

    chosen: dict[str, Any] = dict(LIMITS)
    if "%json" not in lark:
        chosen["step_max_items"] = _MOST_GRAMMAR_ITEMS
    return llguidance.LLParserLimits(**chosen)


class Tokens:
    """A vocabulary as llguidance needs it; takes 0.7 s for 152,000 tokens.

    Args:
        words: the vocabulary.
        n_vocab: width of masks.
        eog: ids that end a text.
    """

    def __init__(self, words: Words, n_vocab: int, eog: frozenset[int]) -> None:
        import llguidance

        self.n_vocab = n_vocab
        ends = sorted(token for token in eog if token < n_vocab)
        self.eos_token_id = ends[0] if ends else None
        self.bos_token_id = None
        self.tokens: list[bytes] = []
        self.special_token_ids: list[int] = []
        for token in range(n_vocab):
            is_known = token < words.n_tokens
            if is_known and token not in eog and not words.is_control(token):
                self.tokens.append(words.piece(token))
                continue
            name = words.piece(token, special=True) if is_known else b""
            # No text matches these; a grammar may name them.
            self.tokens.append(name or b"<|%d|>" % token)
            self.special_token_ids.append(token)
        special = set(self.special_token_ids)
        self.pieces = [b"" if i in special else piece for i, piece in enumerate(self.tokens)]
        wrapped = llguidance.TokenizerWrapper(self)
        self.made = llguidance.LLTokenizer(wrapped, n_vocab=n_vocab, eos_token=ends or None)
        self.tokens.clear()

    def __call__(self, text: bytes) -> list[int]:
        """What llguidance would ask for if it chose among ways to write a text."""
        return self.made.greedy_tokenize(text.decode("utf-8", "replace"))


class Compiled:
    """A constraint; see `masking.Constraint`.

    Args:
        lark: the grammar, as `grammars.lark_of` makes it.
        tokens: the vocabulary.

    Raises:
        UsageError: where the grammar is wrong, not supported, too large, or matches nothing.
    """

    def __init__(self, lark: str, tokens: Tokens) -> None:
        import llguidance

        self.tokens = tokens
        self._matcher = llguidance.LLMatcher(tokens.made, lark, log_level=0, limits=limits(lark))
        if self._matcher.is_error():
            raise UsageError(refusal(self._matcher.get_error()))
        try:
            self.start().mask()
        except ConstraintError:
            raise UsageError("the constraint matches no text, or is too complex") from None

    def fresh(self) -> Any:
        """A matcher of llguidance at the start of a text."""
        return self._matcher.deep_copy()

    def start(self) -> TextMatcher:
        """See `masking.Constraint`."""
        return TextMatcher(self)


class TextMatcher:
    """Follows one text; see `masking.Matcher`."""

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self._matcher = compiled.fresh()
        self._consumed: list[int] = []

    @property
    def is_ended(self) -> bool:
        """See `masking.Matcher`."""
        ended: bool = self._matcher.is_stopped()
        if ended:
            self._check()
        return ended

    def mask(self) -> Mask:
        """See `masking.Matcher`."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        n_vocab = self._compiled.tokens.n_vocab
        mask = np.unpackbits(bits, count=n_vocab, bitorder="little").view(np.bool_)
        if not mask.any():
            raise ConstraintError("no token of the vocabulary can continue the constrained text")
        return mask

    def consume(self, token: int) -> None:
        """See `masking.Matcher`."""
        self._consumed.append(token)
        if not self._matcher.consume_token(token):
            self._check()
            raise ConstraintError(f"token {token} does not fit the constraint")

    def rollback(self, n_tokens: int) -> None:
        """See `masking.Matcher`."""
        del self._consumed[len(self._consumed) - n_tokens :]
        if not self._matcher.rollback(n_tokens):
            # A matcher that has failed takes nothing back.
            self._matcher = self._compiled.fresh()
            if self._consumed and not self._matcher.consume_tokens(self._consumed):
                self._check()

    def _check(self) -> None:
        # After an error llguidance allows end tokens, as if the text were complete.
        if self._matcher.is_error():
            reason = _brief(self._matcher.get_error())
            raise ConstraintError(f"the constraint cannot follow this text: {reason}")


def refusal(message: str) -> str:
    """One sentence for what llguidance says is wrong with a grammar."""
    return f"the constraint cannot be used: {_brief(message)}"


def _brief(message: str) -> str:
    """The first line of llguidance's message, without the place in a text that nobody wrote."""
    lines = message.strip().splitlines() or ["unknown reason"]
    detail = next((line.strip() for line in lines if line.strip().startswith("error: ")), "")
    text = lines[0].removesuffix(" regex parse error:") + detail.removeprefix("error:")
    if text.startswith("at ") and "): " in text:
        text = text.split("): ", 1)[1]
    if "limits." in text or "too big" in text:
        return "it is too large"
    if text.startswith("panic"):
        return "llguidance fails on it"
    text = text.removeprefix("failed to compile JSON schema: ").partition(". Enable ")[0]
    return text if len(text) <= 200 else text[:200] + "..."
