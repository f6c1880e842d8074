"""Runs studies and gathers their sections."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module

import numpy as np

from .. import __version__
from ..errors import UsageError
from ..llama.library import llama_cpp_version
from .report import Report, Section
from .store import file_digest
from .study import Setting, Study
from .systems import FAMILY
from .work import Progress, perform

STUDIES = {
    "scale": "scale.Scale",
    "frontier": "frontier.Frontier",
    "alpha": "alpha.Alpha",
    "speculation": "speculation.Speculation",
    "divergence": "divergence.Divergence",
    "quantization": "quantization.Quantization",
}
"""Study -> module and class."""


def make_study(name: str) -> Study:
    """The study of that name, about the embedded family.

    Raises:
        UsageError: where there is none.
    """
    if name not in STUDIES:
        raise UsageError(f"there is no study {name!r}; use {', '.join(STUDIES)}")
    module, _, kind = STUDIES[name].partition(".")
    made: Callable[[], Study] = getattr(import_module(f"{__package__}.{module}"), kind)
    return made()


def run(studies: Sequence[Study], setting: Setting, progress: Progress) -> Report:
    """Do what is missing, study by study, and report.

    Args:
        studies: in the order of the report.
        setting: where results are kept, and how much is asked.
        progress: told of every item over all studies.

    Raises:
        EftlocalError: as `work.perform` does.
    """
    started = time.perf_counter()
    works = [work for study in studies for work in study.work(setting)]
    n_items = perform(works, setting.store, progress)
    worked = time.perf_counter()
    sections = []
    for study in studies:
        progress(n_items, n_items, "statistics")
        sections.append(_with_settings(study.section(setting), setting))
    times = {
        "work of this run": f"{worked - started:.1f} s",
        "statistics": f"{time.perf_counter() - worked:.1f} s",
    }
    return Report(_facts(setting), times, tuple(sections))


def _with_settings(section: Section, setting: Setting) -> Section:
    """The section with the whole command, where the study does not know it."""
    if section.command != f"eftlocal eval {section.name}":
        return section
    words = [section.command]
    words += [f"--every {setting.every}"] if setting.every != 1 else []
    words += [f"--seed {setting.seed}"] if setting.seed else []
    return replace(section, command=" ".join(words))


def _facts(setting: Setting) -> dict[str, str]:
    files = sorted(FAMILY.glob("*.gguf"))
    return {
        "eftlocal": __version__,
        "llama-cpp-python": llama_cpp_version,
        "NumPy": np.__version__,
        "Python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "embedded family": ", ".join(f"{path.stem} {file_digest(path)[:8]}" for path in files),
        "questions": "all" if setting.every == 1 else f"one of every {setting.every}",
        "intervals": f"95 %, {setting.resamples} bootstrap draws, seed {setting.seed}",
    }
