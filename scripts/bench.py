"""Measure fused decoding against its floor, and memory, on trios with random weights.

    python -m scripts.bench rate      # plain decoding against the floor
    python -m scripts.bench memory    # resident memory against weights + KV caches

The floor of a step is the one-token decodes of the three models in alternation, with no Python
work between them. Floor and eftlocal are measured in turns in one run; medians are printed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

import eftlocal
from tests.gguf_models import END, EOS, ModelShape, write_gguf

LARGE = ModelShape(
    width=1536, layers=24, heads=12, kv_heads=4, ffn=4096, context_length=4096, quantization="Q4_0"
)
SMALL = ModelShape(
    width=512, layers=8, heads=8, kv_heads=4, ffn=1408, context_length=4096, quantization="Q8_0"
)
NO_END = {EOS: -100.0, END: -100.0}
PROMPT = list(range(300, 332))


def write_trio(folder: Path, n_vocab: int, layers: int = LARGE.layers) -> dict[str, Path]:
    """A large base and a small pair over one vocabulary."""
    large = replace(LARGE, n_vocab=n_vocab, layers=layers)
    small = replace(SMALL, n_vocab=n_vocab)
    return {
        "base": write_gguf(folder / "base.gguf", large, seed=1),
        "tuned": write_gguf(folder / "tuned.gguf", small, seed=2),
        "reference": write_gguf(folder / "reference.gguf", small, seed=3),
    }


def floor_steps(model: eftlocal.FusedModel, n_steps: int) -> float:
    """Seconds per step of the bare decode calls, over the same contexts."""
    import llama_cpp.llama_cpp as lib

    contexts = model.engine.ensemble.contexts
    handles = [context._context for context in contexts]  # type: ignore[attr-defined]
    token = (lib.llama_token * 1)(400)
    batches = [lib.llama_batch_get_one(token, 1) for _ in handles]
    for handle in handles:
        memory = lib.llama_get_memory(handle)
        lib.llama_memory_seq_rm(memory, 0, -1, -1)
        prompt = (lib.llama_token * len(PROMPT))(*PROMPT)
        lib.llama_decode(handle, lib.llama_batch_get_one(prompt, len(PROMPT)))
    pairs = list(zip(handles, batches, strict=True))
    decode, logits = lib.llama_decode, lib.llama_get_logits
    start = time.perf_counter()
    for _ in range(n_steps):
        for handle, batch in pairs:
            decode(handle, batch)
            logits(handle)
    seconds = time.perf_counter() - start
    for handle in handles:
        lib.llama_memory_seq_rm(lib.llama_get_memory(handle), 0, -1, -1)
    model.engine.ensemble.forget(0)
    return seconds / n_steps


def fused_steps(model: eftlocal.FusedModel, n_steps: int, **options: float) -> float:
    """Seconds per token of eftlocal's plain decoding."""
    done = model.complete(PROMPT, max_tokens=n_steps + 1, logit_bias=NO_END, **options)
    model.engine.ensemble.forget(0)
    return done.timings.generation_seconds / (n_steps + 1)


@click.group()
def bench() -> None:
    """Benchmarks on random weights."""


@bench.command()
@click.option("--n-vocab", default=32_000, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--steps", default=60, show_default=True)
@click.option("--layers", default=LARGE.layers, show_default=True, help="Of the base.")
@click.option("--threads", default=0, help="0: the physical cores that this process may use.")
def rate(n_vocab: int, rounds: int, steps: int, layers: int, threads: int) -> None:
    """Plain decoding against the floor: medians over interleaved rounds."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_trio(Path(folder), n_vocab, layers)
        with eftlocal.load(
            base=files["base"],
            tuned=files["tuned"],
            reference=files["reference"],
            threads=threads,
            ctx=512,
        ) as model:
            kinds: dict[str, Callable[[], float]] = {
                "floor": lambda: floor_steps(model, steps),
                "greedy": lambda: fused_steps(model, steps, temperature=0),
                "temperature 1": lambda: fused_steps(model, steps),
                "top-p 0.95": lambda: fused_steps(model, steps, top_p=0.95),
            }
            seen: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(rounds + 1):
                for kind, measure in kinds.items():
                    seen[kind].append(measure())
    floor = statistics.median(seen["floor"][1:])
    click.echo(f"V = {n_vocab}, {rounds} rounds of {steps} steps, medians")
    for kind, seconds in seen.items():
        median = statistics.median(seconds[1:])
        click.echo(f"{kind:14} {1e3 * median:8.2f} ms/step   {floor / median:.3f} of the floor")


MEASURED = """
import sys, numpy as np
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
import eftlocal
base, tuned, reference, ctx, cache = sys.argv[1:]
model = eftlocal.load(base=base, tuned=tuned, reference=reference, ctx=int(ctx))
model.complete(list(range(300, 332)), max_tokens=200, logit_bias={2: -100.0, 262: -100.0})
weights = sum(w.n_bytes for w in model._parts.weights)
print(before, resident(), weights, int(cache))
"""


@bench.command()
@click.option("--n-vocab", default=151_936, show_default=True)
@click.option("--ctx", default=4096, show_default=True)
def memory(n_vocab: int, ctx: int) -> None:
    """Resident memory after load and 200 tokens, over weights, KV caches and a bare NumPy."""
    caches = sum(
        2 * 2 * ctx * shape.layers * shape.width // shape.heads * shape.kv_heads
        for shape in (LARGE, SMALL, SMALL)
    )
    with tempfile.TemporaryDirectory() as folder:
        files = write_trio(Path(folder), n_vocab)
        command = [sys.executable, "-c", MEASURED, *map(str, files.values()), str(ctx), str(caches)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    before, resident, weights, cache = (int(number) / 2**20 for number in done.stdout.split())
    click.echo(f"V = {n_vocab}, ctx = {ctx}; MiB")
    click.echo(f"resident {resident:.0f} = python + numpy {before:.0f} + weights {weights:.0f}")
    click.echo(f"  + KV caches {cache:.0f} + the rest {resident - before - weights - cache:.0f}")


if __name__ == "__main__":
    bench()
