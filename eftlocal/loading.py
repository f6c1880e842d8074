"""The composition root: a model entry or files, and options -> a `FusedModel`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from . import hub
from .engine import Engine
from .ensemble import Ensemble, Roles
from .errors import ModelFileError, RegistryError, UsageError
from .experts import resolve_weights
from .gguf import real_path
from .llama import (
    Adapter,
    ContextSettings,
    LlamaContext,
    Weights,
    WeightsSettings,
    check_vocabularies,
    is_adapter,
)
from .model import FusedModel, Parts
from .options import MAX_DRAFT, GenerationOptions, RuntimeOptions, option_name
from .placement import gpu_layers
from .registry import DEFAULT_ENTRY, Entry, Source, load_registry
from .threads import IdleCores

Progress = Callable[[float], None]
File = str | Path
Files = File | Sequence[File]

_MOST_DEFAULT_CTX = 8192


def load(
    entry: str | None = None,
    *,
    base: File | None = None,
    tuned: Files | None = None,
    reference: Files | None = None,
    models: File | None = None,
    progress: Progress | None = None,
    verbose: bool = False,
    **options: Any,
) -> FusedModel:
    """Load a model entry by name, or GGUF files, side by side.

    Every file is loaded once, whatever parts it plays.

    Args:
        entry: a name of models.toml; "atlas" where no files are given either.
        base: file of the model whose pre-training is kept; like all files a path, or
            hf:user/repository:QUANT, or hf:user/repository/file.gguf.
        tuned: file of the fine-tuned model, or of a LoRA adapter on the reference; a list of them
            for several experts, named as `experts.expert_names` says.
        reference: file of the model it was tuned from; a list with one per tuned model, or one
            for all.
        models: a models.toml of your own, beside the shipped entries.
        progress: called with 0 to 1 over all files; may raise to abort.
        verbose: print llama.cpp's own log to stderr.
        **options: fields of `RuntimeOptions`, and of `GenerationOptions` as defaults.

    Raises:
        UsageError: for options that are not allowed, or files and an entry together.
        RegistryError: for an unknown entry or an invalid models.toml.
        NotDownloaded: for a file of the hub that is not in the cache yet.
        ModelFileError: for a file that is missing or cannot be loaded.
        VocabularyMismatch: where the models' token ids do not mean the same.
    """
    started = time.perf_counter()
    if verbose:
        _show_log()
    chosen = _choose(entry, base, {"tuned": tuned, "reference": reference}, models)
    runtime, generation = _options(chosen, options)
    resolve_weights([expert.name for expert in chosen.experts], generation)
    plan = _make_plan(chosen, chosen.name if base is None else None)
    weights = _load_weights(plan, runtime, progress)
    try:
        parts = _put_together(chosen, plan, weights, runtime, started)
    except BaseException:
        for item in weights.values():
            item.close()
        raise
    return FusedModel(parts, runtime, generation)


def locate(
    entry: str | None = None,
    *,
    base: File | None = None,
    tuned: Files | None = None,
    reference: Files | None = None,
    models: File | None = None,
) -> tuple[Entry, Mapping[str, Path]]:
    """What `load` would take, without loading it: the entry, and each role's file.

    Raises:
        UsageError, RegistryError, NotDownloaded, ModelFileError: as `load` does.
    """
    chosen = _choose(entry, base, {"tuned": tuned, "reference": reference}, models)
    return chosen, _make_plan(chosen, chosen.name if base is None else None).files


def _show_log() -> None:
    logger = logging.getLogger("eftlocal")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _choose(
    name: str | None, base: File | None, pair: Mapping[str, Files | None], models: File | None
) -> Entry:
    """The entry of that name, or one made of the given files."""
    lists = {role: _listed(files) for role, files in pair.items()}
    given = {"base": _listed(base), **lists}
    if not any(given.values()):
        return load_registry(Path(models) if models else None).find(name or DEFAULT_ENTRY)
    if name is not None:
        raise UsageError("give either a model entry or files (base, tuned, reference), not both")
    missing = [role for role, files in given.items() if not files]
    if missing:
        raise UsageError(f"{' and '.join(missing)} missing: base, tuned and reference go together")
    return Entry.from_files(given["base"][0], given["tuned"], given["reference"])


def _listed(files: Files | None) -> list[File]:
    if files is None:
        return []
    return [files] if isinstance(files, str | Path) else list(files)


def _options(entry: Entry, given: Mapping[str, Any]) -> tuple[RuntimeOptions, GenerationOptions]:
    """Defaults < entry < given; every option belongs to one of the two kinds."""
    runtime_names = {item.name for item in fields(RuntimeOptions)}
    generation_names = {option_name(item.name) for item in fields(GenerationOptions)}
    given = {option_name(name): value for name, value in given.items()}
    for name in given:
        if name not in runtime_names | generation_names:
            known = ", ".join(sorted(runtime_names | generation_names))
            raise UsageError(f"unknown option {name!r}; known options: {known}")
    runtime = RuntimeOptions().updated(entry.runtime)
    generation = GenerationOptions().updated(entry.options)
    return (
        runtime.updated({k: v for k, v in given.items() if k in runtime_names}),
        generation.updated({k: v for k, v in given.items() if k in generation_names}),
    )


@dataclass(frozen=True, slots=True)
class _Key:
    """Contexts with equal keys hold the same tokens in the same model: one is enough.

    Attributes:
        path: the file of the weights.
        style: of the prompt, see `Entry.style`.
        adapter, scale: what is added to the weights.
    """

    path: Path
    style: str | Path
    adapter: Path | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which context each role needs, as (tuned, reference) per expert, and each role's file."""

    base: _Key
    experts: tuple[tuple[_Key, _Key], ...]
    files: Mapping[str, Path]

    @property
    def keys(self) -> tuple[_Key, ...]:
        """Every context once, in the order of the roles."""
        pairs = (key for pair in self.experts for key in pair)
        return tuple(dict.fromkeys((self.base, *pairs)))

    @property
    def weights(self) -> dict[Path, str]:
        """Every file of weights once, and the first role that it plays."""
        roles = {self.base.path: "base"}
        for tuned, reference in self.experts:
            if tuned.adapter is None:
                roles.setdefault(tuned.path, "tuned")
            roles.setdefault(reference.path, "reference")
        return roles


def _make_plan(entry: Entry, name: str | None) -> _Plan:
    """Find the files of an entry; `name` is what `eftlocal pull` knows it by, if it does."""
    base = _locate_model(entry.base, "base", name)
    files = {"base": base}
    pairs = []
    for expert in entry.experts:
        prefix = f"{expert.name} " if len(entry.experts) > 1 else ""
        tuned = _locate(expert.tuned, name)
        reference = _locate_model(expert.reference, "reference", name)
        files |= {f"{prefix}tuned": tuned, f"{prefix}reference": reference}
        scale = expert.tuned.scale
        if scale is None and not is_adapter(tuned):
            key = _Key(tuned, entry.style("tuned"))
        else:
            key = _Key(reference, entry.style("tuned"), tuned, 1.0 if scale is None else scale)
        pairs.append((key, _Key(reference, entry.style("reference"))))
    for style in entry.templates.values():
        if isinstance(style, Path) and not style.is_file():
            raise RegistryError(f"{entry.name}: there is no chat template {style}")
    return _Plan(_Key(base, entry.style("base")), tuple(pairs), files)


def _locate(source: Source, name: str | None) -> Path:
    """The file; symbolic links are followed, so that one file has one path."""
    if source.path is not None:
        return real_path(source.path) if source.path.exists() else source.path
    if source.file is None:
        source = hub.find_file(source)
    return hub.resolve(source.hf or "", source.file or "", source.revision, name)


def _locate_model(source: Source, role: str, name: str | None) -> Path:
    path = _locate(source, name)
    if is_adapter(path):
        raise ModelFileError(f"{path}: an adapter, not a whole model; only tuned can be one")
    return path


def _load_weights(
    plan: _Plan, runtime: RuntimeOptions, progress: Progress | None
) -> dict[Path, Weights]:
    """Load every file once; the progress of all files is one number from 0 to 1."""
    roles = plan.weights
    layers = gpu_layers(plan.files, roles, runtime)
    sizes = {path: path.stat().st_size if path.is_file() else 0 for path in roles}
    total = sum(sizes.values()) or 1
    loaded: dict[Path, Weights] = {}
    done = 0
    try:
        for path, role in roles.items():
            settings = WeightsSettings(
                layers[path],
                runtime.mmap,
                runtime.mlock,
                runtime.rpc_servers if role == "base" else (),
            )
            loaded[path] = Weights(path, settings, _part(progress, done, sizes[path], total))
            done += sizes[path]
    except BaseException:
        for weights in loaded.values():
            weights.close()
        raise
    return loaded


def _part(progress: Progress | None, done: int, size: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda value: progress((done + value * size) / total)


def _put_together(
    entry: Entry,
    plan: _Plan,
    weights: Mapping[Path, Weights],
    runtime: RuntimeOptions,
    started: float,
) -> Parts:
    """Contexts, an engine over them, and what else a `FusedModel` needs to know."""
    engine = _make_engine(entry, plan, weights, runtime)
    return Parts(
        name=entry.name,
        engine=engine,
        weights=tuple(weights.values()),
        files={role: str(path) for role, path in plan.files.items()},
        styles=tuple(key.style for key in plan.keys),
        tuned=weights[plan.experts[0][0].path],
        experts=tuple(expert.name for expert in entry.experts),
        load_seconds=time.perf_counter() - started,
        think=entry.think,
    )


def _make_engine(
    entry: Entry, plan: _Plan, weights: Mapping[Path, Weights], runtime: RuntimeOptions
) -> Engine:
    """The engine over one context per key of the plan."""
    vocabularies = [item.vocabulary for item in weights.values()]
    n_vocab = check_vocabularies(vocabularies)
    cores = None if runtime.threads else IdleCores()
    threads = cores.threads if cores else runtime.threads
    contexts = _make_contexts(plan.keys, weights, runtime, threads)
    place = {key: i for i, key in enumerate(plan.keys)}
    cheapest = [
        min((tuned, plan.base), key=lambda key: weights[key.path].n_bytes)
        for tuned, _ in plan.experts
    ]
    roles = Roles(
        place[plan.base],
        tuple((place[tuned], place[reference]) for tuned, reference in plan.experts),
        tuple(place[key] for key in cheapest),
    )
    eog = frozenset[int]().union(*(vocabulary.eog for vocabulary in vocabularies))
    neutral = frozenset[int]()
    if entry.neutral == "control":
        neutral = eog.union(*(vocabulary.control_tokens() for vocabulary in vocabularies))
    look = cores.look if cores else None
    return Engine(Ensemble(contexts, roles, n_vocab), eog, neutral, look)


def _make_contexts(
    keys: Sequence[_Key],
    weights: Mapping[Path, Weights],
    runtime: RuntimeOptions,
    threads: int,
) -> list[LlamaContext]:
    # All adapters before any context: llama.cpp sizes a context by the adapters of its weights.
    pairs = {(key.path, key.adapter) for key in keys if key.adapter is not None}
    adapters = {(path, file): Adapter(weights[path], file) for path, file in pairs if file}
    trained = min(item.n_ctx_train for item in weights.values())
    settings = ContextSettings(
        n_ctx=runtime.ctx or min(trained, _MOST_DEFAULT_CTX),
        n_rows=MAX_DRAFT * runtime.parallel,
        n_sequences=runtime.parallel,
        threads=threads,
        batch=runtime.batch,
        flash_attention=runtime.flash_attention,
        cache_type=runtime.cache_type,
        kv_unified=runtime.parallel > 1 and runtime.kv_unified != "off",
    )
    return [
        LlamaContext(
            weights[key.path],
            settings,
            adapters[key.path, key.adapter] if key.adapter else None,
            key.scale,
        )
        for key in keys
    ]
