"""Rows of logits of one file after given tokens."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import load
from ...context import Block, Context
from ...distributions import Array
from ...errors import EftlocalError

Passage = tuple[Sequence[int], Sequence[int]]
"""The ids of a prompt, at least one, and of what follows."""


def empty_rows(folder: Path, n_rows: int, n_vocab: int) -> Array:
    """An array (n_rows, n_vocab) on the disk, in a file that is gone with the array.

    Raises:
        EftlocalError: where the disk has no room for it.
    """
    size = max(1, n_rows * n_vocab * 4)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # A write to a mapped page that has no place on the disk would end the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.float32, "w+", shape=(n_rows, n_vocab))
    except OSError as error:
        told = f"{size / 1e9:.1f} GB for rows of logits: {error.strerror or error}"
        raise EftlocalError(f"{folder} has no room of {told}; use fewer rows") from None


def score(path: Path, runtime: Mapping[str, Any], passages: Sequence[Passage], out: Array) -> None:
    """Compute the logits that each token after a prompt was chosen from.

    What a passage gets does not depend on other passages.

    Args:
        path: a whole model.
        runtime: changes to `RuntimeOptions`.
        passages: one after another.
        out: (R, V) is filled, one row per token that follows a prompt; V may be less than the
            vocabulary of the model, whose last ids are padding then.

    Raises:
        EftlocalError: where the model cannot be loaded, or a passage is longer than its context.
    """
    with load(base=path, tuned=path, reference=path, **runtime) as model:
        (context,) = model.engine.ensemble.contexts
        first = 0
        for prompt, tokens in passages:
            own = out[first : first + len(tokens)]
            _score_one(context, prompt, tokens, own)
            first += len(tokens)


def _score_one(context: Context, prompt: Sequence[int], tokens: Sequence[int], out: Array) -> None:
    context.rewind(0, len(context.tokens(0)))
    before, after = prompt[:-1], [prompt[-1], *tokens[:-1]]
    for i in range(0, len(before), context.n_batch):
        context.decode([Block(0, before[i : i + context.n_batch], 0)])
    most = min(context.n_rows, context.n_batch)
    for i in range(0, len(out), most):
        chunk = after[i : min(i + most, len(out))]
        out[i : i + len(chunk)] = context.decode([Block(0, chunk, len(chunk))])[:, : out.shape[1]]
