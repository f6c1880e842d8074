"""The composition root: a model entry or files, and options -> a `FusedModel`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from . import hub
from .engine import Engine
from .ensemble import Ensemble, Roles
from .errors import UsageError, VocabularyMismatch
from .llama import ContextSettings, LlamaContext, Vocabulary, Weights, WeightsSettings
from .model import FusedModel, Parts
from .options import MAX_DRAFT, GenerationOptions, RuntimeOptions
from .registry import DEFAULT_ENTRY, Entry, Expert, Source, load_registry
from .threads import usable_cores

Progress = Callable[[float], None]

_MOST_DEFAULT_CTX = 8192


def load(
    entry: str | None = None,
    *,
    base: str | Path | None = None,
    tuned: str | Path | None = None,
    reference: str | Path | None = None,
    models: str | Path | None = None,
    progress: Progress | None = None,
    verbose: bool = False,
    **options: Any,
) -> FusedModel:
    """Load a model entry by name, or three GGUF files, side by side.

    Args:
        entry: a name of models.toml; "atlas" where no files are given either.
        base: file of the model whose pre-training is kept.
        tuned: file of the fine-tuned model.
        reference: file of the model it was tuned from.
        models: a models.toml of your own, beside the shipped entries.
        progress: called with 0 to 1 over all files; may raise to abort.
        verbose: print llama.cpp's own log to stderr.
        **options: fields of `RuntimeOptions`, and of `GenerationOptions` as defaults.

    Raises:
        UsageError: for options that are not allowed, or files and an entry together.
        RegistryError: for an unknown entry or an invalid models.toml.
        ModelFileError: for a file that is missing or cannot be loaded.
        VocabularyMismatch: where the models' token ids do not mean the same.
    """
    started = time.perf_counter()
    if verbose:
        _show_log()
    chosen = _choose(entry, {"base": base, "tuned": tuned, "reference": reference}, models)
    runtime, generation = _options(chosen, options)
    roles = _role_paths(chosen)
    weights = _load_weights(roles, runtime, progress)
    try:
        n_vocab = check_vocabularies([weights[path].vocabulary for path in roles.values()])
        ensemble, styles = _make_ensemble(chosen, roles, weights, runtime, n_vocab)
    except BaseException:
        for item in weights.values():
            item.close()
        raise
    eog = frozenset[int]().union(*(item.vocabulary.eog for item in weights.values()))
    parts = Parts(
        name=chosen.name,
        engine=Engine(ensemble, eog),
        weights=tuple(weights.values()),
        files={role: str(path) for role, path in roles.items()},
        styles=styles,
        tuned=weights[roles["tuned"]],
        expert_weights=(1.0,),
        load_seconds=time.perf_counter() - started,
    )
    return FusedModel(parts, runtime, generation)


def _show_log() -> None:
    logger = logging.getLogger("eftlocal")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _choose(
    name: str | None, files: Mapping[str, str | Path | None], models: str | Path | None
) -> Entry:
    """The entry of that name, or one made of the given files."""
    given = {role: Path(file).expanduser() for role, file in files.items() if file is not None}
    if not given:
        return load_registry(Path(models) if models else None).find(name or DEFAULT_ENTRY)
    if name is not None:
        raise UsageError("give either a model entry or files (base, tuned, reference), not both")
    missing = [role for role in files if role not in given]
    if missing:
        raise UsageError(f"{' and '.join(missing)} missing: base, tuned and reference go together")
    expert = Expert("tuned", Source(path=given["tuned"]), Source(path=given["reference"]))
    return Entry(given["base"].name, base=Source(path=given["base"]), experts=(expert,))


def _options(entry: Entry, given: Mapping[str, Any]) -> tuple[RuntimeOptions, GenerationOptions]:
    """Defaults < entry < given; every option belongs to one of the two kinds."""
    runtime_names = {item.name for item in fields(RuntimeOptions)}
    generation_names = {item.name for item in fields(GenerationOptions)}
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


def _role_paths(entry: Entry) -> dict[str, Path]:
    """Role -> file; symbolic links are followed, so that one file has one path."""
    if len(entry.experts) != 1:
        raise UsageError(f"{entry.name} has {len(entry.experts)} experts; one is supported so far")
    expert = entry.experts[0]
    sources = {"base": entry.base, "tuned": expert.tuned, "reference": expert.reference}
    return {role: _locate(source) for role, source in sources.items()}


def _locate(source: Source) -> Path:
    if source.path is not None:
        return source.path.resolve() if source.path.exists() else source.path
    return hub.resolve(source.hf or "", source.file or "")


def _load_weights(
    roles: Mapping[str, Path], runtime: RuntimeOptions, progress: Progress | None
) -> dict[Path, Weights]:
    """Load every file once; the progress of all files is one number from 0 to 1."""
    sizes = {path: path.stat().st_size if path.is_file() else 0 for path in roles.values()}
    total = sum(sizes.values()) or 1
    loaded: dict[Path, Weights] = {}
    done = 0
    try:
        for role, path in roles.items():
            if path in loaded:
                continue
            layers = getattr(runtime, f"{role}_gpu_layers")
            settings = WeightsSettings(
                runtime.gpu_layers if layers is None else layers, runtime.mmap, runtime.mlock
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


def check_vocabularies(vocabularies: list[Vocabulary]) -> int:
    """The common number of ids, where every id means the same in all vocabularies.

    Raises:
        VocabularyMismatch: naming the first token that differs, and the files.
    """
    first = vocabularies[0]
    tokens = first.raw_tokens()
    for other in {id(v): v for v in vocabularies[1:] if v is not first}.values():
        if other.type != first.type:
            raise VocabularyMismatch(
                f"{first.path} and {other.path} have different kinds of tokenizers; "
                "base, tuned and reference must come from one family"
            )
        others = other.raw_tokens()
        if others == tokens:
            continue
        pairs = enumerate(zip(tokens, others, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), min(len(tokens), len(others)))
        mine, theirs = _token_at(tokens, place), _token_at(others, place)
        raise VocabularyMismatch(
            f"token {place} is {mine} in {first.path} but {theirs} in {other.path}; "
            "base, tuned and reference must share one vocabulary"
        )
    return first.n_tokens


def _token_at(tokens: list[bytes], place: int) -> str:
    return repr(tokens[place].decode("utf-8", "replace")) if place < len(tokens) else "missing"


@dataclass(frozen=True, slots=True)
class _Key:
    """Contexts with equal keys hold the same tokens in the same weights: one is enough."""

    path: Path
    style: str


def _make_ensemble(
    entry: Entry,
    roles: Mapping[str, Path],
    weights: Mapping[Path, Weights],
    runtime: RuntimeOptions,
    n_vocab: int,
) -> tuple[Ensemble, tuple[str, ...]]:
    trained = min(item.n_ctx_train for item in weights.values())
    settings = ContextSettings(
        n_ctx=runtime.ctx or min(trained, _MOST_DEFAULT_CTX),
        n_rows=MAX_DRAFT * runtime.parallel,
        n_sequences=runtime.parallel,
        threads=runtime.threads or usable_cores(),
        batch=runtime.batch,
        flash_attention=runtime.flash_attention,
        cache_type=runtime.cache_type,
    )
    plain = "plain" if entry.prompt == "tuned-only" else "template"
    keys = {
        role: _Key(path, "template" if role == "tuned" else plain) for role, path in roles.items()
    }
    unique = list(dict.fromkeys(keys.values()))
    contexts = [LlamaContext(weights[key.path], settings) for key in unique]
    place = {role: unique.index(key) for role, key in keys.items()}
    cheapest = min(("tuned", "base"), key=lambda role: weights[roles[role]].n_bytes)
    ensemble = Ensemble(
        contexts,
        Roles(place["base"], ((place["tuned"], place["reference"]),), drafter=place[cheapest]),
        n_vocab,
    )
    return ensemble, tuple(key.style for key in unique)
