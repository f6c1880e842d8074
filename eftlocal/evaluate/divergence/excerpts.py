"""Replies in which tokens are marked by how much up-scaling changed there; chosen by rule."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ...diagnostics import ORIGINS
from ...explain.wording import percent, quoted, short
from ..asking import Asked, shortened
from ..questions import holds
from ..report import Excerpt
from .tracing import Token, Top

_TYPICAL = 2
_WRONG = 2
_TITLE, _SUBJECT = 80, 40

Reply = Sequence[Token]


def excerpts(asked: Sequence[Asked], replies: Sequence[Reply], most: int) -> tuple[Excerpt, ...]:
    """Some replies: those with the largest single token, right and wrong, then typical ones.

    Of each subject the reply with the largest total variation of a token is a candidate, and the
    largest of these are taken; where there are fewer subjects, the next largest of any. Some wrong
    replies are chosen alike. Typical are the replies whose mean is nearest to the median of the
    means. Where nobody knows an answer, no reply is wrong.

    Args:
        asked: one per reply.
        replies: their tokens.
        most: how many excerpts.
    """
    filled = [i for i, reply in enumerate(replies) if reply]
    largest = sorted(filled, key=lambda i: (-max(t.variation for t in replies[i]), i))
    wrong = [i for i in largest if not _is_right(asked[i], replies[i])]
    right = [i for i in largest if i not in wrong]
    n_wrong = min(_WRONG, len(wrong))
    strong = _one_per_subject(asked, right)[: max(0, most - _TYPICAL - n_wrong)]
    missed = _one_per_subject(asked, wrong)[:n_wrong]
    means = {i: statistics.fmean(t.variation for t in replies[i]) for i in filled}
    middle = statistics.median(means.values()) if means else 0.0
    near = sorted(filled, key=lambda i: (abs(means[i] - middle), i))
    typical = [i for i in near if i not in (*strong, *missed)]
    typical = typical[: most - len(strong) - len(missed)]
    kinds = {"largest": strong, "largest of wrong replies": missed, "typical": typical}
    return tuple(
        _excerpt(asked[i], replies[i], kind) for kind, chosen in kinds.items() for i in chosen
    )


def _is_right(asked: Asked, reply: Reply) -> bool:
    text = "".join(token.text for token in reply)
    return not asked.answers or any(holds(text, answer) for answer in asked.answers)


def _one_per_subject(asked: Sequence[Asked], largest: Sequence[int]) -> list[int]:
    """The first of each subject, then the others."""
    first: dict[str, int] = {}
    for i in largest:
        first.setdefault(asked[i].subject, i)
    return list(dict.fromkeys([*first.values(), *largest]))


def _excerpt(asked: Asked, reply: Reply, kind: str) -> Excerpt:
    subject = f"{shortened(asked.subject, _SUBJECT)}, " if asked.subject else ""
    pieces = tuple((token.text or "[end]", token.variation, _described(token)) for token in reply)
    return Excerpt(f"{shortened(asked.title, _TITLE)} ({subject}{kind})", pieces)


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
