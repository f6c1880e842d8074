"""One KV cache of one model."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..context import Block, Rows
from ..errors import BackendError, ContextFull
from .adapter import Adapter
from .library import collected_errors, lib, reason, set_fields
from .weights import Weights

_CACHE_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30,
}  # fmt: skip
_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
_DECODE_ERRORS = {
    1: "no free cells in the KV cache",
    2: "the computation was aborted",
    -1: "the batch was refused as invalid",
    -2: "memory could not be allocated (a smaller ctx or fewer GPU layers may help)",
    -3: "the computation failed",
}


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """Sizes of one context; see `RuntimeOptions`.

    Attributes:
        n_ctx: tokens of one sequence.
        n_rows: rows of logits that one decode may ask for.
        n_sequences: sequences, each with room for n_ctx tokens.
        kv_unified: whether they share one pool of cells.
    """

    n_ctx: int
    n_rows: int
    n_sequences: int = 1
    threads: int = 1
    batch: int = 256
    flash_attention: str = "auto"
    cache_type: str = "f16"
    kv_unified: bool = False


class LlamaContext:
    """One KV cache over some weights; implements `context.Context`.

    Attributes:
        handle: llama.cpp's context, for calls that this class does not have.
        threads: that it computes with.

    Args:
        weights: of the model.
        settings: sizes.
        adapter: made for these weights; changes what the model says in this context only.
        scale: multiplier of what the adapter adds.

    Raises:
        BackendError: where llama.cpp cannot create it, mostly for want of memory.
    """

    def __init__(
        self,
        weights: Weights,
        settings: ContextSettings,
        adapter: Adapter | None = None,
        scale: float = 1.0,
    ) -> None:
        self.weights = weights
        self.adapter = adapter
        self.n_vocab = weights.vocabulary.n_vocab
        self.n_sequences = settings.n_sequences
        self.n_batch = max(settings.batch, settings.n_rows)
        self.can_rewind = weights.can_rewind
        params = lib.llama_context_default_params()
        cache_type = _CACHE_TYPES[settings.cache_type]
        n_ctx = -(-settings.n_ctx // 256) * 256  # llama.cpp would round up as well
        set_fields(
            params,
            n_ctx=n_ctx * settings.n_sequences,
            n_batch=self.n_batch,
            n_ubatch=self.n_batch,
            n_seq_max=settings.n_sequences,
            n_outputs_max=max(settings.n_rows, settings.n_sequences),
            n_outputs_max_per_seq=0,
            n_threads=settings.threads,
            n_threads_batch=settings.threads,
            flash_attn_type=_FLASH_ATTENTION[settings.flash_attention],
            type_k=cache_type,
            type_v=cache_type,
            swa_full=True,
            kv_unified=settings.kv_unified,
            no_perf=True,
        )
        with collected_errors() as errors:
            self.handle = lib.llama_init_from_model(weights.model, params)
        if not self.handle:
            raise BackendError(
                f"{weights.path}: no context of {settings.n_ctx} x {settings.n_sequences} tokens; "
                f"{reason('a smaller ctx needs less memory', errors)}"
            )
        self.n_ctx = min(settings.n_ctx, int(lib.llama_n_ctx_seq(self.handle)))
        self.n_rows = max(settings.n_rows, settings.n_sequences)
        self.threads = settings.threads
        self._memory = lib.llama_get_memory(self.handle)
        self._tokens: list[list[int]] = [[] for _ in range(settings.n_sequences)]
        self._dirty = False
        self._n_pending = 0
        # An array over llama.cpp's rows, and where they are; made anew only where they move.
        self._rows = np.empty((0, self.n_vocab), np.float32)
        self._place = (0, 0)
        self._make_batch()
        weights.contexts.add(self)
        self._finalizer = weakref.finalize(self, lib.llama_free, self.handle)
        if adapter is not None:
            self._use(adapter, scale)

    def _use(self, adapter: Adapter, scale: float) -> None:
        """Let the adapter take part in every decode to come."""
        handles = (lib.llama_adapter_lora_p_ctypes * 1)(adapter.handle)
        scales = (ctypes.c_float * 1)(scale)
        if lib.llama_set_adapters_lora(self.handle, handles, 1, scales) != 0:
            self.close()
            raise BackendError(f"{adapter.path}: llama.cpp cannot use this adapter in a context")

    def _make_batch(self) -> None:
        """One llama_batch over arrays of our own, allocated once."""
        n = self.n_batch
        # Filling ctypes arrays with lists is quicker than filling NumPy's; mypy knows no lists.
        self._token: Any = (ctypes.c_int32 * n)()
        self._position: Any = (ctypes.c_int32 * n)()
        self._sequence: Any = (ctypes.c_int32 * n)()
        self._wanted: Any = (ctypes.c_int8 * n)()
        self._n_sequence_ids = (ctypes.c_int32 * n)(*(1,) * n)
        first = ctypes.addressof(self._sequence)
        self._sequence_pointers = (ctypes.c_void_p * n)(*range(first, first + 4 * n, 4))
        batch = lib.llama_batch()
        arrays: dict[str, Any] = {
            "token": self._token,
            "pos": self._position,
            "n_seq_id": self._n_sequence_ids,
            "seq_id": self._sequence_pointers,
            "logits": self._wanted,
        }
        types: dict[str, Any] = {entry[0]: entry[1] for entry in batch._fields_}
        for name, array in arrays.items():
            set_fields(batch, **{name: ctypes.cast(array, types[name])})
        self._batch = batch

    def tokens(self, sequence: int) -> list[int]:
        """Exactly the tokens that the cache holds for a sequence; not a copy, do not change it."""
        return self._tokens[sequence]

    def decode(self, blocks: Sequence[Block]) -> Rows:
        """Append each block to its sequence and wait; see `context.Context.decode`."""
        self.submit(blocks)
        return self.rows()

    def submit(self, blocks: Sequence[Block]) -> None:
        """Append each block to its sequence; see `context.Context.submit`."""
        if self._dirty:
            self._restore()
        n = n_rows = 0
        for sequence, tokens, rows in blocks:
            n_rows += rows
            held, end = len(self._tokens[sequence]), n + len(tokens)
            if held + len(tokens) > self.n_ctx:
                raise ContextFull(f"the context is full: {self.n_ctx} tokens")
            if end > self.n_batch:
                raise BackendError(f"a batch of {end} tokens exceeds n_batch = {self.n_batch}")
            self._token[n:end] = tokens
            self._position[n:end] = range(held, held + len(tokens))
            self._sequence[n:end] = [sequence] * len(tokens)
            self._wanted[n:end] = [0] * (len(tokens) - rows) + [1] * rows
            n = end
        if n == 0 or n_rows > self.n_rows:
            raise BackendError(f"{n_rows} rows of {n} tokens; a context has {self.n_rows} rows")
        self._batch.n_tokens = n
        self._dirty = True
        self._n_pending = 0
        status = lib.llama_decode(self.handle, self._batch)
        if status != 0:
            reason = _DECODE_ERRORS.get(status, f"llama_decode returned {status}")
            raise BackendError(f"{self.weights.path}: {reason}")
        for sequence, tokens, _ in blocks:
            self._tokens[sequence].extend(tokens)
        self._dirty = False
        self._n_pending = n_rows

    def rows(self) -> Rows:
        """The rows of the last `submit`; see `context.Context.rows`."""
        if self._n_pending == 0:
            lib.llama_synchronize(self.handle)
            return np.empty((0, self.n_vocab), np.float32)
        # llama.cpp may move the buffer in any decode, so the pointer is fetched every time.
        pointer = lib.llama_get_logits(self.handle)
        if not pointer:
            raise BackendError(f"{self.weights.path}: llama.cpp returned no logits")
        place = ctypes.addressof(pointer.contents), self._n_pending
        if place != self._place:
            self._place = place
            self._rows = np.ctypeslib.as_array(pointer, (self._n_pending, self.n_vocab))
        return self._rows

    def _restore(self) -> None:
        """After a failed or interrupted decode: make the cache hold what `tokens` says again."""
        for sequence, tokens in enumerate(self._tokens):
            if not lib.llama_memory_seq_rm(self._memory, sequence, len(tokens), -1):
                lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
                tokens.clear()
        self._dirty = False

    def rewind(self, sequence: int, n_tokens: int) -> None:
        """Drop the last `n_tokens` of a sequence; see `context.Context.rewind`."""
        if self._dirty:
            self._restore()
        tokens = self._tokens[sequence]
        n_tokens = min(n_tokens, len(tokens))
        if n_tokens == 0:
            return
        keep = len(tokens) - n_tokens
        if not lib.llama_memory_seq_rm(self._memory, sequence, keep if keep else -1, -1):
            raise BackendError(f"{self.weights.path}: this model cannot rewind {n_tokens} tokens")
        del tokens[keep:]

    def set_threads(self, n_threads: int) -> None:
        """See `context.Context.set_threads`."""
        if n_threads != self.threads:
            self.threads = n_threads
            lib.llama_set_n_threads(self.handle, n_threads, n_threads)

    def close(self) -> None:
        """Free the cache and its buffers; rows that were returned are no longer valid."""
        self._finalizer()
