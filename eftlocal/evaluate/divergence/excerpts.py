"""Replies in which tokens are marked by how much up-scaling changed there; chosen by rule."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ...diagnostics import ORIGINS
from ...explain.wording import percent, quoted, short
from ..asking import Asked
from ..report import Excerpt
from .tracing import Token, Top

_TYPICAL = 2

Reply = Sequence[Token]


def excerpts(asked: Sequence[Asked], replies: Sequence[Reply], most: int) -> tuple[Excerpt, ...]:
    """Some replies: those with the largest single token, then some typical ones.

    Of each subject the reply with the largest total variation of a token is a candidate, and the
    largest of these are taken; where there are fewer subjects, the next largest of any. Typical
    are the replies whose mean is nearest to the median of the means.

    Args:
        asked: one per reply.
        replies: their tokens.
        most: how many excerpts.
    """
    filled = [i for i, reply in enumerate(replies) if reply]
    largest = sorted(filled, key=lambda i: (-max(t.variation for t in replies[i]), i))
    first: dict[str, int] = {}
    for i in largest:
        first.setdefault(asked[i].subject, i)
    strong = list(dict.fromkeys([*first.values(), *largest]))[: max(0, most - _TYPICAL)]
    means = {i: statistics.fmean(t.variation for t in replies[i]) for i in filled}
    middle = statistics.median(means.values()) if means else 0.0
    near = sorted(filled, key=lambda i: (abs(means[i] - middle), i))
    typical = [i for i in near if i not in strong][: most - len(strong)]
    named = [(i, "largest") for i in strong] + [(i, "typical") for i in typical]
    return tuple(_excerpt(asked[i], replies[i], kind) for i, kind in named)


def _excerpt(asked: Asked, reply: Reply, kind: str) -> Excerpt:
    subject = f"{asked.subject}, " if asked.subject else ""
    pieces = tuple((token.text or "[end]", token.variation, _described(token)) for token in reply)
    return Excerpt(f"{asked.title} ({subject}{kind})", pieces)


def _described(token: Token) -> str:
    """What a reader sees who points at a token."""
    tops = (("base", token.base), ("tuned", token.tuned), ("fused", token.fused))
    parts = [
        f"total variation {token.variation:.2f}",
        f"alpha {short(token.alpha)}",
        f"{token.origin}: {ORIGINS[token.origin]}",
        *(f"{name} {_likeliest(top)}" for name, top in tops),
    ]
    return "; ".join(parts)


def _likeliest(top: Top) -> str:
    return f"{quoted(top[0])} {percent(top[1])}"
