"""Finished texts scored again by llama-cpp-python's own `Llama`, and what may differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llama_cpp import Llama

import eftlocal
from eftlocal.distributions import Array64
from eftlocal.sampling import Noise, sample

from .conftest import N_VOCAB, Trio
from .gguf_models import END

PROMPT = "The quick brown fox jumps over the lazy dog, and then"
NO_END = {END: -100.0}


def load(trio: Trio, **options: object) -> eftlocal.FusedModel:
    """The trio on one thread."""
    files = {"base": trio.base, "tuned": trio.tuned, "reference": trio.reference}
    return eftlocal.load(**files, **{"threads": 1, **options})  # type: ignore[arg-type]


Steps = Sequence[Sequence[int]]


def rescore(trio: Trio, steps: Steps, alpha: float, exact: bool = False) -> Array64:
    """(T, V) fused log-probs in float64 after each token, from three `Llama` objects.

    Args:
        trio: the files.
        steps: the tokens, in the portions in which they are evaluated.
        alpha: of the fusion.
        exact: without the rounding of flash attention and a float16 cache.
    """
    kernels = {"type_k": 0, "type_v": 0} if exact else {"flash_attn": True}
    rows = []
    for path in trio:
        llama = Llama(
            str(path),
            n_ctx=512,
            logits_all=True,
            n_threads=1,
            n_threads_batch=1,
            verbose=False,
            **kernels,
        )
        for tokens in steps:
            llama.eval(list(tokens))
        rows.append(np.array(llama.scores[: llama.n_tokens, :N_VOCAB], np.float64))
        llama.close()
    fused = rows[0] + alpha * (rows[1] - rows[2])
    top = fused.max(axis=-1, keepdims=True)
    logprobs: Array64 = fused - top - np.log(np.exp(fused - top).sum(axis=-1, keepdims=True))
    return logprobs


def expected_logprobs(logprobs: Array64, done: eftlocal.Completion) -> Array64:
    """(T,) of the completion's tokens, from rows of prompt and completion."""
    rows: Array64 = logprobs[len(done.prompt_tokens) - 1 : -1]
    picked: Array64 = rows[np.arange(len(done.tokens)), list(done.tokens)]
    return picked


def is_near_tie(
    trio: Trio, tokens: Sequence[int], pair: tuple[int, int], temperature: float, noise: Noise
) -> bool:
    """Whether the race for the token after `tokens` between two is within rounding."""
    a, b = pair
    row = rescore(trio, [tokens], 1.0)[-1]
    if temperature == 0:
        return bool(abs(row[a] - row[b]) < 0.02)
    options = eftlocal.GenerationOptions(temperature=temperature)
    moved = row.astype(np.float32)
    winners = set()
    for shift in np.linspace(-0.02, 0.02, 9):
        moved[a] = row[a] + shift
        winners.add(sample(moved, options, noise))
    return {a, b} <= winners


def assert_same_but_for_ties(
    trio: Trio,
    done: eftlocal.Completion,
    plain: eftlocal.Completion,
    temperature: float,
    seed: int = 0,
) -> None:
    """Two completions of one prompt are equal, or first differ at a near-tie."""
    pairs = enumerate(zip(plain.tokens, done.tokens, strict=True))
    place = next((i for i, (a, b) in pairs if a != b), None)
    if place is not None:
        before = [*plain.prompt_tokens, *plain.tokens[:place]]
        pair = plain.tokens[place], done.tokens[place]
        assert is_near_tie(trio, before, pair, temperature, Noise(seed, 0, place))
