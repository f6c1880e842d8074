"""The paper's grid on the embedded models, token for token, and how the exact search compares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import eftlocal
from eftlocal.alpha import AlphaSettings, search_alpha
from eftlocal.context import Block
from eftlocal.distributions import Array
from eftlocal.llama import ContextSettings, LlamaContext, Weights
from eftlocal.stream import Completion

from .reference_alpha import Goal, Row, log_softmax, paper_loop

FAMILY = Path(eftlocal.__file__).parent / "families" / "atlas"
FILES = ("large.gguf", "small-chat.gguf", "small.gguf")
"""Base, tuned, reference of the entry."""

N_PROMPTS = 50
MAX_TOKENS = 10


class Reply(NamedTuple):
    """One answer, and the rows (n, V) of base, tuned and reference that it came from."""

    completion: Completion
    rows: tuple[Array, Array, Array]


def stepped(context: LlamaContext, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> Array:
    """(n, V) logits before each of `tokens`, one token at a time after an empty cache."""
    context.rewind(0, len(context.tokens(0)))
    if len(prompt) > 1:
        context.decode([Block(0, prompt[:-1], 0)])
    fed = (prompt[-1], *tokens[:-1])
    return np.concatenate([context.decode([Block(0, [token], 1)]).copy() for token in fed])


@pytest.fixture(scope="module")
def replies() -> Iterator[list[Reply]]:
    """Greedy answers with the grid to every sixth question, and their rows."""
    lines = (FAMILY / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines[:: len(lines) // N_PROMPTS]]
    weights = [Weights(FAMILY / name) for name in FILES]
    contexts = [LlamaContext(w, ContextSettings(n_ctx=256, n_rows=1)) for w in weights]
    answers = []
    with eftlocal.load("atlas") as model:
        for question in questions[:N_PROMPTS]:
            done = model.chat(
                [{"role": "user", "content": question}],
                alpha="grid",
                temperature=0,
                max_tokens=MAX_TOKENS,
            )
            base, tuned, reference = (
                stepped(context, done.prompt_tokens, done.tokens) for context in contexts
            )
            answers.append(Reply(done, (base, tuned, reference)))
    yield answers
    for context in contexts:
        context.close()
    for w in weights:
        w.close()


def test_grid_follows_the_papers_loop(replies: list[Reply]) -> None:
    """Every alpha and every greedy token is the transcribed loop's; several alphas occur."""
    used: set[float] = set()
    for completion, rows in replies:
        decided = zip(completion.tokens, completion.alphas, *rows, strict=True)
        for token, (alpha,), base, tuned, reference in decided:
            _, step, losses = paper_loop(base, tuned[None], reference[None])
            best = losses[0, step]
            # Where two points are equal up to rounding either is the first smallest.
            equal = losses[0] - best <= 1e-9 * max(1.0, best)
            assert alpha in np.flatnonzero(equal) / 10
            p, t, q = (log_softmax(row) for row in (base, tuned, reference))
            fused = p + alpha * (t - q)
            assert fused[token] >= fused.max() - 1e-4
            used.add(alpha)
    assert len(replies) == N_PROMPTS
    assert len(used) > 5


def test_dynamic_is_never_above_the_grid(replies: list[Reply]) -> None:
    """On the same rows the exact search reaches the grid's loss or a lower one, often lower."""
    lower = total = 0
    for completion, (base, tuned, reference) in replies:
        found = search_alpha(base, [tuned], [reference], AlphaSettings("dynamic"))
        for i, (alpha,) in enumerate(completion.alphas):
            goal = Goal(Row.of(base[i], tuned[None, i], reference[None, i]))
            exact, grid = goal.loss(found.alpha[i]), goal.loss([alpha])
            assert exact <= grid + 1e-6 * max(1.0, grid)
            lower += exact < grid - 1e-6 * max(1.0, grid)
            total += 1
    assert lower > total / 3
