"""Compares eftlocal with other ways to decode, all in turns, and makes a table of it."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import BackendError, UsageError
from ...memory import ram
from ...threads import IdleCores
from ..report import Bars, Column, Report, Table
from ..shapes import find_shape, write_trio
from ..target import Target
from ..timing import Effort, interleaved, ratio
from .process import Decoded, Worker

EFTLOCAL = "eftlocal"
EFTLOCAL_AUTO = "eftlocal, drafting"
EFTLOCAL_BF16 = "eftlocal, BF16 weights"
TRANSFORMERS_BF16 = "proxy-tuning loop, transformers, bfloat16"
TRANSFORMERS_F32 = "proxy-tuning loop, transformers, float32"
LLAMA_OBJECTS = "three Llama objects combined by hand"
BASE_ALONE = "base alone, llama-cpp-python"

_PACKAGES = ("accelerate", "gguf", "torch", "transformers")
_ROLES = ("base", "tuned", "reference")
_WEIGHT_BYTES = {EFTLOCAL_BF16: 2, TRANSFORMERS_BF16: 4.5, TRANSFORMERS_F32: 4.5}
"""Bytes per weight while loading; transformers was seen to take 4.2 in bfloat16, 4.3 in float32."""

OnStep = Callable[[str], None]
Job = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to decode.

    Attributes:
        kind: one of this module's constants.
        tokens_per_second: median over the rounds, without the prompt.
        eftlocal_times_faster: eftlocal's rate without drafting over this one's, the median over
            the rounds.
        eftlocal_bf16_times_faster: the same of eftlocal with BF16 weights, where it was measured.
        resident_mib: resident memory of the process after decoding; None where nobody says.
        peak_mib: the most that was ever resident, as while loading.
        eftlocal_memory_share: eftlocal's resident memory over this one's.
        eftlocal_bf16_memory_share: the same with BF16 weights.
    """

    kind: str
    tokens_per_second: float
    eftlocal_times_faster: float
    eftlocal_bf16_times_faster: float | None
    resident_mib: float | None
    peak_mib: float | None
    eftlocal_memory_share: float | None
    eftlocal_bf16_memory_share: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared.

    Attributes:
        facts: what was measured, and on what.
        peers: by kind, eftlocal first.
        left_out: kind -> why it could not be measured.
    """

    facts: Mapping[str, str]
    peers: Mapping[str, Peer]
    left_out: Mapping[str, str] = field(default_factory=dict)


def check_packages() -> None:
    """Make sure that what is compared with is installed.

    Raises:
        UsageError: saying how to install it.
    """
    if any(find_spec(name) is None for name in _PACKAGES):
        raise UsageError("bench peers needs more packages: pip install 'eftlocal[bench]'")


def compare(
    target: Target, effort: Effort, shape: str | None = None, on_step: OnStep = lambda _: None
) -> Comparison:
    """Measure all kinds in turns: greedy, alpha 1, on the CPU, with the same threads.

    Args:
        target: the models; with one expert, whose tuned model is a whole one.
        effort: how much is measured.
        shape: what the target's random weights were written from; they are then written once more
            as BF16, for eftlocal and for the transformers loop in bfloat16.
        on_step: called with what is being done.

    Raises:
        UsageError: where packages are missing, or the models are not three files.
        BackendError: where eftlocal itself fails.
    """
    check_packages()
    threads: int = target.runtime.get("threads") or IdleCores().threads
    on_cpu = {"gpu_layers": 0, **{f"{role}_gpu_layers": 0 for role in _ROLES}}
    arguments = {**target.runtime, **on_cpu, "threads": threads}
    with ExitStack() as stack, _bf16_files(shape, on_step) as bf16:
        on_step(f"loading {EFTLOCAL}")
        own = {"random": target.random, "arguments": arguments}
        workers = {EFTLOCAL: stack.enter_context(Worker(EFTLOCAL, "eftlocal", own))}
        known = workers[EFTLOCAL].facts
        _check_files(known["files"])
        left_out = {}
        for kind, (loop, given) in _jobs(known, arguments, bf16).items():
            on_step(f"loading {kind}")
            try:
                _check_memory(_WEIGHT_BYTES.get(kind, 0) * known["n_weights"])
                workers[kind] = stack.enter_context(Worker(kind, loop, given))
            except BackendError as error:
                left_out[kind] = str(error).removeprefix(f"{kind}: ")
        on_step("measuring")
        peers = _measure(workers, known, effort)
    facts = {
        "model": target.name,
        "eftlocal": __version__,
        **{name: version(name) for name in ("llama-cpp-python", "torch", "transformers")},
        "vocabulary": f"{known['n_vocab']:,}",
        "context": f"{known['n_ctx']:,} tokens",
        "threads": str(threads),
        "rounds": str(effort.rounds),
    }
    return Comparison(facts, peers, left_out)


@contextmanager
def _bf16_files(shape: str | None, on_step: OnStep) -> Iterator[dict[str, str]]:
    """The shape's weights as BF16: role -> file, for the length of the block; {} without one."""
    if shape is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="eftlocal-bench-") as folder:
        on_step("writing random weights as BF16")
        files = write_trio(Path(folder), find_shape(shape), "BF16", "BF16")
        yield {role: str(path) for role, path in files.items()}


def _check_files(files: Mapping[str, str]) -> None:
    # An adapter's weights are those of its reference, so its file is none of a whole model.
    from ...llama import is_adapter

    if set(files) != set(_ROLES) or is_adapter(Path(files["tuned"])):
        raise UsageError("bench peers compares whole base, tuned and reference models, one each")


def _jobs(
    known: Mapping[str, Any], arguments: Mapping[str, Any], bf16: Mapping[str, str]
) -> dict[str, Job]:
    """What is compared with eftlocal: kind -> loop and its arguments."""
    sizes = {name: known[name] for name in ("n_ctx", "n_vocab")}
    threads, files = arguments["threads"], known["files"]
    trio = {"n_vocab": known["n_vocab"], "threads": threads}
    exact = {**trio, "files": bf16 or files, "dtype": "bfloat16"}
    one = {"files": files, "n_ctx": known["n_ctx"], "threads": threads}
    jobs: dict[str, Job] = {}
    if bf16:
        jobs[EFTLOCAL_BF16] = "eftlocal", {"random": True, "arguments": {**arguments, **bf16}}
    return jobs | {
        TRANSFORMERS_BF16: ("transformers", exact),
        TRANSFORMERS_F32: ("transformers", {**trio, "files": files, "dtype": "float32"}),
        LLAMA_OBJECTS: ("llama objects", {**sizes, "files": files, "threads": threads}),
        BASE_ALONE: ("base alone", one),
    }


def _check_memory(needed: float) -> None:
    """A system that runs out of memory may end any process, so that is not tried."""
    free = _free_bytes()
    if free is not None and needed > free:
        gib = 2**30
        raise BackendError(f"needs {needed / gib:.1f} GiB of memory, {free / gib:.1f} are free")


def _free_bytes() -> int | None:
    """Memory that new processes can have; None where the system does not say."""
    found = ram()
    return None if found is None else found.free


def _measure(
    workers: Mapping[str, Worker], known: Mapping[str, Any], effort: Effort
) -> dict[str, Peer]:
    """All kinds in turns; eftlocal's process runs with and without drafting."""
    prompt, last = known["prompt"], dict[str, Decoded]()
    room: int = known["n_ctx"] - len(prompt)
    few = min(effort.few, room)
    for _ in range(2):
        step = workers[EFTLOCAL].decode(prompt, few).seconds / few
    n_tokens = min(effort.tokens(step), room)

    def seconds(kind: str, worker: Worker, **options: Any) -> float:
        last[kind] = worker.decode(prompt, n_tokens, **options)
        return last[kind].seconds / n_tokens

    kinds = {EFTLOCAL: partial(seconds, EFTLOCAL, workers[EFTLOCAL])}
    kinds[EFTLOCAL_AUTO] = partial(seconds, EFTLOCAL_AUTO, workers[EFTLOCAL], draft="auto")
    kinds |= {kind: partial(seconds, kind, worker) for kind, worker in workers.items()}
    seen = interleaved(kinds, effort.rounds)
    return {kind: _peer(kind, seen, last) for kind in seen}


def _peer(kind: str, seen: Mapping[str, tuple[float, ...]], last: Mapping[str, Decoded]) -> Peer:
    """The numbers of one kind from seconds per token by kind, and from the last runs."""

    def share(own: str) -> float | None:
        above = mib(last[own].resident_bytes) if own in last else None
        below = mib(last[kind].resident_bytes)
        return above / below if above and below else None

    def mib(n_bytes: int | None) -> float | None:
        return None if n_bytes is None else n_bytes / 2**20

    has_bf16 = EFTLOCAL_BF16 in seen
    return Peer(
        kind=kind,
        tokens_per_second=1 / statistics.median(seen[kind]),
        eftlocal_times_faster=ratio(seen[kind], seen[EFTLOCAL]),
        eftlocal_bf16_times_faster=ratio(seen[kind], seen[EFTLOCAL_BF16]) if has_bf16 else None,
        resident_mib=mib(last[kind].resident_bytes),
        peak_mib=mib(last[kind].peak_bytes),
        eftlocal_memory_share=share(EFTLOCAL),
        eftlocal_bf16_memory_share=share(EFTLOCAL_BF16),
    )


_COLUMNS = (
    Column("kind", "kind"),
    Column("tokens_per_second", "tokens/s", 1),
    Column("eftlocal_times_faster", "eftlocal times faster", 2),
    Column("eftlocal_bf16_times_faster", "BF16 times faster", 2),
    Column("resident_mib", "resident (MiB)"),
    Column("peak_mib", "peak (MiB)"),
    Column("eftlocal_memory_share", "eftlocal's share", 2),
    Column("eftlocal_bf16_memory_share", "BF16 share", 2),
)
"""Their keys are the fields of `Peer`."""


def report(comparison: Comparison) -> Report:
    """The comparison as a report with one table in the section "peers"."""
    peers = comparison.peers.values()
    rows = tuple(tuple(getattr(peer, column.key) for column in _COLUMNS) for peer in peers)
    notes = (
        "Greedy, alpha 1, on the CPU, measured in turns, each in a process of its own "
        "(eftlocal's runs with and without drafting).",
        "eftlocal times faster: its rate without drafting over the row's. Share: its resident "
        "memory over the row's. BF16: the same of eftlocal with BF16 weights.",
        *(f"Left out: {kind}: {why}" for kind, why in comparison.left_out.items()),
    )
    bars = Bars("Decoding", "tokens/s", tuple((p.kind, p.tokens_per_second) for p in peers))
    table = Table("eftlocal and others", _COLUMNS, rows, notes, bars)
    return Report(comparison.facts, {"peers": (table,)})
