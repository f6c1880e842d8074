"""Many draws of the first tokens of a reply against the exact fused distribution."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import FusedModel
from ...batch import completions
from ...diagnostics import ModelTrace, Trace
from ..answering import Conversation, name_of
from ..store import Record
from ..systems import Models
from ..work import Loader
from .drafts import PURE

DEPTH = 3
"""Tokens of a draw."""

_CHUNK = 100
_NODES = 24
_FEWEST_EXPECTED = 5.0
SIMULATIONS = 9999

Prefix = tuple[int, ...]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """First tokens after one prompt, seed by seed.

    An item is a hundred seeds; its record has "draws": up to `DEPTH` token ids each. All contexts
    read the base's prompt, so that the exact distribution can be had from `FusedModel.score`.

    Attributes:
        title: what a progress bar calls it.
        models: what answers.
        options: changes to its generation options; "seed" is the first seed.
        conversation: the prompt.
        number: how many draws.
    """

    title: str
    models: Models
    options: Mapping[str, Any]
    conversation: Conversation
    number: int

    @property
    def _options(self) -> Mapping[str, Any]:
        # One more than is looked at: the first round of n = 4 shall have four rows.
        return {**PURE, **self.options, "temperature": 1.0, "max_tokens": DEPTH + 1}

    @property
    def _firsts(self) -> Sequence[int]:
        first = int(self.options["seed"])
        return range(first, first + self.number, _CHUNK)

    @property
    def items(self) -> Sequence[str]:
        """A name per hundred seeds."""
        end = int(self.options["seed"]) + self.number
        name = name_of(self.conversation)
        return [f"{name} {first}-{min(first + _CHUNK, end)}" for first in self._firsts]

    @property
    def content(self) -> Record:
        """What draws depend on."""
        return {"kind": "draws", **self.models.content(self._options)}

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[tuple[int, Record]]:
        """Draw what has not been drawn yet.

        Raises:
            EftlocalError: where the prompt cannot be continued.
        """
        model = loader.get(self.models)
        prompt = model.prepare_chat(self.conversation).prompt
        end = int(self.options["seed"]) + self.number
        for index in missing:
            first = self._firsts[index]
            jobs = [
                partial(model.prepare_complete, prompt, **{**self._options, "seed": seed})
                for seed in range(first, min(first + _CHUNK, end))
            ]
            draws: list[list[int]] = [[] for _ in jobs]
            for number, completion in completions(model, jobs):
                draws[number] = list(completion.tokens[:DEPTH])
            yield index, {"draws": draws}


@dataclass(frozen=True)
class Tree:
    """Exact probabilities of likely first tokens: products of conditionals from scored prompts.

    A record has "nodes": [prefix, ids, fused, drafter's] each: after the prefix these tokens have
    these probabilities.

    Attributes:
        title: what a progress bar calls it.
        models: what is scored.
        options: changes to its generation options.
        conversation: the prompt.
    """

    title: str
    models: Models
    options: Mapping[str, Any]
    conversation: Conversation

    @property
    def items(self) -> Sequence[str]:
        """The prompt."""
        return [name_of(self.conversation)]

    @property
    def content(self) -> Record:
        """What probabilities depend on."""
        content = self.models.content({**PURE, **self.options})
        return {"kind": "tree", "depth": DEPTH, "size": _NODES, **content}

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[tuple[int, Record]]:
        """Score prefixes, the likeliest first.

        Raises:
            EftlocalError: where the prompt cannot be scored.
        """
        model = loader.get(self.models)
        prepared = model.prepare_chat(self.conversation)
        roles = model.engine.ensemble.roles
        tuned = [tuned for tuned, _ in roles.experts]
        drafter = tuned.index(roles.drafter(prepared.request.weights))
        for index in missing:
            nodes: list[list[Any]] = []
            waiting: list[tuple[float, Prefix]] = [(-1.0, ())]
            while waiting and len(nodes) < _NODES:
                negative, prefix = heapq.heappop(waiting)
                trace = _after(model, (*prepared.prompt, *prefix), self.options)
                ids, fused = trace.ids, _probabilities(trace.fused)
                nodes.append([prefix, ids, fused, _probabilities(trace.tuned[drafter])])
                for token, share in zip(ids, fused, strict=True):
                    if len(prefix) + 1 < DEPTH and token not in model.engine.eog:
                        heapq.heappush(waiting, (negative * share, (*prefix, token)))
            yield index, {"nodes": nodes}


def _after(model: FusedModel, prefix: Sequence[int], options: Mapping[str, Any]) -> Trace:
    """The distributions of the token after some others."""
    # The last token only stands for the next one: what precedes it is what is scored.
    settings = {**PURE, **options, "draft": "off", "trace": True}
    trace = model.score((*prefix, prefix[-1]), **settings)[-1].trace
    assert trace is not None
    return trace


def _probabilities(view: ModelTrace) -> list[float]:
    return [math.exp(logprob) for logprob in view.logprobs]


@dataclass(frozen=True)
class Partition:
    """All texts of `DEPTH` tokens in cells: likely ones have their own, others share one.

    Attributes:
        nodes: prefix -> token -> its probabilities, fused and drafter's.
    """

    nodes: Mapping[Prefix, Mapping[int, tuple[float, float]]]

    @classmethod
    def of(cls, record: Record) -> Partition:
        """From a record of `Tree`."""
        return cls(
            {
                tuple(prefix): dict(zip(ids, zip(fused, drafter, strict=True), strict=True))
                for prefix, ids, fused, drafter in record["nodes"]
            }
        )

    def shares(self) -> dict[Prefix, tuple[float, float]]:
        """Cell -> its probabilities, fused and drafter's; -1 at its end stands for other tokens."""
        found: dict[Prefix, tuple[float, float]] = {}

        def walk(prefix: Prefix, fused: float, drafter: float) -> None:
            if prefix not in self.nodes:
                found[prefix] = fused, drafter
                return
            rest = [1.0, 1.0]
            for token, (f, d) in self.nodes[prefix].items():
                walk((*prefix, token), fused * f, drafter * d)
                rest = [rest[0] - f, rest[1] - d]
            found[*prefix, -1] = fused * max(0.0, rest[0]), drafter * max(0.0, rest[1])

        walk((), 1.0, 1.0)
        return found

    def cell(self, draw: Sequence[int]) -> Prefix:
        """The cell that a draw lies in."""
        prefix: Prefix = ()
        while prefix in self.nodes:
            token = draw[len(prefix)]
            if token not in self.nodes[prefix]:
                return (*prefix, -1)
            prefix = (*prefix, token)
        return prefix


def counted(
    partition: Partition, draws: Sequence[Sequence[int]]
) -> tuple[NDArray[np.int64], Shares, Shares]:
    """How many draws lie in each cell, and its shares, fused and drafter's: (K,) each.

    Cells in which fewer than five draws are expected are taken together.
    """
    shares = partition.shares()
    large = [cell for cell, (f, _) in shares.items() if f * len(draws) >= _FEWEST_EXPECTED]
    place = {cell: i for i, cell in enumerate(large)}
    counts = np.zeros(len(large) + 1, np.int64)
    for draw in draws:
        counts[place.get(partition.cell(draw), -1)] += 1
    fused, drafter = (
        np.array([*own, max(0.0, 1.0 - sum(own))])
        for own in ([shares[cell][i] for cell in large] for i in (0, 1))
    )
    return counts, fused / fused.sum(), drafter / drafter.sum()


def multinomial_p(
    counts: NDArray[np.int64], shares: Shares, seed: int = 0, simulations: int = SIMULATIONS
) -> float:
    """P-value of counts under a multinomial distribution, by simulation: exact, never 0.

    The statistic is the log-likelihood ratio, sum of n log(n / (N p)); the p-value (1 + r) / (1 +
    simulations), where r simulations are as far off (Davison and Hinkley 1997, section 4.2).

    Args:
        counts: (K,).
        shares: (K,), with sum 1.
        seed: of the simulations.
        simulations: how many.
    """
    drawn = np.random.default_rng(seed).multinomial(int(counts.sum()), shares, simulations)
    expected = counts.sum() * shares

    def distance(seen: NDArray[np.int64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = np.where(seen > 0, seen * np.log(seen / expected), 0.0)
        found: NDArray[np.float64] = parts.sum(axis=-1)
        return found

    # Equal counts may differ in the last bits of their sums.
    as_far = int((distance(drawn) >= distance(counts) - 1e-9).sum())
    return (1 + as_far) / (1 + simulations)
