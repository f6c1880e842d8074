"""Which tokens a generation may take next: what constraints are to the engine. Pure NumPy.

A constraint says of every text whether something allowed can begin with it; its matcher follows
one text, token by token, and says which tokens may come next. `constraints` makes them.

Shapes: V vocabulary; a mask is (V,) bool, True for tokens that are allowed.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from .distributions import Array

Mask = npt.NDArray[np.bool_]


class Matcher(Protocol):
    """Follows one text. Every method may raise ConstraintError, and nothing is allowed then."""

    @property
    def is_ended(self) -> bool:
        """Whether the text is complete and nothing more can follow."""

    def mask(self) -> Mask:
        """(V,) tokens that may come next, at least one; end tokens where the text may end."""

    def consume(self, token: int) -> None:
        """Go on with a token that the mask allows, and that is no end token."""

    def rollback(self, n_tokens: int) -> None:
        """Take back what was consumed last; works after a failed `consume` or `mask`, too."""


class Constraint(Protocol):
    """Immutable: one serves any number of generations, in any threads."""

    def start(self) -> Matcher:
        """A matcher of the empty text, independent of all others."""


class Masking:
    """A generation's matcher in step with its rounds.

    Between rounds it has consumed what was emitted. In a round it goes ahead with the drafts, and
    falls back where a row decides otherwise; each row's mask is computed once, for the drafter's
    row and the fused one.
    """

    def __init__(self, constraint: Constraint) -> None:
        self._matcher = constraint.start()
        self._masks: list[Mask] = []
        self._ahead: list[int] = []

    def begin(self) -> None:
        """Begin a round."""
        self._masks.clear()
        self._ahead.clear()

    def apply(self, logits: Array, j: int) -> Array:
        """A copy of row j of the round, (V,) logits, with -inf for what is not allowed.

        Row 0 comes first; row j + 1 after `draft` of row j's token.

        Raises:
            ConstraintError: where the matcher fails or allows nothing.
        """
        if j == len(self._masks):
            self._masks.append(self._matcher.mask())
        return np.where(self._masks[j], logits, np.float32(-np.inf))

    def draft(self, token: int) -> bool:
        """Go ahead with a draft; False, and no step, where nothing could follow it.

        Raises:
            ConstraintError: where the matcher fails; it has not gone ahead then.
        """
        try:
            self._matcher.consume(token)
            is_ended = self._matcher.is_ended
        except BaseException:
            self._matcher.rollback(1)
            raise
        if is_ended:
            self._matcher.rollback(1)
            return False
        self._ahead.append(token)
        return True

    def emit(self, token: int, j: int) -> bool:
        """Take in the token that row j decided, no end token; True where nothing can follow it.

        Raises:
            ConstraintError: where the matcher fails.
        """
        if j < len(self._ahead):
            if token == self._ahead[j]:
                return False
            self._matcher.rollback(len(self._ahead) - j)
            del self._ahead[j:]
        self._matcher.consume(token)
        return self._matcher.is_ended
