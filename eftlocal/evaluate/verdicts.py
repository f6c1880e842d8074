"""Whether claims hold: the whole interval decides, and None stands for what it leaves open."""

from __future__ import annotations

from collections.abc import Iterable

from ..tables import Estimate

Verdict = bool | None


def decided(found: Estimate, bar: float = 0.0) -> Verdict:
    """Whether a number is above a bar: the rule of all claims.

    True where its whole interval is above, False where all of it is below, and None where the
    interval holds the bar, or where there is none.
    """
    return True if found.low > bar else False if found.high < bar else None


def below(found: Estimate, bar: float) -> Verdict:
    """Whether a number is below a bar."""
    is_above = decided(found, bar)
    return None if is_above is None else not is_above


def at_least(found: Estimate, bar: float) -> Verdict:
    """Whether a number is a bar or more."""
    return True if found.low >= bar else False if found.high < bar else None


def within(found: Estimate, low: float, high: float) -> Verdict:
    """Whether a number lies between two bars."""
    return all_hold((decided(found, low), below(found, high)))


def all_hold(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several: one that does not hold is enough to say no, one that is open to say nothing.

    Nothing is said of no verdicts.
    """
    known = list(verdicts)
    if not known:
        return None
    return False if False in known else None if None in known else True
