"""Packing documents into rows, and one training loop for pre-training and for tuning."""

from __future__ import annotations

import copy
import itertools
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from .chats import Chat
from .corpus import documents
from .courses import course
from .model import Llama, shape_of
from .tokenizer import EOS, KEPT, SAID, Tokenizer
from .world import World

TOKENS_PER_STEP = 6144
SAVE_EVERY = 200
Rows = NDArray[np.uint16]
Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Plan:
    """One run: which rows, how many steps, how fast."""

    name: str
    steps: int
    rate: float
    seed: int
    long_share: float  # the last part of the run, on rows of 1,024 tokens
    warmup: int = 100
    keeps: bool = False  # whether rows carry KEPT bits, for what must not change


def pack(pieces: Iterable[list[int]], length: int, count: int) -> Rows:
    """(count, length + 1) rows, each starting with a fresh document; what overhangs is cut."""
    rows = np.full((count, length + 1), EOS, dtype=np.uint16)
    stream = iter(pieces)
    for row in rows:
        used = 0
        while used <= length:
            part = next(stream)[: length + 1 - used]
            row[used : used + len(part)] = part
            used += len(part)
    return rows


def pretraining_rows(
    world: World, tokenizer: Tokenizer, length: int, count: int, seed: int
) -> Rows:
    """Rows of pre-training documents, the same ones every time."""
    pieces = (tokenizer.document(d) for d in documents(world, seed))
    return pack(pieces, length, count)


def tuning_pieces(chats: Iterable[Chat], tokenizer: Tokenizer) -> Iterator[list[int]]:
    """Conversations whose assistant tokens carry the SAID or the KEPT bit."""
    for chat in chats:
        ids, marks = tokenizer.chat(chat)
        yield [i | mark for i, mark in zip(ids, marks, strict=True)]


def tuning_rows(name: str, world: World, tokenizer: Tokenizer, length: int, count: int) -> Rows:
    """Rows of the tuned model's course with loss bits."""
    chats = course(name, world.half(True), random.Random(length))
    return pack(tuning_pieces(chats, tokenizer), length, count)


def batches(rows: Rows, seed: int) -> Iterator[Rows]:
    """Endless shuffled batches of TOKENS_PER_STEP tokens."""
    size = TOKENS_PER_STEP // (rows.shape[1] - 1)
    for epoch in itertools.count():
        order = np.random.default_rng((seed, epoch)).permutation(len(rows))
        for start in range(0, len(order) - size + 1, size):
            yield rows[order[start : start + size]]


def learning_rate(plan: Plan, step: int) -> float:
    """Linear warm-up, then a cosine to a fiftieth."""
    if step < plan.warmup:
        return plan.rate * (step + 1) / plan.warmup
    done = (step - plan.warmup) / max(1, plan.steps - plan.warmup)
    return plan.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def loss_of(model: Forward, batch: torch.Tensor, before: Forward | None = None) -> torch.Tensor:
    """Mean cross entropy of a batch (B, T + 1); where SAID bits occur, of those targets only.

    Where KEPT bits occur, the mean KL(before || model) there is added: a model that learns
    something new elsewhere stays what it was here.
    """
    ids, marks = batch & (KEPT - 1), batch[:, 1:] & (SAID | KEPT)
    targets = ids[:, 1:]
    if bool(marks.any()):
        targets = torch.where(marks == SAID, targets, -100)
    logits = model(ids[:, :-1]).float()
    loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    kept = marks == KEPT
    if before is None or not bool(kept.any()):
        return loss
    with torch.no_grad():
        wanted = before(ids[:, :-1]).float()[kept].log_softmax(-1)
    return loss + functional.kl_div(
        logits[kept].log_softmax(-1), wanted, reduction="batchmean", log_target=True
    )


def new_optimizer(model: Llama) -> torch.optim.AdamW:
    """AdamW; matrices decay, norms do not."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.97), eps=1e-9, fused=True)


def load_model(path: Path, size: str, vocabulary: int) -> Llama:
    """A model from a checkpoint or a finished file."""
    model = Llama(shape_of(size, vocabulary))
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    return model


def save(path: Path, model: Llama, optimizer: torch.optim.AdamW | None, step: int) -> None:
    """Write atomically, so an interrupted save leaves the last one."""
    state = {"model": model.state_dict(), "step": step}
    if optimizer is not None:
        state["optimizer"] = optimizer.state_dict()
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def planned(plan: Plan, short: Rows, long: Rows, first: int) -> Iterator[Rows]:
    """The batches from step `first` on: short rows, then long ones."""
    switch = int(plan.steps * (1 - plan.long_share))
    early = itertools.islice(batches(short, plan.seed), min(first, switch), switch)
    late = itertools.islice(batches(long, plan.seed), max(0, first - switch), plan.steps - switch)
    return itertools.chain(early, late)


def run(model: Llama, plan: Plan, short: Rows, long: Rows, out: Path, device: str) -> Llama:
    """Train to OUT/NAME.pt, resuming from OUT/NAME.checkpoint.pt if it is there."""
    final, checkpoint = out / f"{plan.name}.pt", out / f"{plan.name}.checkpoint.pt"
    if final.exists():
        print(f"{plan.name}: already trained")
        model.load_state_dict(torch.load(final, map_location="cpu", weights_only=True)["model"])
        return model
    torch.manual_seed(plan.seed)
    model.to(device).train()
    optimizer, first = new_optimizer(model), 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    before = copy.deepcopy(model).eval() if plan.keeps else None
    # Compiling takes a minute, which a short tuning does not win back.
    forward = torch.compile(model, dynamic=False) if plan.steps > 200 else model
    began, total = time.monotonic(), 0.0
    for step, rows in enumerate(planned(plan, short, long, first), start=first + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, step - 1)
        batch = torch.from_numpy(rows.astype(np.int64)).to(device)
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            loss = loss_of(forward, batch, before)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.item()
        if step % 20 == 0:
            pace = (time.monotonic() - began) / (step - first)
            print(f"{plan.name} {step}/{plan.steps} {total / 20:.4f} {pace:.3f} s", flush=True)
            total = 0.0
        if step % SAVE_EVERY == 0:
            save(checkpoint, model, optimizer, step)
    save(final, model, None, plan.steps)
    checkpoint.unlink(missing_ok=True)
    return model
