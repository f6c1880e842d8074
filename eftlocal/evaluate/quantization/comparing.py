"""How far quantized roles move the fused distribution, as a piece of work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...distributions import Array, Array64, log_softmax64
from ...fusion import FusionSettings, fuse
from ...gguf import read_model
from ...llama.quantizing import Packing
from ...loading import locate
from ...registry import ROLES
from ..store import Record, Store
from ..work import Loader, records
from .passages import Passages
from .scoring import empty_rows, score
from .subject import PARTS, Folder, parts_of

ALPHAS: Mapping[str, float | str] = {"1": 1.0, "dynamic": "dynamic"}
_BLOCK = 32
"""Rows that are fused at a time: 64 MB of float64 with a vocabulary of 256k."""
_DIGITS = 6


@dataclass(frozen=True)
class Apart:
    """How far distributions (R, V) are from others.

    Attributes:
        kl: (R,) KL(F || G), in nats.
        variation: (R,) half of sum |F - G|, 0 to 1.
        changed: (R,) whether the likeliest token is another one.
    """

    kl: Array64
    variation: Array64
    changed: NDArray[np.bool_]

    @classmethod
    def of(cls, one: Array64, other: Array64) -> Apart:
        """Compare normalised log-probabilities (R, V)."""
        p = np.exp(one)
        with np.errstate(invalid="ignore"):
            terms = np.where(p > 0, p * (one - other), 0.0)
        variation = np.abs(p - np.exp(other)).sum(axis=1) / 2
        changed = one.argmax(axis=1) != other.argmax(axis=1)
        return cls(np.maximum(terms.sum(axis=1), 0.0), np.minimum(variation, 1.0), changed)


Rows = Mapping[str, Array]
"""Role -> (R, V) logits."""


def compare(
    given: Rows, quantized: Rows, alpha: float | str, neutral: Sequence[int]
) -> Mapping[str, Apart]:
    """Replace rows of some roles by those of quantized files, and see how far that moves F.

    Args:
        given: all roles.
        quantized: those roles whose files were quantized.
        alpha: as `FusionSettings` has it; a searched one is searched anew.
        neutral: as `fuse` has it.

    Returns:
        Part (see `PARTS`) -> how far the fused distribution of the models as they are, F, is from
        the one with that part quantized.
    """

    def fused(rows: Rows) -> Array64:
        base, tuned, reference = (rows[role] for role in ROLES)
        ids = np.array(neutral, np.intp) if len(neutral) else None
        settings = FusionSettings(alpha)
        return log_softmax64(fuse(base, [tuned], [reference], settings, neutral=ids).logits)

    whole = fused(given)
    parts = parts_of(tuple(quantized))
    return {
        part: Apart.of(whole, fused({**given, **{role: quantized[role] for role in PARTS[part]}}))
        for part in parts
    }


@dataclass(frozen=True)
class Comparing:
    """Each passage with each type: all parts, with alpha 1 and with dynamic alpha.

    A record has "given" and "packed" (role -> `Packing`), and "apart": alpha -> part -> "kl" per
    token, "variation" in sum, and "changed", how many likeliest tokens are others.

    Attributes:
        passages: where.
        roles: type -> roles that are quantized.
        store: has the passages' records when this runs; its folder takes rows and files. Of the
            files those stay there whose replies are judged.
    """

    passages: Passages
    roles: Mapping[str, tuple[str, ...]]
    store: Store

    @property
    def title(self) -> str:
        """What it is called while it is done."""
        return "quantization: how far distributions move"

    @property
    def items(self) -> Sequence[str]:
        """Type and passage."""
        return [f"{name}/{item}" for name in self.roles for item in self.passages.items]

    @property
    def content(self) -> Record:
        """The passages', and how files are quantized."""
        return {
            **self.passages.content,
            "kind": "quantized",
            "roles": {name: list(roles) for name, roles in self.roles.items()},
            "pure": self.passages.subject.pure,
        }

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[tuple[int, Record]]:
        """Score with one file after another, and compare.

        Raises:
            EftlocalError: where a file cannot be quantized or loaded, or the disk is full.
        """
        loader.close()
        n_passages = len(self.passages.items)
        todo = set(missing)
        wanted = sorted({index % n_passages for index in missing})
        found = records(self.passages, self.store)
        said = [found[i] for i in wanted]
        paths = self.passages.subject.paths()
        given = {role: self._score(paths[role], role, said) for role in ROLES}
        packed = {role: Packing.of(read_model(path)) for role, path in paths.items()}
        for number, (name, roles) in enumerate(self.roles.items()):
            own = [i for i in wanted if number * n_passages + i in todo]
            if not own:
                continue
            rows, packings = {}, {}
            for role in roles:
                rows[role], packings[role] = self._quantized(paths[role], role, name, said)
            facts = {"given": _facts(packed), "packed": _facts(packings)}
            first = 0
            for i, record in zip(wanted, said, strict=True):
                place = slice(first, first + len(record["tokens"]))
                first = place.stop
                if i in own:
                    apart = _apart(given, rows, place, record["neutral"])
                    yield number * n_passages + i, {**facts, "apart": apart}

    def _quantized(
        self, path: Path, role: str, name: str, said: Sequence[Record]
    ) -> tuple[Array, Packing]:
        subject, folder = self.passages.subject, Folder.of(self.store)
        if name in subject.judged:
            file = folder.quantize(path, name, subject.pure)
            return self._score(file, role, said), Packing.of(read_model(file))
        with folder.lent(path, name, subject.pure) as (file, packing):
            return self._score(file, role, said), packing

    def _score(self, path: Path, role: str, said: Sequence[Record]) -> Array:
        n_rows = sum(len(record["tokens"]) for record in said)
        rows = empty_rows(self.store.folder, n_rows, said[0]["n_vocab"])
        passages = [(record["prompts"][role], record["tokens"]) for record in said]
        score(path, self._runtime(), passages, rows)
        return rows

    def _runtime(self) -> Mapping[str, Any]:
        models = self.passages.subject.models
        entry, _ = locate(models.entry, models=models.models, **models.files)
        return {**entry.runtime, **models.runtime}


def _facts(packed: Mapping[str, Packing]) -> Record:
    return {role: asdict(packing) for role, packing in packed.items()}


def _apart(given: Rows, quantized: Rows, place: slice, neutral: Sequence[int]) -> Record:
    """What a record says of one passage."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, alpha in ALPHAS.items():
        own = found[name] = {}
        for first in range(place.start, place.stop, _BLOCK):
            block = slice(first, min(first + _BLOCK, place.stop))
            here, there = (
                {role: np.asarray(part[block]) for role, part in rows.items()}
                for rows in (given, quantized)
            )
            for part, apart in compare(here, there, alpha, neutral).items():
                kept = own.setdefault(part, {"kl": [], "variation": 0.0, "changed": 0})
                kept["kl"] += map(_rounded, apart.kl.tolist())
                kept["variation"] += float(apart.variation.sum())
                kept["changed"] += int(apart.changed.sum())
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
