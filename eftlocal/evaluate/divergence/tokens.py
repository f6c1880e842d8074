"""Traced replies, token by token: shares and means of what was traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...tables import Estimate
from ..asking import Asked
from ..questions import whole
from ..statistics import Bootstrap
from .tracing import Token

_HEAVIEST = 0.1

Holds = Callable[[Token], bool]


@dataclass(frozen=True)
class Tokens:
    """Replies of one mode of alpha, token by token.

    Attributes:
        name: of the mode.
        asked: what was asked, one per reply.
        replies: their tokens.
        in_answer: per reply and token, whether it belongs to an accepted answer.
        again: draws over replies.
    """

    name: str
    asked: Sequence[Asked]
    replies: Sequence[Sequence[Token]]
    in_answer: Sequence[Sequence[bool]]
    again: Bootstrap

    @property
    def all(self) -> list[Token]:
        """The tokens of all replies."""
        return [token for reply in self.replies for token in reply]

    def share(self, holds: Holds, among: Holds = lambda token: True) -> Estimate:
        """The share of tokens that something holds of, among some."""
        chosen = [[token for token in reply if among(token)] for reply in self.replies]
        above = [[float(holds(token)) for token in reply] for reply in chosen]
        return self._ratio(above, [[1.0] * len(reply) for reply in chosen])

    def carried(self, least: float) -> Estimate:
        """The share of all total variation that tokens with at least so much carry."""
        all_of_it = [[token.variation for token in reply] for reply in self.replies]
        return self._ratio([[v for v in own if v >= least] for own in all_of_it], all_of_it)

    def where(self, is_answer: bool) -> tuple[list[list[float]], list[list[float]]]:
        """Total variations inside or outside of accepted answers, and a one for each."""
        found = [
            [token.variation for token, inside in zip(*pair, strict=True) if inside == is_answer]
            for pair in zip(self.replies, self.in_answer, strict=True)
        ]
        return found, [[1.0] * len(own) for own in found]

    def mean(self, is_answer: bool) -> Estimate:
        """Mean total variation inside or outside of accepted answers."""
        return self._ratio(*self.where(is_answer))

    def difference(self) -> Estimate:
        """How much larger it is inside of them."""
        sums = [_sums(own) for side in (True, False) for own in self.where(side)]
        return self.again.estimate(lambda a, b, c, d: a / b - c / d, *sums)

    def heaviest(self) -> float:
        """The total variation that a tenth of the tokens reach."""
        values = sorted((token.variation for token in self.all), reverse=True)
        return values[max(0, round(_HEAVIEST * len(values)) - 1)] if values else 0.0

    def _ratio(
        self, above: Sequence[Sequence[float]], below: Sequence[Sequence[float]]
    ) -> Estimate:
        return self.again.estimate(lambda a, b: a / b, _sums(above), _sums(below))


def _sums(values: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.array([sum(own) for own in values], np.float64)


def answer_tokens(tokens: Sequence[Token], answers: Sequence[str]) -> list[bool]:
    """Which tokens have a character of an accepted answer, wherever it is in the reply.

    A blank before an answer is not part of it, but the token that begins with it may be.
    """
    text = "".join(token.text for token in tokens)
    spans = [match.span() for answer in answers for match in whole(answer).finditer(text)]
    found, start = [], 0
    for token in tokens:
        end = start + len(token.text)
        found.append(any(start < last and first < end for first, last in spans))
        start = end
    return found
