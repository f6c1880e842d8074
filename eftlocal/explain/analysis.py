"""What a traced reply says: visible pieces, strength of colours, what changed most."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..diagnostics import ORIGINS, top_at
from ..errors import UsageError
from ..options import ALPHA_MODES
from .records import Header, Reply, TracedToken

LEVELS = 5
"""Shades of a colour; level 0 is uncoloured."""

STRONG = 0.5
"""From this total variation on, fused and tuned model say something else."""

_GRID = (0.0, 2.0)


@dataclass(frozen=True, slots=True)
class AlphaRange:
    """Where alpha was chosen.

    Attributes:
        mode: a word of ALPHA_MODES, or "fixed".
        low, high: its bounds; both are the number itself where it is fixed.
        weights: one per expert; None where the user gave none.
    """

    mode: str
    low: float
    high: float
    weights: tuple[float, ...] | None = None

    def chosen(self, token: TracedToken) -> float:
        """A token's alpha before weights; of several that were searched, the largest in size."""
        if self.mode == "fixed":
            return self.low
        values = token.trace.alpha
        if self.weights is None:
            return max(values, key=abs)
        weight, value = max(zip(self.weights, values, strict=True), key=lambda pair: abs(pair[0]))
        return value / weight

    @property
    def per_expert(self) -> bool:
        """Whether every expert has an alpha of its own, not only a share of one."""
        return self.mode != "fixed" and self.weights is None

    def is_bound(self, alpha: float) -> bool:
        """Whether a search ended at one of its bounds."""
        near = min(abs(alpha - self.low), abs(alpha - self.high))
        return self.mode != "fixed" and near < 1e-6 * max(1, self.high - self.low)

    def share(self, alpha: float) -> float:
        """Where between the bounds it lies, 0 to 1."""
        width = self.high - self.low
        return min(1.0, max(0.0, (alpha - self.low) / width)) if width else 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring tokens that show as one, because the first are parts of a character.

    Attributes:
        text: what they add to the reply; of what is no part of it, such as an end token, the token.
        tokens: at least one.
        is_text: whether the reply's text has it.
    """

    text: str
    tokens: tuple[TracedToken, ...]
    is_text: bool = True

    @property
    def strongest(self) -> TracedToken:
        """The token with the largest total variation."""
        return max(self.tokens, key=total_variation)


@dataclass(frozen=True, slots=True)
class Change:
    """A place where another alpha has another likeliest token.

    Attributes:
        token: what the reply has there.
        new: the id that is likeliest of the saved tokens.
        is_certain: whether no token outside the saved ones can be likelier.
    """

    token: TracedToken
    new: int
    is_certain: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What another alpha would have changed.

    Attributes:
        alpha: that alpha.
        places: where the likeliest token differs from the recorded one, in order.
        open_places: how many further places an unsaved token might have changed.
    """

    alpha: float
    places: tuple[Change, ...]
    open_places: int


def total_variation(token: TracedToken) -> float:
    """Between fused and tuned model; with several experts, the tuned model that is nearest."""
    return min(token.trace.total_variation)


def level(share: float) -> int:
    """The shade of a number from 0 to 1: 0 to LEVELS - 1."""
    return min(LEVELS - 1, max(0, int(share * LEVELS + 1e-9)))


def pieces(reply: Reply) -> list[Piece]:
    """The reply as visible pieces, in order; all tokens are in them."""
    found: list[Piece] = []
    waiting: list[TracedToken] = []
    for token in reply.tokens:
        waiting.append(token)
        if token.text:
            found.append(Piece(token.text, tuple(waiting)))
            waiting = []
    # End tokens, a stop string, or the first bytes of a character that was never finished.
    return found + [Piece(reply.pieces[t.token], (t,), is_text=False) for t in waiting]


def strongest(reply: Reply, n: int) -> list[TracedToken]:
    """The tokens with the largest total variation, largest first."""
    return sorted(reply.tokens, key=lambda token: (-total_variation(token), token.index))[:n]


def alpha_range(header: Header) -> AlphaRange:
    """Where the reply's alpha was chosen.

    Raises:
        UsageError: for a reply of one part alone, which has none.
    """
    options, weights = header.generation_options, header.weights
    if options.part != "fused":
        raise UsageError(
            f"the reply is that of one model alone (part = {options.part}), so there is no fusing "
            "to explain; use a reply of the fused model"
        )
    if options.alpha not in ALPHA_MODES:
        return AlphaRange("fixed", float(options.alpha), float(options.alpha), weights)
    mode = str(options.alpha)
    low, high = _GRID if mode == "grid" else (options.alpha_low, options.alpha_high)
    return AlphaRange(mode, low, high, weights)


def changes_at(reply: Reply, alpha: float) -> Changes:
    """What another, fixed alpha would have changed, each place by itself.

    Weights stay what they were; without any, each of E experts gets alpha / E. Whether an unsaved
    token might come first, see `diagnostics.top_at`.

    Raises:
        UsageError: for a reply of one part alone.
    """
    n = len(reply.header.experts)
    weights = alpha_range(reply.header).weights or (1 / n,) * n
    places = []
    open_places = 0
    for token in reply.tokens:
        ranking = top_at(token.trace, [alpha * weight for weight in weights])
        if ranking.ids[0] != token.trace.fused.top:
            places.append(Change(token, ranking.ids[0], ranking.is_certain))
        elif not ranking.is_certain:
            open_places += 1
    return Changes(alpha, tuple(places), open_places)


@dataclass(frozen=True, slots=True)
class Summary:
    """A reply in numbers.

    Attributes:
        tokens: how many.
        mean_variation: mean total variation.
        strong: tokens with a total variation of STRONG or more.
        mean_alpha: of the chosen alphas.
        at_bound: tokens whose search ended at a bound of alpha.
        origins: word of `ORIGINS` -> how many tokens, in the order of that table, none being 0.
    """

    tokens: int
    mean_variation: float
    strong: int
    mean_alpha: float
    at_bound: int
    origins: dict[str, int]


def summarise(reply: Reply) -> Summary:
    """Count and average.

    Raises:
        UsageError: for a reply without tokens, or of one part alone.
    """
    n = len(reply.tokens)
    if not n:
        raise UsageError("the reply has no tokens, so there is nothing to explain")
    variations = [total_variation(token) for token in reply.tokens]
    found = alpha_range(reply.header)
    alphas = [found.chosen(token) for token in reply.tokens]
    counts = Counter(token.trace.origin for token in reply.tokens)
    return Summary(
        tokens=n,
        mean_variation=sum(variations) / n,
        strong=sum(value >= STRONG for value in variations),
        mean_alpha=sum(alphas) / n,
        at_bound=sum(map(found.is_bound, alphas)),
        origins={word: counts[word] for word in ORIGINS if counts[word]},
    )
