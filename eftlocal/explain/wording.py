"""How a trace is put into words and numbers, in the terminal and on the page alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..diagnostics import ModelTrace
from .analysis import STRONG, AlphaRange, Changes, Summary
from .records import Reply, TracedToken


def percent(probability: float) -> str:
    """A probability; small ones keep a digit."""
    if probability >= 0.9995:
        return "100%"
    if probability >= 0.0995:
        return f"{probability:.0%}"
    return f"{probability:.1%}" if probability >= 0.0005 else "<0.1%"


def number(value: float) -> str:
    """A number with two digits after the point, small ones with one that counts."""
    if math.isinf(value):
        return "infinite"
    if 0 < value < 0.0001:
        return "<0.0001"
    return f"{value:.2f}" if abs(value) >= 0.005 or value == 0 else f"{value:.1g}"


def short(value: float) -> str:
    """A number without needless zeros, such as 1, 0.5 or 1.25."""
    return f"{round(value, 2) + 0.0:g}"


def visible(text: str) -> str:
    """A token's text on one line: what does not print is written as an escape."""
    names = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return "".join(
        names.get(char) or (char if char.isprintable() else _escape(char)) for char in text
    )


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def quoted(text: str, most: int = 60) -> str:
    """A token's text in quotes, so that blanks are seen; a long one is cut."""
    text = visible(text)
    return f'"{text}"' if len(text) <= most else f'"{text[: most - 3]}..."'


def summary_lines(summary: Summary, found: AlphaRange) -> list[str]:
    """The summary in sentences."""
    lines = [
        f"{summary.tokens} tokens, mean total variation {number(summary.mean_variation)}; "
        f"{summary.strong} of them {STRONG} or more."
    ]
    if found.mode == "fixed":
        lines.append(f"Alpha was fixed at {short(found.low)}.")
    else:
        lines.append(
            f"Mean alpha {number(summary.mean_alpha)} ({found.mode}); "
            f"{summary.at_bound} at a bound ({short(found.low)} or {short(found.high)})."
        )
    counts = ", ".join(f"{word} {count}" for word, count in summary.origins.items())
    return [*lines, f"Where tokens come from: {counts}."]


def changes_lines(changes: Changes) -> list[str]:
    """What is known, and what is not, of another alpha."""
    n = len(changes.places)
    at = f"At alpha {short(changes.alpha)}"
    if n:
        places = f"{n} place{'' if n == 1 else 's'}"
        lines = [
            f"{at} another token would have been the likeliest at {places}, each looked at by "
            "itself: after the first one the reply would have gone on differently, which a trace "
            "cannot know."
        ]
    else:
        lines = [f"{at} the same tokens would have been the likeliest."]
    unsure = sum(not change.is_certain for change in changes.places)
    doubts = [f"{unsure} of these"] if unsure else []
    doubts += [f"{changes.open_places} other places"] if changes.open_places else []
    if doubts:
        lines.append(
            "A trace holds each model's likeliest tokens only. A token outside of them might come "
            f"first instead at {' and '.join(doubts)}."
        )
    return lines


def alpha_text(token: TracedToken, reply: Reply, found: AlphaRange) -> str:
    """A token's alpha; every expert's, where each has its own."""
    values = token.trace.alpha
    if len(values) > 1 and found.per_expert:
        named = zip(reply.header.experts, values, strict=True)
        text = ", ".join(f"{name} {number(value)}" for name, value in named)
    else:
        text = number(found.chosen(token))
    return text + (" (bound)" if found.is_bound(found.chosen(token)) else "")


def expert_prefixes(reply: Reply) -> Sequence[str]:
    """What stands before a role's name: the expert's, where there are several."""
    names = reply.header.experts
    return [f"{name} " for name in names] if len(names) > 1 else [""]


def models_of(token: TracedToken, reply: Reply) -> list[tuple[str, ModelTrace]]:
    """The name and the view of every model, the fused distribution first."""
    trace = token.trace
    found = [("fused", trace.fused), ("base", trace.base)]
    for name, tuned, reference in zip(
        expert_prefixes(reply), trace.tuned, trace.reference, strict=True
    ):
        found += [(f"{name}tuned", tuned), (f"{name}reference", reference)]
    return found
