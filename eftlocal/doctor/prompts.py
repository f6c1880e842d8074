"""Whether the base understands the chat template: how far it is from the reference behind it.

A base that never saw the template's markers is noise after them, and fusing noise breaks replies.
The reference is a base model, too, so where the two part ways right after the template, but not
after a plain transcript, the markers are to blame.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..prompts import plain_transcript
from .entries import Problem

if TYPE_CHECKING:
    from ..diagnostics import Trace
    from ..model import FusedModel

QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "How do I boil an egg?",
)
STRONG = 0.8
"""A distance from here on is a strong disagreement, if it is also `MORE` than after plain text."""
MORE = 0.2


@dataclass(frozen=True, slots=True)
class PromptReport:
    """Median total variation of base and reference at a reply's first token, 0 to 1.

    Attributes:
        template: after the entry's own prompt.
        plain: after a plain transcript.
        problems: a warning where the first is large and the second is not.
    """

    template: float
    plain: float
    problems: tuple[Problem, ...]


def compare_prompts(model: FusedModel, questions: Sequence[str] = QUESTIONS) -> PromptReport:
    """Ask a loaded model some questions in both styles, one token each."""
    found: dict[str, list[float]] = {"template": [], "plain": []}
    for question in questions:
        messages = [{"role": "user", "content": question}]
        options = {"max_tokens": 1, "temperature": 0, "trace": True}
        replies = {
            "template": model.chat(messages, **options),
            "plain": model.complete(plain_transcript(messages), **options),
        }
        for style, reply in replies.items():
            found[style] += [distance(trace) for trace in reply.traces[:1]]
    template, plain = (
        statistics.median(found[style]) if found[style] else math.nan for style in found
    )
    return PromptReport(template, plain, judge(template, plain))


def distance(trace: Trace) -> float:
    """Total variation of base and first reference, over the tokens likeliest to any model.

    What lies outside of them counts as disagreement, so it is an upper bound.
    """
    pairs = zip(trace.base.logprobs, trace.reference[0].logprobs, strict=True)
    return max(0.0, 1.0 - sum(math.exp(min(pair)) for pair in pairs))


def judge(template: float, plain: float) -> tuple[Problem, ...]:
    """A warning where base and reference part ways because of the template."""
    if not (template >= STRONG and template >= plain + MORE):
        return ()
    text = (
        "base and reference disagree right after the chat template (total variation "
        f"{template:.2f}, after plain text {plain:.2f}): one of them seems not to know its markers"
    )
    return (Problem(text, 'try prompt = "tuned-only" in its entry', is_fatal=False),)
