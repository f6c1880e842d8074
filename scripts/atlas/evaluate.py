"""The same systems in PyTorch: batched greedy decoding, quick enough to look at while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .chats import Message
from .model import Llama
from .questions import Question, make_questions
from .report import MAX_TOKENS, SYSTEMS, Reply, Score, System, score, table
from .tokenizer import END, EOS, Tokenizer
from .train import load_model
from .world import load_world

GRID = torch.linspace(0, 2, 21)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) over the last axis of log-probs."""
    return (p.exp() * (p - q)).sum(-1)


def grid_alpha(base: Tensor, tuned: Tensor, reference: Tensor) -> Tensor:
    """The dynamic alpha of each row: (B, V) log-probs -> (B, 1), by the paper's 21 points."""
    delta = tuned - reference
    to_tuned, to_reference = divergence(tuned, reference), divergence(reference, tuned)
    losses = []
    for alpha in GRID:
        fused = (base + alpha * delta).log_softmax(-1)
        there = divergence(fused, base) - to_tuned
        back = divergence(base, fused) - to_reference
        losses.append(there**2 + back**2)
    return GRID[torch.stack(losses).argmin(0)][:, None]


def fuse(system: System, base: Tensor, tuned: Tensor, reference: Tensor) -> Tensor:
    """(B, V) logits of the three -> fused scores (B, V)."""
    base, tuned, reference = (x.log_softmax(-1) for x in (base, tuned, reference))
    if system.top_p is not None:  # outside the tuned model's nucleus the ratio P / Q is one
        probabilities, order = tuned.exp().sort(-1, descending=True)
        before = probabilities.cumsum(-1) - probabilities
        outside = torch.zeros_like(tuned, dtype=torch.bool).scatter(
            -1, order, before >= system.top_p
        )
        base = torch.where(outside, reference, base)
    if system.alpha == "grid":
        return base + grid_alpha(base, tuned, reference) * (tuned - reference)
    return base + float(system.alpha) * (tuned - reference)


@torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
def decode(
    system: System, models: Mapping[str, Llama], prompts: Sequence[list[int]]
) -> list[list[int]]:
    """Greedy completions of all prompts at once; padding is behind, where causality hides it."""
    lengths = torch.tensor([len(p) for p in prompts])
    tokens = torch.full((len(prompts), int(lengths.max()) + MAX_TOKENS), EOS)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    running = torch.ones(len(prompts), dtype=torch.bool)
    ends = lengths + MAX_TOKENS
    roles = (system.base, system.tuned, system.reference)
    for step in range(MAX_TOKENS):
        rows = running.nonzero()[:, 0]
        at = lengths[rows] + step
        seen = tokens[rows, : int(at.max())]
        index = torch.arange(len(rows))
        logits = {name: models[name](seen)[index, at - 1].float() for name in set(roles)}
        chosen = fuse(system, *(logits[name] for name in roles)).argmax(-1)
        tokens[rows, at] = chosen
        stopped = (chosen == END) | (chosen == EOS)
        ends[rows[stopped]] = at[stopped]
        running[rows[stopped]] = False
        if not running.any():
            break
    return [row[n:e].tolist() for row, n, e in zip(tokens, lengths, ends, strict=True)]


def ask_all(
    system: System,
    models: Mapping[str, Llama],
    tokenizer: Tokenizer,
    questions: Sequence[Question],
) -> list[Reply]:
    """Every question as a chat of its own."""
    prompts = [tokenizer.prompt((Message("user", q.question),)) for q in questions]
    completions = decode(system, models, prompts)
    return [Reply(tokenizer.decode(ids), len(ids) < MAX_TOKENS) for ids in completions]


def load_models(out: Path, tokenizer: Tokenizer) -> dict[str, Llama]:
    """The models that are there, finished or as checkpoints."""
    models = {}
    for name in ("large", "small", "small-chat", "large-chat"):
        for path in (out / f"{name}.pt", out / f"{name}.checkpoint.pt"):
            if path.exists():
                size = name.removesuffix("-chat")
                models[name] = load_model(path, size, tokenizer.size).eval()
                break
    return models


def evaluate(out: Path) -> None:
    """Print the table and some replies of every system that can be run."""
    tokenizer = Tokenizer(out / "tokenizer.model")
    models = load_models(out, tokenizer)
    questions = make_questions(load_world())
    scores: dict[System, Score] = {}
    for system in SYSTEMS:
        if not {system.base, system.tuned, system.reference} <= models.keys():
            continue
        replies = ask_all(system, models, tokenizer, questions)
        scores[system] = score(replies, questions)
        print(system.title, scores[system], flush=True)
        for question, reply in list(zip(questions, replies, strict=True))[::30]:
            print(f"   {question.question} {question.answers} -> {reply.text!r}")
    print(table(scores))
