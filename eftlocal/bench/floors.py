"""What llama.cpp takes by itself: bare decode calls on the contexts of a loaded model.

Only these calls are timed; no Python work lies between them but a loop.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import BackendError
from ..llama import LlamaContext
from ..llama.library import lib
from ..model import FusedModel
from ..options import MAX_DRAFT

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A completion to decode again.

    Attributes:
        prompts: one per context.
        tokens: the completion.
    """

    prompts: tuple[Tokens, ...]
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class BareContext:
    """A context's handle for direct calls.

    Attributes:
        role: the parts that the model plays.
        n_bytes: of its weights.
        handle: the llama_context.
    """

    role: str
    n_bytes: int
    handle: Any


def bare_contexts(model: FusedModel) -> tuple[BareContext, ...]:
    """The contexts of a loaded model, in the order of its ensemble."""
    found = []
    for i, context in enumerate(model.engine.ensemble.contexts):
        assert isinstance(context, LlamaContext)
        role = role_of(model, i)
        found.append(BareContext(role, context.weights.n_bytes, context.handle))
    return tuple(found)


def role_of(model: FusedModel, index: int) -> str:
    """What a context does, such as "base" or "math tuned"."""
    roles = model.engine.ensemble.roles
    parts = ["base"] if index == roles.base else []
    for name, (tuned, reference) in zip(model.experts, roles.experts, strict=True):
        prefix = f"{name} " if len(roles.experts) > 1 else ""
        parts += [f"{prefix}tuned"] * (index == tuned)
        if index == reference and "reference" not in parts:
            parts.append("reference")
    return ", ".join(parts)


@contextmanager
def empty_caches(model: FusedModel) -> Iterator[tuple[BareContext, ...]]:
    """Lend the contexts for direct calls: empty before and after, as the engine believes."""
    model.engine.ensemble.forget(0)
    contexts = bare_contexts(model)
    try:
        yield contexts
    finally:
        for context in contexts:
            _clear(context)


def _clear(context: BareContext) -> None:
    lib.llama_memory_seq_rm(lib.llama_get_memory(context.handle), 0, -1, -1)


@contextmanager
def _batch(tokens: Sequence[int], start: int, rows: bool) -> Iterator[Any]:
    """A batch of tokens at positions from `start`; `rows` asks for all their logits."""
    batch = lib.llama_batch_init(len(tokens), 0, 1)
    try:
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, start + i, int(rows)
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        yield batch
    finally:
        lib.llama_batch_free(batch)


def _decode(context: BareContext, batch: Any) -> None:
    status = lib.llama_decode(context.handle, batch)
    if status != 0:
        raise BackendError(f"llama_decode returned {status} for {context.role}")


def read_tokens(context: BareContext, tokens: Sequence[int], n_batch: int, start: int = 0) -> float:
    """Decode tokens in chunks without any logits: seconds."""
    seconds = 0.0
    for first in range(0, len(tokens), n_batch):
        with _batch(tokens[first : first + n_batch], start + first, rows=False) as batch:
            began = time.perf_counter()
            _decode(context, batch)
            lib.llama_synchronize(context.handle)
            seconds += time.perf_counter() - began
    return seconds


def replay_seconds(model: FusedModel, records: Sequence[Record]) -> float:
    """Seconds per token of decoding completions again, one token of every context in turn.

    Each context reads the tokens that plain fused decoding gave it, at the same depths; its logits
    are fetched. This is the floor of plain decoding.
    """
    seconds, n_steps = 0.0, 0
    for record in records:
        with empty_caches(model) as contexts:
            for context, prompt in zip(contexts, record.prompts, strict=True):
                read_tokens(context, prompt[:-1], model.runtime.batch)
            tokens = [[prompt[-1], *record.tokens[:-1]] for prompt in record.prompts]
            # The batches point into these arrays.
            arrays = [(lib.llama_token * len(own))(*own) for own in tokens]
            handles = [context.handle for context in contexts]
            rows = [
                [(handle, one_token(fed, i)) for handle, fed in zip(handles, arrays, strict=True)]
                for i in range(len(record.tokens))
            ]
            decode, logits = lib.llama_decode, lib.llama_get_logits
            failed = 0
            start = time.perf_counter()
            for row in rows:
                for handle, batch in row:
                    failed |= decode(handle, batch)
                    logits(handle)
            seconds += time.perf_counter() - start
            n_steps += len(rows)
            if failed:
                raise BackendError("llama_decode failed while a completion was decoded again")
    return seconds / n_steps


def one_token(array: Any, index: int) -> Any:
    """A batch of one token of an array, after what the cache holds."""
    pointer = ctypes.byref(array, index * ctypes.sizeof(lib.llama_token))
    return lib.llama_batch_get_one(ctypes.cast(pointer, ctypes.POINTER(lib.llama_token)), 1)


def block_seconds(context: BareContext, prompt: Sequence[int], n_tokens: int) -> float:
    """Seconds that a context takes for a batch of tokens after a prompt, with all their logits.

    The cache holds the prompt afterwards, or nothing where the model cannot rewind.
    """
    memory, n_held = lib.llama_get_memory(context.handle), len(prompt)
    if lib.llama_memory_seq_pos_max(memory, 0) != n_held - 1:
        _clear(context)
        read_tokens(context, prompt, MAX_DRAFT)
    with _batch([prompt[i % n_held] for i in range(n_tokens)], n_held, rows=True) as batch:
        start = time.perf_counter()
        _decode(context, batch)
        lib.llama_get_logits(context.handle)
        seconds = time.perf_counter() - start
    if not lib.llama_memory_seq_rm(memory, 0, n_held, -1):
        _clear(context)
    return seconds


def prefill_seconds(model: FusedModel, prompt: Sequence[int]) -> float:
    """Seconds in which all contexts together read a prompt, in the chunks that the engine uses."""
    with empty_caches(model) as contexts:
        return sum(read_tokens(context, prompt, model.runtime.batch) for context in contexts)
