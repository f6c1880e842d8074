"""Who answers: the fused model, its parts alone, and a large tuned model as the ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import ModelFileError
from ...llama import is_adapter
from ...loading import locate
from ...options import option_name
from ...registry import Entry, Expert, Source
from ...registry.writing import format_entry
from ..systems import PLAIN, Models, System

FUSED = "fused"
BASE = "base alone"
TUNED = "tuned alone"
CEILING = "ceiling"

MAX_TOKENS = 1024
"""A reply's limit where neither the entry nor the user has one; MT-Bench's."""

_DEFAULTS: Mapping[str, Any] = {**PLAIN, "max_tokens": MAX_TOKENS}

# Options that say how models are fused; they mean nothing to one model.
_FUSION = (
    "alpha", "alpha_low", "alpha_high", "alpha_every", "weight", "lambda", "upscale_top_p",
)  # fmt: skip


@dataclass(frozen=True)
class Lineup:
    """What is to answer.

    Attributes:
        models: of the fused model.
        options: what the user said about generations.
        parts: whether base and tuned models answer alone, too.
        ceiling: a tuned model of the base's size, as a GGUF.
    """

    models: Models
    options: Mapping[str, Any] = field(default_factory=dict)
    parts: bool = False
    ceiling: str | None = None

    def systems(self, folder: Path) -> tuple[System, ...]:
        """All of them, the fused one first.

        Args:
            folder: for a models.toml that must exist as long as they are used.

        Raises:
            EftlocalError: for models that are not there.
        """
        entry, files = locate(self.models.entry, models=self.models.models, **self.models.files)
        given = {option_name(name): value for name, value in self.options.items()}
        said = {option_name(name) for name in entry.options}
        defaults = {k: v for k, v in _DEFAULTS.items() if k not in said}
        found = [System(FUSED, self.models, {**defaults, **given})]
        own = {option_name(name): value for name, value in {**entry.options, **given}.items()}
        alone = {**defaults, **{k: v for k, v in own.items() if k not in _FUSION}}
        if self.parts:
            base = {**defaults, **given, "alpha": 0.0, "upscale_top_p": 1.0}
            found.append(System(BASE, self.models, base))
            found += self._tuned(entry, files, alone, folder)
        if self.ceiling is not None:
            found.append(self._ceiling(alone))
        return tuple(found)

    def _tuned(
        self, entry: Entry, files: Mapping[str, Path], options: Mapping[str, Any], folder: Path
    ) -> list[System]:
        """Every expert's tuned model alone: with equal base and reference, F at alpha 1 is T."""
        several = len(entry.experts) > 1
        titles, texts = [], []
        for number, expert in enumerate(entry.experts):
            prefix = f"{expert.name} " if several else ""
            file, reference = files[f"{prefix}tuned"], files[f"{prefix}reference"]
            is_whole = expert.tuned.scale is None and not is_adapter(file)
            beside = Source(path=(file if is_whole else reference).absolute())
            tuned = Source(path=file.absolute(), scale=expert.tuned.scale)
            alone = Entry(
                name=f"alone-{number}",
                base=beside,
                experts=(Expert("tuned", tuned, beside),),
                templates={"tuned": style} if (style := entry.templates.get("tuned")) else {},
                runtime=entry.runtime,
            )
            titles.append(f"{expert.name} alone" if several else TUNED)
            texts.append(format_entry(alone))
        path = folder / "models.toml"
        path.write_text("\n".join(texts), encoding="utf-8")
        runtime = self.models.runtime
        return [
            System(
                title,
                Models(entry=f"alone-{number}", models=path, runtime=runtime),
                {**options, "alpha": 1.0},
            )
            for number, title in enumerate(titles)
        ]

    def _ceiling(self, options: Mapping[str, Any]) -> System:
        file = str(self.ceiling)
        models = replace(
            self.models,
            entry=None,
            models=None,
            files={"base": file, "tuned": file, "reference": file},
        )
        system = System(CEILING, models, {**options, "alpha": 1.0})
        _, files = locate(**models.files)
        if not files["base"].is_file():
            raise ModelFileError(f"there is no file {file} for --ceiling")
        return system
