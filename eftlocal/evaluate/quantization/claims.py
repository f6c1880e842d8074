"""What is said of quantization, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping

from ...tables import Estimate
from ..report import Claim
from ..verdicts import Verdict, all_hold, below, decided, within
from .found import Found
from .subject import PAIRED

_ADDS_UP = (0.75, 1.25)


def claims(found: Found) -> tuple[Claim, ...]:
    """Those that the types allow to be looked at."""
    made = (_cancel(found), _repair(found), _per_byte(found), _alike(found), _add_up(found))
    return tuple(claim for claim in made if claim is not None)


def below_one(found: Mapping[str, Estimate]) -> Verdict:
    """Whether a ratio is below 1 for all types: one that is above is enough to say no."""
    return all_hold(below(ratio, 1) for ratio in found.values())


def above_one(found: Mapping[str, Estimate]) -> Verdict:
    """Whether a ratio is above 1 for all types: one that is below is enough to say no."""
    return all_hold(decided(ratio, 1) for ratio in found.values())


def _by_case(found: Mapping[str, Estimate]) -> str:
    """Which types say what, in words."""
    cases = {
        "below 1": [name for name, ratio in found.items() if ratio.high < 1],
        "above 1": [name for name, ratio in found.items() if ratio.low > 1],
        "undecided": [name for name, ratio in found.items() if ratio.low <= 1 <= ratio.high],
    }
    return "; ".join(f"{case}: {', '.join(names)}" for case, names in cases.items() if names)


def _text(found: Mapping[str, Estimate], digits: int = 2) -> str:
    return "; ".join(f"{name} {ratio.text(digits)}" for name, ratio in found.items())


def _cancel(found: Found) -> Claim | None:
    types = found.compared("tuned", "reference", PAIRED)
    ratios = found.by_type(
        types,
        lambda name: found.ratio(
            found.sums(name, PAIRED), found.sums(name, "tuned") + found.sums(name, "reference")
        ),
    )
    if not ratios:
        return None
    holds = below_one(ratios)
    reason = (
        f"By type, {_by_case(ratios)}. Both weights are rounded the same way only where tuning "
        "moved them by less than the type's step; so coarse types cancel more than fine ones."
    )
    return Claim(
        "Quantized alike, the errors of tuned and reference partly cancel in the delta: both do "
        "less together than the sum of each alone.",
        holds,
        f"KL of both, as a multiple of that sum: {_text(ratios)}",
        "" if holds else reason,
    )


def _repair(found: Found) -> Claim | None:
    types = found.compared("tuned", PAIRED)
    ratios = found.by_type(
        types, lambda name: found.ratio(found.sums(name, PAIRED), found.sums(name, "tuned"))
    )
    if not ratios:
        return None
    holds = below_one(ratios)
    reason = (
        f"By type, {_by_case(ratios)}. Where it is above 1, what cancels is less than what "
        "quantizing the reference adds: a reference with more bits than the tuned model is better."
    )
    return Claim(
        "They cancel so far that a quantized tuned model is better off with a reference quantized "
        "alike than with one left as it is.",
        holds,
        f"KL of both, as a multiple of tuned only: {_text(ratios)}",
        "" if holds else reason,
    )


def _per_byte(found: Found) -> Claim | None:
    types = found.compared("base", PAIRED)
    ratios = found.by_type(
        types,
        lambda name: found.ratio(
            found.sums(name, PAIRED),
            found.sums(name, "base"),
            found.saved(name, "base") / found.saved(name, PAIRED),
        ),
    )
    if not ratios:
        return None
    return Claim(
        "Tuned and reference need the bits: a byte saved there moves the fused distribution more "
        "than a byte saved in the base.",
        above_one(ratios),
        f"KL per byte saved, pair against base: {_text(ratios, 1)} times",
    )


def _alike(found: Found) -> Claim | None:
    types = found.compared("base", PAIRED)
    ratios = found.by_type(
        types, lambda name: found.ratio(found.sums(name, PAIRED), found.sums(name, "base"))
    )
    if not ratios:
        return None
    return Claim(
        "Of the same type, tuned and reference do more harm than the base, though they are small.",
        above_one(ratios),
        f"KL, pair against base: {_text(ratios, 1)} times",
    )


def _add_up(found: Found) -> Claim | None:
    types = found.compared("base", PAIRED, "all three")
    ratios = found.by_type(
        types,
        lambda name: found.ratio(
            found.sums(name, "all three"), found.sums(name, "base") + found.sums(name, PAIRED)
        ),
    )
    if not ratios:
        return None
    return Claim(
        "The errors of the base and of the pair add up, within a quarter, so that mixtures can be "
        "told from the two alone.",
        all_hold(within(ratio, *_ADDS_UP) for ratio in ratios.values()),
        f"KL of all three, as a multiple of that sum: {_text(ratios)}",
    )
