"""The same systems in PyTorch: batched greedy decoding, quick enough to look at while training.

Fusing is written out here once more, plainly: a second route to what eftlocal does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eftlocal.evaluate.judging import Reply, factual, mannered
from eftlocal.evaluate.questions import Question, read_questions
from eftlocal.evaluate.scale import SYSTEMS
from eftlocal.evaluate.systems import System

from .chats import Message
from .model import Cache, Llama
from .packaged import read_model, read_tokenizer
from .tokenizer import END, EOS, Tokenizer

STEP = 0.1  # of the paper's grid
MAX_TOKENS = 64


@dataclass(frozen=True)
class Fusion:
    """A system as PyTorch needs it: names of files, one tuned and reference for each expert."""

    base: str
    tuned: tuple[str, ...]
    reference: tuple[str, ...]
    alpha: float | str
    weights: tuple[float, ...] | None
    top_p: float | None

    @classmethod
    def of(cls, system: System) -> Fusion:
        """What a system of `eftlocal eval` asks for."""
        files, options = system.models.files, system.options
        tuned = tuple(Path(file).stem for file in files["tuned"])
        weight = options.get("weight")
        return cls(
            base=Path(files["base"]).stem,
            tuned=tuned,
            reference=tuple(Path(file).stem for file in files["reference"]),
            alpha=options.get("alpha", 1.0),
            weights=None if weight is None else tuple(weight[name] for name in tuned),
            top_p=options.get("upscale_top_p"),
        )

    @property
    def all_weights(self) -> tuple[float, ...]:
        """One weight per expert: equal shares where none are given."""
        return self.weights or (1 / len(self.tuned),) * len(self.tuned)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) over the last axis of log-probs."""
    return (p.exp() * (p - q)).sum(-1)


def losses_at(alpha: Tensor, base: Tensor, delta: Tensor, targets: Tensor, both: bool) -> Tensor:
    """The loss of dynamic alpha (arXiv 2406.15480, Eq. 6 symmetrised).

    alpha (B,), log-probs base and delta (B, V), targets (N, 2, B) -> (B,). F is an exponential
    family, so KL(F || P) = alpha m - A and KL(P || F) = A - alpha E_P[delta], m = E_F[delta].
    """
    fused = base + alpha[:, None] * delta
    norm = fused.logsumexp(-1)
    there = alpha * ((fused - norm[:, None]).exp() * delta).sum(-1) - norm
    back = norm - alpha * (base.exp() * delta).sum(-1)
    loss = (there - targets[:, 0]) ** 2
    return (loss + (back - targets[:, 1]) ** 2 if both else loss).sum(0)


def best_alpha(mode: str, base: Tensor, delta: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The alpha in [0, 2] of least loss and that loss, (B,) each.

    The grid has 21 points; the other modes go on with finer ones around the best.
    """
    alpha, loss = torch.zeros(len(base)), torch.full((len(base),), torch.inf)
    tried = [torch.full_like(alpha, k * STEP) for k in range(21)]
    for width in (0.0,) if mode == "grid" else (0.0, STEP / 10, STEP / 100):
        if width:
            tried = [(alpha + k * width).clamp(0, 2) for k in range(-10, 11)]
        for one in tried:
            value = losses_at(one, base, delta, targets, both=mode != "one-sided")
            better = value < loss
            alpha, loss = torch.where(better, one, alpha), torch.where(better, value, loss)
    return alpha, loss


def filtered(system: Fusion, base: Tensor, tuned: Tensor, reference: Tensor) -> Tensor:
    """Outside the tuned model's nucleus the ratio P / Q is one (arXiv 2310.12962, section 4.3)."""
    weights = torch.tensor(system.all_weights)[:, None, None]
    mixed = (weights.abs() * reference).sum(0) / weights.abs().sum()
    target = (mixed + (weights * (tuned - reference)).sum(0)).log_softmax(-1)
    probabilities, order = target.exp().sort(-1, descending=True)
    before = probabilities.cumsum(-1) - probabilities
    outside = torch.zeros_like(base, dtype=torch.bool).scatter(-1, order, before >= system.top_p)
    return torch.where(outside, mixed, base).log_softmax(-1)


def fuse(system: Fusion, base: Tensor, tuned: Tensor, reference: Tensor) -> Tensor:
    """Logits (B, V) of the base, (E, B, V) of tuned and references -> fused scores (B, V)."""
    base, tuned, reference = (x.log_softmax(-1) for x in (base, tuned, reference))
    if system.top_p is not None:
        base = filtered(system, base, tuned, reference)
    delta, weights = tuned - reference, torch.tensor(system.all_weights)[:, None, None]
    if not isinstance(system.alpha, str):
        return base + float(system.alpha) * (weights * delta).sum(0)
    targets = torch.stack((divergence(tuned, reference), divergence(reference, tuned)), 1)
    if system.weights is not None:
        share = weights.abs() / weights.abs().sum()
        delta, targets = (weights * delta).sum(0)[None], (share * targets).sum(0)[None]
    found = [best_alpha(system.alpha, base, one, targets) for one in delta]
    active = torch.stack([loss for _, loss in found]).argmin(0)
    rows = torch.arange(len(base))
    alpha = torch.stack([alpha for alpha, _ in found])[active, rows]
    return base + alpha[:, None] * delta[active, rows]


class Batch:
    """Completions of several prompts under way, with one cache per model."""

    def __init__(self, models: Mapping[str, Llama], prompts: Sequence[list[int]]) -> None:
        """Read all prompts but their last tokens; padding is behind, where nobody looks."""
        self.models = models
        self.prompts = prompts
        self.lengths = torch.tensor([len(p) for p in prompts])
        longest = int(self.lengths.max())
        tokens = torch.tensor([p + [EOS] * (longest - len(p)) for p in prompts])
        self.last = tokens[torch.arange(len(prompts)), self.lengths - 1]
        self.caches = {name: Cache(longest + MAX_TOKENS) for name in models}
        for name, model in models.items():
            self.caches[name].positions = torch.arange(longest).expand(len(prompts), -1)
            model(tokens, self.caches[name])

    def logits(self) -> dict[str, Tensor]:
        """Every model's (B, V) after the last tokens."""
        rows = {}
        for name, model in self.models.items():
            self.caches[name].positions = self.lengths[:, None] - 1
            rows[name] = model(self.last[:, None], self.caches[name])[:, 0].float()
        return rows

    def append(self, chosen: Tensor, running: Tensor) -> None:
        """Take the chosen tokens, and go on with the running rows."""
        self.last, self.lengths = chosen[running], self.lengths[running] + 1
        for cache in self.caches.values():
            cache.keep(running)


@torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
def decode(
    system: Fusion, models: Mapping[str, Llama], prompts: Sequence[list[int]]
) -> list[list[int]]:
    """Greedy completions of all prompts at once, without their end tokens."""
    names = {system.base, *system.tuned, *system.reference}
    batch = Batch({name: models[name] for name in names}, prompts)
    completions: list[list[int]] = [[] for _ in prompts]
    numbers = torch.arange(len(prompts))
    for _ in range(MAX_TOKENS):
        rows = batch.logits()
        tuned, reference = (
            torch.stack([rows[name] for name in role]) for role in (system.tuned, system.reference)
        )
        chosen = fuse(system, rows[system.base], tuned, reference).argmax(-1)
        running = ((chosen != END) & (chosen != EOS)).nonzero()[:, 0]
        for number, token in zip(numbers[running].tolist(), chosen[running].tolist(), strict=True):
            completions[number].append(token)
        numbers = numbers[running]
        if not len(numbers):
            break
        batch.append(chosen, running)
    return completions


def ask_all(
    system: Fusion,
    models: Mapping[str, Llama],
    tokenizer: Tokenizer,
    questions: Sequence[Question],
) -> list[Reply]:
    """Every question as a chat of its own."""
    prompts = [tokenizer.prompt((Message("user", q.question),)) for q in questions]
    completions = decode(system, models, prompts)
    return [Reply(tokenizer.decode(ids), len(ids) < MAX_TOKENS) for ids in completions]


def print_scores(family: Path) -> None:
    """The systems of `eftlocal eval scale` on a family's files, dequantised."""
    models = {path.stem: read_model(path).eval() for path in sorted(family.glob("*.gguf"))}
    tokenizer = read_tokenizer(family / "small.gguf")
    questions = read_questions(family / "questions.jsonl", Question)
    print("| system | factuality | manners |\n|---|---|---|")
    for system in SYSTEMS:
        if system.options.get("alpha") == "joint":
            continue
        replies = ask_all(Fusion.of(system), models, tokenizer, questions)
        facts = sum(factual(r, q) for r, q in zip(replies, questions, strict=True))
        manners = sum(map(mannered, replies))
        n = len(questions)
        print(f"| {system.title} | {facts / n:.3f} | {manners / n:.3f} |")
