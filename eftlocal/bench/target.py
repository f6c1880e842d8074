"""What is measured, and sections that need loads of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..errors import BackendError
from ..loading import load
from ..model import FusedModel
from .resident import cache_bytes, weights_bytes
from .subject import Subject
from .timing import Effort

# Loads that take more memory than this together are measured one after another.
_BYTES_TOGETHER = 4 * 2**30

Subjects = Mapping[str, Subject]
Seen = dict[tuple[str, Any], tuple[float, ...]]
"""(name of a load, what was measured) -> measurements."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured.

    Attributes:
        name: of the entry, the base's file or the shape.
        runtime: arguments of `load` that JSON can hold: the models and how they are loaded.
        generation: defaults of generations.
        random: whether the weights are random.
    """

    name: str
    runtime: Mapping[str, Any]
    generation: Mapping[str, Any]
    random: bool = False


def over_loads(
    target: Target,
    effort: Effort,
    settings: Mapping[str, Mapping[str, Any]],
    measure: Callable[[Subjects], Seen],
) -> tuple[Seen, tuple[str, ...]]:
    """Load a target with several settings and measure them, together where memory is no matter.

    Args:
        target: the models.
        effort: how much is measured.
        settings: name -> arguments of `load` in place of the target's own.
        measure: called with the subjects that are loaded at the same time, by name.

    Returns:
        All that was measured, and the names of settings that llama.cpp refuses.

    Raises:
        EftlocalError: as `load` does; BackendError only where every setting is refused.
    """
    seen: Seen = {}
    refused: dict[str, BackendError] = {}
    waiting = list(settings)
    while waiting:
        with ExitStack() as stack:
            subjects: dict[str, Subject] = {}
            is_small = True
            while waiting and (is_small or not subjects):
                name = waiting.pop(0)
                arguments = {**target.runtime, **target.generation, **settings[name]}
                try:
                    model = stack.enter_context(load(**arguments))
                except BackendError as error:
                    refused[name] = error
                    continue
                subjects[name] = Subject(model, effort, target.random)
                is_small = _n_bytes(model) * len(settings) <= _BYTES_TOGETHER
            if subjects:
                seen |= measure(subjects)
    if len(refused) == len(settings):
        raise next(iter(refused.values()))
    return seen, tuple(refused)


def _n_bytes(model: FusedModel) -> int:
    """Bytes of a model's weights and KV caches, which are empty again afterwards."""
    n_bytes = sum(weights_bytes(model.engine).values()) + cache_bytes(model.engine)
    model.engine.ensemble.forget(0)
    return n_bytes
