"""What was found, as arrays and estimates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...distributions import Array64
from ...llama.quantizing import Packing
from ...registry import ROLES
from ...tables import Estimate
from ..statistics import Bootstrap
from ..store import Record
from .subject import PARTS, parts_of

_MEGA = 1e6
_DRAWS_OF_QUANTILES = 1000


@dataclass(frozen=True)
class Moved:
    """How far one part, quantized, moves the fused distribution.

    Attributes:
        kl: per passage (n,), in nats.
        sums, variation, changed: (T,) over the tokens of each passage.
    """

    kl: Sequence[Array64]
    sums: Array64
    variation: Array64
    changed: Array64


@dataclass(frozen=True)
class Found:
    """All comparisons.

    Attributes:
        types: finest first.
        parts: type -> parts that could be quantized.
        moved: (alpha, type, part) -> how far.
        packed: (type, role) -> the file; type "" is the file as it was.
        lengths: (T,) tokens of each passage.
        draws: over passages.
    """

    types: Sequence[str]
    parts: Mapping[str, Sequence[str]]
    moved: Mapping[tuple[str, str, str], Moved]
    packed: Mapping[tuple[str, str], Packing]
    lengths: Array64
    draws: Bootstrap

    @classmethod
    def of(
        cls,
        roles: Mapping[str, tuple[str, ...]],
        records: Sequence[Sequence[Record]],
        draws: Bootstrap,
    ) -> Found:
        """What was compared, subject by subject.

        Args:
            roles: type -> roles that were quantized.
            records: of each subject those of `comparing.Comparing`, in its order: type by type.
            draws: over the passages of the first subject, then those of the next.
        """
        n = len(records[0]) // len(roles)
        packed: dict[tuple[str, str], Packing] = {}
        moved: dict[tuple[str, str, str], Moved] = {}
        for i, name in enumerate(roles):
            own = [one for subject in records for one in subject[i * n : (i + 1) * n]]
            for key, files in (("", own[0]["given"]), (name, own[0]["packed"])):
                packed |= {(key, role): Packing(**facts) for role, facts in files.items()}
            for alpha, parts in own[0]["apart"].items():
                for part in parts:
                    moved[alpha, name, part] = _moved([one["apart"][alpha][part] for one in own])
        lengths = np.array([len(kl) for kl in next(iter(moved.values())).kl], np.float64)
        parts = {name: parts_of(own_roles) for name, own_roles in roles.items()}
        return cls(tuple(roles), parts, moved, packed, lengths, draws)

    def sums(self, name: str, part: str, alpha: str = "1") -> Array64:
        """(T,) KL in sum; 0 for the type "", which is no quantization."""
        return self.moved[alpha, name, part].sums if name else np.zeros_like(self.lengths)

    def per_token(self, sums: Array64, scale: float = 1.0) -> Estimate:
        """The mean per token of what is given in sum per passage (T,)."""
        return self.draws.estimate(lambda a, n: scale * a / n, sums, self.lengths)

    def ratio(self, above: Array64, below: Array64, scale: float = 1.0) -> Estimate:
        """How many times as large the first of two sums (T,) is; not defined where both are 0."""
        return self.draws.estimate(lambda a, b: scale * a / b, above, below)

    def quantile(self, kl: Sequence[Array64], share: float) -> Estimate:
        """The KL that this share of tokens does not exceed."""
        counts = self.draws.counts[:_DRAWS_OF_QUANTILES]
        of = np.repeat(np.arange(len(kl)), [len(own) for own in kl])
        flat = np.concatenate(kl)
        if not len(flat):
            return Estimate(np.nan, np.nan, np.nan)
        order = np.argsort(flat, kind="stable")

        def of_weights(weights: Array64) -> float:
            reached = np.cumsum(weights[of[order]])
            place = int(np.searchsorted(reached, share * reached[-1]))
            return float(flat[order[min(place, len(flat) - 1)]])

        value = of_weights(np.ones(len(kl)))
        if np.isnan(self.draws.mean(np.array([own.sum() for own in kl])).low):
            # What leaves a mean without an interval leaves a quantile without one.
            return Estimate(value, np.nan, np.nan)
        drawn = [of_weights(weights) for weights in counts]
        low, high = np.quantile(drawn, (0.025, 0.975))
        return Estimate(value, min(value, float(low)), max(value, float(high)))

    def bits(self, name: str, part: str) -> float:
        """Bits per weight of a quantized part."""
        files = [self.packed[name, role] for role in PARTS[part]]
        n_weights = sum(sum(file.types.values()) for file in files)
        return 8 * sum(file.n_bytes for file in files) / n_weights

    def types_of(self, name: str, part: str) -> str:
        """What types the tensors of a quantized part really have."""
        return "; ".join(dict.fromkeys(self.packed[name, role].text for role in PARTS[part]))

    def megabytes(self, name: str, part: str) -> float:
        """The size of a part's files."""
        keys = [(name, role) for role in PARTS[part]]
        return sum(self.packed[key].n_bytes for key in keys) / _MEGA

    def saved(self, name: str, part: str) -> float:
        """Megabytes that quantizing a part saves."""
        return self.megabytes("", part) - self.megabytes(name, part)

    def compared(self, *parts: str, most_bits: float = 15.0) -> list[str]:
        """Types by which all of these parts were quantized, became smaller, and lost something."""
        return [
            name
            for name in self.types
            if set(parts) <= set(self.parts[name])
            and all(self.bits(name, part) < most_bits for part in parts)
            and all(self.saved(name, part) > 0 for part in parts)
        ]

    def unsaved(self) -> Mapping[str, Sequence[str]]:
        """Type -> roles that it does not fit: llama.cpp took types with as many bits or more."""
        found = {
            name: [r for r in ROLES if r in self.parts[name] and self.saved(name, r) <= 0]
            for name in self.types
        }
        return {name: roles for name, roles in found.items() if roles}

    def by_type(
        self, types: Sequence[str], estimate: Callable[[str], Estimate]
    ) -> Mapping[str, Estimate]:
        """An estimate for each type."""
        return {name: estimate(name) for name in types}


def crossed(passages: Bootstrap, n_subjects: int, seed: int) -> Bootstrap:
    """Draws of passages and, on their own, of subjects that all have these passages.

    Owen, "The pigeonhole bootstrap", 2007: both are random, and every mean is one over both.
    """
    drawn = _subjects_drawn(len(passages.counts), n_subjects, seed)
    counts = drawn[:, :, None] * passages.counts[:, None, :]
    clusters = np.tile(passages.clusters, n_subjects)
    return Bootstrap(counts.reshape(len(counts), -1), clusters)


def nested(questions: Bootstrap, subjects: Sequence[int], seed: int) -> Bootstrap:
    """Draws of questions and of the subjects (numbered from 0) that each was put to."""
    drawn = _subjects_drawn(len(questions.counts), max(subjects) + 1, seed)
    return Bootstrap(questions.counts * drawn[:, list(subjects)], questions.clusters)


def _subjects_drawn(n_draws: int, n_subjects: int, seed: int) -> Array64:
    rng = np.random.default_rng([seed, n_subjects])
    shares = np.full(n_subjects, 1 / n_subjects)
    return rng.multinomial(n_subjects, shares, size=n_draws).astype(np.float64)


def _moved(records: Sequence[Record]) -> Moved:
    kl = [np.array(record["kl"], np.float64) for record in records]
    variation, changed = (
        np.array([record[key] for record in records], np.float64)
        for key in ("variation", "changed")
    )
    return Moved(kl, np.array([own.sum() for own in kl]), variation, changed)
