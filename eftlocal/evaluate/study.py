"""What a study is: it plans work, and writes a section from the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .report import Section
from .statistics import RESAMPLES
from .store import Store
from .work import Work


@dataclass(frozen=True)
class Setting:
    """What all studies have in common.

    Attributes:
        store: where results are kept.
        every: take every n-th question only; 1 takes all.
        seed: of sampled texts and of bootstrap draws.
        resamples: how many bootstrap draws.
    """

    store: Store
    every: int = 1
    seed: int = 0
    resamples: int = RESAMPLES


class Study(Protocol):
    """One section of the report. `work` must not load models; `section` only reads the store."""

    def work(self, setting: Setting) -> Sequence[Work]:
        """All that the section needs."""

    def section(self, setting: Setting) -> Section:
        """The section, once the work has been performed."""
