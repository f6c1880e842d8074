"""One row of logits per context -> one fused row; for rounds, and for the scores of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .diagnostics import Trace, diagnose
from .distributions import Array
from .ensemble import Roles
from .fusion import Fused, FusionSettings, fuse
from .sampling import largest


class RowFusion:
    """Fuses rows by the roles of their contexts.

    Args:
        roles: who is base, tuned, reference.
        n_vocab: width of a row.
        neutral: ids for which base and reference count as equal, so that tuned alone decides.
    """

    def __init__(self, roles: Roles, n_vocab: int, neutral: Iterable[int] = ()) -> None:
        self._roles = roles
        ids = sorted(neutral)
        self._neutral = np.array(ids, np.intp) if ids else None
        self._row = np.empty((1, n_vocab), np.float32)

    def fuse(
        self, rows: Sequence[Array], settings: FusionSettings, held: Sequence[float] | None
    ) -> Fused:
        """Fuse one row.

        Args:
            rows: (1, V) logits per context.
            settings: alpha, weights and filter; or the part that speaks alone.
            held: what each delta is multiplied with; None searches it (or takes a fixed alpha).

        Returns:
            The fused row; its logits are valid until the next call.
        """
        base, tuned, reference = self._parts(rows)
        return fuse(
            base, tuned, reference, settings, out=self._row, held=held, neutral=self._neutral
        )

    def trace(
        self, rows: Sequence[Array], settings: FusionSettings, fused: Fused, token: int
    ) -> Trace:
        """Describe the distributions that a token came from."""
        base, tuned, reference = self._parts(rows)
        experts = [t[0] for t in tuned], [q[0] for q in reference]
        alpha = tuple(fused.alpha[0].tolist())
        alone = settings.part != "fused"
        return diagnose(base[0], *experts, fused.logits[0], alpha, token, alone=alone)

    def _parts(self, rows: Sequence[Array]) -> tuple[Array, list[Array], list[Array]]:
        tuned = [rows[tuned] for tuned, _ in self._roles.experts]
        reference = [rows[reference] for _, reference in self._roles.experts]
        return rows[self._roles.base], tuned, reference


def likeliest(row: Array, log_z: float, n: int) -> tuple[tuple[int, float], ...]:
    """The n likeliest (id, logprob) pairs of a row (V,), likeliest first, ties by id."""
    ids = largest(row, n)
    ids = ids[np.argsort(-row[ids], kind="stable")]
    return tuple((int(i), float(row[i]) - log_z) for i in ids)
