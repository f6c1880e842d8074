"""Synthetic acceptance: real decodes whose likeliest tokens are chosen.

Random weights, or prompts that mean nothing, say little about how often drafts are accepted. Here
every decode, fusion and sample is done as always, but a `Steered` context makes some tokens of its
rows the likeliest, so that each draft is accepted with a chosen probability, independently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..context import Block, Context, Rows
from ..engine import Engine
from ..ensemble import Ensemble, Roles
from ..experts import resolve_weights
from ..generation import Request
from ..model import FusedModel
from ..stream import Completion, Prepared, Stream
from .subject import PLAIN

Ids = npt.NDArray[np.int64]

# How far (in nats) the proposed token lies above all others of its row, what is decided below it,
# and by how much the delta raises what is decided.
_ABOVE, _BELOW, _DELTA = 20.0, 8.0, 16.0


@dataclass(frozen=True, slots=True)
class Script:
    """What is decided and what is proposed after so many tokens; the same id where they agree.

    Attributes:
        decided, proposed: ids, by the number of tokens that the sequence holds.
    """

    decided: tuple[int, ...]
    proposed: tuple[int, ...]

    @classmethod
    def draw(cls, ids: Ids, acceptance: float, n: int, seed: int) -> Script:
        """Random ids for n places; each proposal is right with probability `acceptance`.

        What is decided does not depend on `acceptance`, and a higher one only makes more
        proposals right.

        Args:
            ids: two or more different ones.
            acceptance: in [0, 1].
            n: places.
            seed: of all that is random.
        """
        rng = np.random.default_rng(seed)
        decided = rng.integers(len(ids), size=n)
        others = (decided + rng.integers(1, len(ids), size=n)) % len(ids)
        proposed = np.where(rng.random(n) < acceptance, decided, others)
        return cls(tuple(ids[decided].tolist()), tuple(ids[proposed].tolist()))

    def rounds(self, start: int, n_tokens: int, n: int) -> int:
        """Rounds of up to n rows that decide so many tokens, where `start` tokens are held."""
        done = rounds = 0
        while done < n_tokens:
            most = min(n, n_tokens - done)
            taken = 1
            while taken < most and self._agree(start + done + taken - 1):
                taken += 1
            done += taken
            rounds += 1
        return rounds

    def _agree(self, place: int) -> bool:
        return self.decided[place] == self.proposed[place]


@dataclass(slots=True)
class Steering:
    """What all steered contexts of an ensemble have in common.

    Attributes:
        script: of the sequences to come.
        height: logit of the token that is proposed.
    """

    script: Script
    height: float


class Steered:
    """A context whose rows propose what a script says; implements `context.Context`.

    In the rows of base and tuned the proposal is the likeliest token and what will be decided the
    second; the reference has the proposal as high, so that only the second is raised by the delta
    and becomes the fused choice. So it does not matter which of base and tuned drafts, and the
    drafter is as sure of wrong proposals as of right ones.

    Args:
        context: does the decodes.
        steering: shared by all contexts of the ensemble; may be changed between two generations.
        is_reference: whether it is the reference of an expert.
    """

    def __init__(self, context: Context, steering: Steering, is_reference: bool) -> None:
        self._context = context
        self._steering = steering
        self._second = _BELOW + _DELTA if is_reference else _BELOW
        self._places: list[int] = []
        """How many tokens each row of the last `submit` has behind it."""
        self.n_vocab = context.n_vocab
        self.n_ctx = context.n_ctx
        self.n_sequences = context.n_sequences
        self.n_batch = context.n_batch
        self.n_rows = context.n_rows
        self.can_rewind = context.can_rewind

    def submit(self, blocks: Sequence[Block]) -> None:
        """See `context.Context.submit`."""
        places: list[int] = []
        for sequence, tokens, n_rows in blocks:
            end = len(self._context.tokens(sequence)) + len(tokens)
            places += range(end - n_rows + 1, end + 1)
        self._context.submit(blocks)
        self._places = places

    def rows(self) -> Rows:
        """See `context.Context.rows`; two logits of every row are changed in place."""
        rows = self._context.rows()
        script, height = self._steering.script, self._steering.height
        for row, place in zip(rows, self._places, strict=True):
            row[script.decided[place]] = height - self._second
            row[script.proposed[place]] = height
        return rows

    def decode(self, blocks: Sequence[Block]) -> Rows:
        """See `context.Context.decode`."""
        self.submit(blocks)
        return self.rows()

    def rewind(self, sequence: int, n_tokens: int) -> None:
        """See `context.Context.rewind`."""
        self._context.rewind(sequence, n_tokens)

    def set_threads(self, n_threads: int) -> None:
        """See `context.Context.set_threads`."""
        self._context.set_threads(n_threads)

    def tokens(self, sequence: int) -> list[int]:
        """See `context.Context.tokens`."""
        return self._context.tokens(sequence)


def can_steer(roles: Roles) -> bool:
    """Whether no context is a reference and something else, too."""
    references = {reference for _, reference in roles.experts}
    return references.isdisjoint({roles.base, *(tuned for tuned, _ in roles.experts)})


class SteeredModel:
    """A loaded model's contexts under an engine of its own, with a chosen acceptance.

    The model itself must not generate meanwhile; its caches are emptied.

    Args:
        model: loaded; `can_steer` holds for its roles.
        acceptance: probability that a draft is accepted.
        prompt: token ids (two or more), read by all contexts.

    Attributes:
        drafter: index of the context that drafts.
    """

    def __init__(self, model: FusedModel, acceptance: float, prompt: tuple[int, ...]) -> None:
        self._model = model
        self._acceptance = acceptance
        self._prompt = prompt
        source = model.engine.ensemble
        source.forget(0)
        self._weights = resolve_weights(model.experts, model.options)
        self.drafter = source.roles.drafter(self._weights)
        special = sorted(model.engine.eog | model.engine.neutral)
        ids = np.arange(model.n_vocab // 4, model.n_vocab * 3 // 4)
        self._ids = ids[~np.isin(ids, special)]
        self._steering = Steering(self.script(0), _top(source, prompt) + _ABOVE)
        references = {reference for _, reference in source.roles.experts}
        contexts = [
            Steered(context, self._steering, i in references)
            for i, context in enumerate(source.contexts)
        ]
        ensemble = Ensemble(contexts, source.roles, source.n_vocab)
        self._engine = Engine(ensemble, model.engine.eog, model.engine.neutral)

    def script(self, seed: int) -> Script:
        """What `complete` follows with this seed."""
        return Script.draw(self._ids, self._acceptance, self._model.n_ctx + 1, seed)

    def complete(self, n_tokens: int, draft: str | int, seed: int) -> Completion:
        """Decode greedily along the script of a seed."""
        self._steering.script = self.script(seed)
        options = self._model.options.updated({**PLAIN, "draft": draft, "max_tokens": n_tokens})
        prompts = (self._prompt,) * len(self._engine.ensemble.contexts)
        request = Request(prompts, options, self._weights)
        stream = Stream(self._engine, Prepared(request, prompts[0]), self._model.vocabulary)
        for _ in stream:
            pass
        return stream.completion


def _top(ensemble: Ensemble, prompt: Sequence[int]) -> float:
    """The highest logit of any context after a prompt."""
    tops = [context.decode([Block(0, prompt[:1], 1)]).max() for context in ensemble.contexts]
    ensemble.forget(0)
    return float(max(tops))
