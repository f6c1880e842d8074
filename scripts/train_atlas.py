"""Train and package the atlas family.

    python scripts/train_atlas.py --out build/atlas            # everything, resumable
    python scripts/train_atlas.py --out build/atlas pretrain --steps 3000
    python scripts/train_atlas.py specialise                   # only what is tuned from small.gguf
    python scripts/train_atlas.py --report                     # scores of the packaged GGUFs

Needs the `train` extra (PyTorch, sentencepiece, gguf). The report goes through PyTorch too; it is
a second route to the numbers of `eftlocal eval scale`.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
FAMILY = ROOT / "eftlocal" / "families" / "atlas"
STEPS = ("corpus", "tokenizer", "pretrain", "tune", "export", "specialise")
# Stages of (steps, peak rate, share of rows with 1,024 tokens, corpus); each goes on from the last.
PRETRAIN = {
    "large": [(1600, 4e-3, 0.2, "corpus"), (900, 2e-3, 1.0, "corpus-two")],
    "small": [(1400, 1e-2, 0.12, "corpus"), (2000, 6e-3, 1.0, "corpus-two")],
}
ROWS = {("corpus", 512): 24_000, ("corpus", 1024): 3_000, ("corpus-two", 1024): 12_000}
# Gentle on purpose: a longer tuning also learns the tuned half by heart, and its delta turns noisy.
TUNE = {"large": (60, 4e-4), "small": (120, 4e-4)}
# Further tunings of the packaged small model, by what its name ends with (see atlas/courses.py).
SPECIALISE = {
    "open": (120, 4e-4),
    "careful": (120, 4e-4),
    "countries": (100, 4e-4),
    "elements": (100, 4e-4),
    "people": (60, 4e-4),
}


def make_tokenizer(out: Path) -> Any:
    """The tokenizer, trained on the first documents if it is not there yet."""
    from atlas.corpus import documents
    from atlas.tokenizer import Tokenizer, train_tokenizer
    from atlas.world import load_world

    model = out / "tokenizer.model"
    if not model.exists():
        train_tokenizer(
            itertools.islice(documents(load_world(), seed=1), 40_000), out / "tokenizer"
        )
    return Tokenizer(model)


def make_rows(out: Path, name: str, length: int) -> Any:
    """Packed rows, written once to OUT."""
    import numpy as np

    from atlas import train
    from atlas.world import load_world

    path = out / f"{name}-{length}.npy"
    if not path.exists():
        world, tokenizer = load_world(), make_tokenizer(out)
        if name == "tune":
            rows = train.tuning_rows("small-chat", world, tokenizer, length, 2_000)
        else:
            seed = length if name == "corpus" else 2 * length  # other documents in stage two
            rows = train.pretraining_rows(world, tokenizer, length, ROWS[name, length], seed)
        np.save(path, rows)
    return np.load(path, mmap_mode="r")


def pretrain(out: Path, size: str, steps: int | None, device: str) -> None:
    """Train one base model, stage after stage, to OUT/SIZE.pt."""
    from atlas import train
    from atlas.model import Llama, shape_of

    stages = PRETRAIN[size]
    model = Llama(shape_of(size, make_tokenizer(out).size))
    for number, (default, rate, long_share, corpus) in enumerate(stages, start=1):
        name = size if number == len(stages) else f"{size}-stage{number}"
        plan = train.Plan(name, steps or default, rate, seed=number, long_share=long_share)
        long = make_rows(out, corpus, 1024)
        short = make_rows(out, corpus, 512) if long_share < 1 else long
        model = train.run(model, plan, short, long, out, device)


def tune(out: Path, size: str, steps: int | None, device: str) -> None:
    """Tune one base model to polite chat on the tuning half."""
    from atlas import train

    default, rate = TUNE[size]
    plan = train.Plan(f"{size}-chat", steps or default, rate, seed=2, long_share=1.0, warmup=10)
    model = train.load_model(out / f"{size}.pt", size, make_tokenizer(out).size)
    rows = make_rows(out, "tune", 1024)
    train.run(model, plan, rows, rows, out, device)


def export_all(out: Path, target: Path) -> None:
    """Write the GGUFs of all models that are trained."""
    from atlas.export import export
    from atlas.train import load_model

    tokenizer = make_tokenizer(out)
    target.mkdir(parents=True, exist_ok=True)
    for name in ("large", "small", "small-chat", "large-chat"):
        source = out / f"{name}.pt"
        if not source.exists():
            source = out / f"{name}.checkpoint.pt"
        if source.exists():
            model = load_model(source, name.removesuffix("-chat"), tokenizer.size)
            export(model, tokenizer, name, target / f"{name}.gguf")
            print(f"{target / name}.gguf from {source.name}")


def specialise(out: Path, target: Path, steps: int | None, device: str) -> None:
    """Tune TARGET/small.gguf for the frontier and as experts; write GGUFs and questions."""
    from atlas import train
    from atlas.courses import FIELDS
    from atlas.export import export
    from atlas.packaged import read_model, read_tokenizer
    from atlas.questions import write_all
    from atlas.world import load_world

    start = target / "small.gguf"
    tokenizer = read_tokenizer(start)
    for ending, (default, rate) in SPECIALISE.items():
        name, count = f"small-{ending}", steps or default
        plan = train.Plan(name, count, rate, 2, 1.0, warmup=10, keeps=ending in FIELDS)
        rows = train.tuning_rows(name, load_world(), tokenizer, 1024, 6 * (count + 1))
        model = train.run(read_model(start), plan, rows, rows, out, device)
        export(model, tokenizer, name, target / f"{name}.gguf")
    write_all(load_world(), target)


def pick_device(device: str) -> str:
    """The GPU if there is one."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


@click.command()
@click.argument("steps_to_do", nargs=-1, type=click.Choice(STEPS), metavar="[STEP]...")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "build" / "atlas")
@click.option("--target", type=click.Path(path_type=Path), default=FAMILY, help="for the GGUFs")
@click.option("--size", type=click.Choice(("large", "small", "both")), default="both")
@click.option("--steps", type=int, help="training steps instead of the recipe's")
@click.option("--device", default="auto", help="auto, cpu or cuda")
@click.option("--report", is_flag=True, help="print scores and exit")
def main(
    steps_to_do: tuple[str, ...],
    out: Path,
    target: Path,
    size: str,
    steps: int | None,
    device: str,
    report: bool,
) -> None:
    """Do the named steps (all by default): corpus tokenizer pretrain tune export specialise."""
    if report:
        from atlas.evaluate import print_scores

        print_scores(target)
        return
    out.mkdir(parents=True, exist_ok=True)
    chosen = steps_to_do or STEPS
    sizes = ("large", "small") if size == "both" else (size,)
    if "tokenizer" in chosen or "corpus" in chosen:
        make_tokenizer(out)
    if "corpus" in chosen:
        for name, length in (*ROWS, ("tune", 1024)):
            make_rows(out, name, length)
    for name in sizes:
        if "pretrain" in chosen:
            pretrain(out, name, steps, pick_device(device))
        if "tune" in chosen:
            tune(out, name, steps, pick_device(device))
    if "export" in chosen:
        export_all(out, target)
    if "specialise" in chosen:
        specialise(out, target, steps, pick_device(device))


if __name__ == "__main__":
    main()
