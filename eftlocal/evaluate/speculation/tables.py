"""What the study of speculation says: its claims, its tables, its figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...tables import Cell, Column, Table
from ..report import Claim, Figure, Line, Point
from ..verdicts import all_hold, at_least, within
from .draws import SIMULATIONS
from .findings import Alpha, Drawn, Fared, Predicted, Timed, mode

INTRO = (
    "The tuned model drafts, base and reference check what it drafted in one batch, and a round of "
    "n rows decides up to n tokens (arXiv 2310.12962). Coupled acceptance gives draft "
    "and decision the same noise, so that a text is a function of its seed, drafted or not "
    "(arXiv 2408.07978). Rejection accepts as often as is possible (arXiv 2211.17192) and draws "
    "other texts from the same distribution, which are a function of the seed as well.",
    "Texts are compared with those of plain decoding, token by token. Drafts accepted is the share "
    "of all tokens that were drafted, those behind the first wrong one of a round included. "
    "Brackets hold 95 % intervals of a bootstrap that draws the things which are asked about.",
    "How often a draft should be accepted follows from the total variation TV between the fused "
    "distribution and the drafter's at temperature 1: with probability 1 - TV by rejection, and at "
    "least (1 - TV) / (1 + TV) coupled. Rounds that check one draft are compared with it row by "
    "row.",
    "The first tokens after a prompt, seed by seed, are compared with their exact probabilities, "
    "products of conditionals from scored prompts. The p-values are those of a multinomial "
    "likelihood ratio test by simulation. As a control the same draws are compared with the "
    "drafter's own distribution.",
)
ROUNDING = 1e-3
"""Nats; rounding moves log-probs by less."""

LEAST_P = 0.01
"""A test with a smaller p-value rejects; of several the smallest, times their number."""

NEAR = 0.05
"""Shares of drafts that are nearer than this count as the same."""


def claims(
    fared: Sequence[Fared], predicted: Sequence[Predicted], drawn: Sequence[Drawn]
) -> tuple[Claim, ...]:
    """What is said of drafting, and what was found."""
    return (
        _same_texts([one for one in fared if one.rule == "coupled"]),
        _same_texts_by_rejection([one for one in fared if one.rule == "rejection"]),
        _same_distribution(drawn),
        _rejection([one for one in predicted if one.rule == "rejection"]),
        _coupled([one for one in predicted if one.rule == "coupled"]),
    )


def _counted(fared: Sequence[Fared]) -> str:
    equal, replies = sum(one.equal for one in fared), sum(one.replies for one in fared)
    shift = max((one.shift for one in fared), default=0.0)
    same = f"differ by at most {shift:.1g} nats" if shift else "are the same to the last bit"
    return (
        f"{equal:,} of {replies:,} drafted replies equal the plain ones token for token, and the "
        f"log-probs of equal tokens {same}"
    )


def _drafted(fared: Sequence[Fared]) -> bool:
    """Whether there is a draft at all; without one no share of them is defined."""
    return any(not math.isnan(one.accepted.value) for one in fared)


def _same_texts(fared: Sequence[Fared]) -> Claim:
    text = "Drafting changes no text (coupled acceptance; arXiv 2408.07978)."
    gaps = [gap for one in fared for gap in one.gaps]
    if not _drafted(fared):
        return Claim(text, None, "nothing was drafted.")
    if not gaps:
        return Claim(text, True, f"{_counted(fared)}.")
    known = [abs(gap) for gap in gaps if gap is not None]
    found = f"{_counted(fared)}. "
    unknown = len(gaps) - len(known)
    if known:
        found += f"Where the others part, the two tokens are at most {max(known):.1g} nats apart. "
    if unknown:
        found += f"{unknown} of the others part where nobody knows how far apart they are."
    explained = not unknown and max(known) <= ROUNDING
    reason = (
        "llama.cpp's logits depend on the size of a batch in the last bits, so that tokens with "
        "scores that are nearly equal may change places."
    )
    return Claim(
        text, explained, found.strip(), reason if explained else "Rounding does not explain this."
    )


def _same_texts_by_rejection(fared: Sequence[Fared]) -> Claim:
    text = "A seed gives one text with rejection, too, however far is drafted."
    if not _drafted(fared):
        return Claim(text, None, "nothing was drafted.")
    same = all(one.equal == one.replies for one in fared)
    reason = "Rounding may be the reason; with this rule it has no gap that could tell."
    return Claim(
        text,
        True if same else None,
        f"{_counted(fared)}.",
        "" if same else reason,
    )


def _same_distribution(drawn: Sequence[Drawn]) -> Claim:
    text = (
        "Samples with drafting come from the fused distribution (arXiv 2211.17192): no test of "
        "first tokens rejects it, though at least half of the tests reject the drafter's own."
    )
    if not drawn:
        return Claim(text, None, "nothing was drawn.")
    informative = [one for one in drawn if one.control < LEAST_P]
    found = f"{len(informative)} of {len(drawn)} tests are informative (reject the drafter's own)"
    pools: dict[str, Sequence[Drawn]] = {"of these": informative}
    if len(informative) < len(drawn):
        pools["of all"] = drawn
    parts = [
        f"the smallest p-value {who} is {min(one.p for one in ones):.2g} "
        f"({_together(ones):.2g} after Bonferroni)"
        for who, ones in pools.items()
        if ones
    ]
    # Draws that came from the drafter would leave no test informative: a rejection always counts.
    rejected = any(_together(ones) < LEAST_P for ones in (informative, drawn) if ones)
    enough = 2 * len(informative) >= len(drawn)
    return Claim(
        text,
        False if rejected else True if enough else None,
        f"{'; '.join([found, *parts])}. Less than {LEAST_P:g} rejects.",
    )


def _together(tested: Sequence[Drawn] | Sequence[Predicted]) -> float:
    """The smallest p-value of several tests, after Bonferroni."""
    return min(1.0, min(one.p for one in tested) * len(tested))


def _rejection(predicted: Sequence[Predicted]) -> Claim:
    text = (
        "Rejection accepts a draft with probability 1 - TV, on average within "
        f"{NEAR:g} (arXiv 2211.17192)."
    )
    known = [one for one in predicted if one.rows]
    if not known:
        return Claim(text, None, "no draft was checked.")
    parts = [f"alpha {mode(one.alpha)} {one.above_most.text(3)}" for one in known]
    found = f"measured minus 1 - TV: {', '.join(parts)}"
    if tested := [one for one in known if not math.isnan(one.p)]:
        found += f"; p of no difference at all: {_together(tested):.2g} after Bonferroni"
    verdicts = (within(one.above_most, -NEAR, NEAR) for one in known)
    return Claim(text, all_hold(verdicts), f"{found}.")


def _coupled(predicted: Sequence[Predicted]) -> Claim:
    text = (
        "Coupled, a draft is accepted on average at least as often as (1 - TV) / (1 + TV) "
        "(arXiv 2408.07978)."
    )
    known = [one for one in predicted if one.rows]
    if not known:
        return Claim(text, None, "no draft was checked.")
    parts = [f"alpha {mode(one.alpha)} {one.above_least.text(3)}" for one in known]
    verdicts = (at_least(one.above_least, 0.0) for one in known)
    return Claim(text, all_hold(verdicts), f"measured minus the bound: {', '.join(parts)}.")


def tables(
    fared: Sequence[Fared],
    predicted: Sequence[Predicted],
    drawn: Sequence[Drawn],
    timed: Sequence[Timed],
) -> tuple[Table, ...]:
    """All tables, the clock's last."""
    return (_fared(fared), _predicted(predicted), _drawn(drawn), _timed(timed))


_ALPHA = Column("alpha", "alpha")
_TEMPERATURE = Column("temperature", "temperature")
_RULE = Column("accept", "rule")


def _fared(fared: Sequence[Fared]) -> Table:
    rows = tuple(
        (
            mode(one.alpha),
            f"{one.temperature:g}",
            one.rule,
            float(one.n),
            float(one.replies),
            float(one.equal),
            one.accepted,
            one.tokens,
        )
        for one in fared
    )
    columns = (
        _ALPHA,
        _TEMPERATURE,
        _RULE,
        Column("n", "n"),
        Column("replies", "replies"),
        Column("equal", "texts equal"),
        Column("accepted_share", "drafts accepted", 3),
        Column("tokens_per_round", "tokens per round", 2),
    )
    note = "At temperature 0 both rules are greedy, and decide alike."
    return Table("Drafted replies", columns, rows, (note,))


def _predicted(predicted: Sequence[Predicted]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            mode(one.alpha),
            one.rule,
            float(one.rows),
            one.measured,
            one.most,
            one.least,
            one.above_most,
        )
        for one in predicted
    ]
    columns = (
        _ALPHA,
        _RULE,
        Column("drafts", "drafts"),
        Column("accepted_share", "accepted", 3),
        Column("one_minus_tv", "1 - TV", 3),
        Column("coupled_bound", "(1 - TV) / (1 + TV)", 3),
        Column("above_one_minus_tv", "accepted minus (1 - TV)", 3),
    )
    note = "Temperature 1, n = 2, on the rows of the replies themselves."
    return Table("Acceptance and total variation", columns, tuple(rows), (note,))


def _drawn(drawn: Sequence[Drawn]) -> Table:
    rows = tuple(
        (
            one.prompt,
            mode(one.alpha),
            one.rule,
            float(one.draws),
            float(one.cells),
            one.p,
            one.control,
        )
        for one in drawn
    )
    columns = (
        Column("prompt", "prompt"),
        _ALPHA,
        _RULE,
        Column("draws", "draws"),
        Column("cells", "cells"),
        Column("p_fused", "p, fused", 4),
        Column("p_drafter", "p, drafter's (control)", 4),
    )
    note = f"First three tokens, n = 4, temperature 1; {SIMULATIONS:,} simulations per p-value."
    return Table("Draws against the exact distribution", columns, rows, (note,))


def _timed(timed: Sequence[Timed]) -> Table:
    drafts = list(timed[0].quicker) if timed else []
    rows: list[tuple[Cell, ...]] = [
        (
            mode(one.alpha),
            f"{one.temperature:g}",
            one.rule,
            *(one.quicker[draft] for draft in drafts),
        )
        for one in timed
    ]
    columns = (
        _ALPHA,
        _TEMPERATURE,
        _RULE,
        *(
            Column(
                f"{draft}_times_plain" if draft == "auto" else f"n{draft}_times_plain",
                draft if draft == "auto" else f"n = {draft}",
                2,
                is_time=True,
            )
            for draft in drafts
        ),
    )
    notes = (
        "Seconds per token of plain decoding over those of drafting, measured in turns, one reply "
        "at a time: medians over replies. They belong to the machine that they were measured on.",
        "auto chooses n by what decodes take; models as small as the embedded ones leave drafting "
        "little to save.",
    )
    return Table("Speed-up over plain decoding", columns, tuple(rows), notes)


def figure(fared: Sequence[Fared]) -> Figure:
    """Acceptance by n, coupled."""
    kinds: dict[tuple[Alpha, float], list[Point]] = {}
    for one in fared:
        if one.rule == "coupled":
            own = kinds.setdefault((one.alpha, one.temperature), [])
            own.append(Point(float(one.n), one.accepted))
    lines = tuple(
        Line(f"alpha {mode(alpha)}, temperature {temperature:g}", tuple(points))
        for (alpha, temperature), points in kinds.items()
    )
    note = "Coupled. The further is drafted, the more drafts lie behind a wrong one."
    return Figure("Drafts accepted", "n, rows of a round", "share of drafts", lines, note)
