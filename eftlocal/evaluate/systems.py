"""What is evaluated: models with options, alone or fused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .. import FusedModel, GenerationOptions, RuntimeOptions, __version__, load
from ..llama.library import llama_cpp_version
from ..loading import locate
from ..options import option_name
from .store import Record, file_digest

FAMILY = Path(__file__).resolve().parents[1] / "families" / "atlas"
"""The folder of the embedded family."""

PLAIN: Mapping[str, Any] = {"draft": "off"}
"""Options of every study that says nothing else: rounds must not depend on the clock."""

_SMALL: Mapping[str, Any] = {"threads": 1, "parallel": 8, "kv_unified": "off"}
"""How the embedded family is loaded. In caches of their own sequences do not change each other's
rounding, so that a reply depends on its question alone."""

# How fast, and where, but not what is computed.
_WITHOUT_EFFECT = ("parallel", "threads", "mmap", "mlock")


@dataclass(frozen=True)
class Models:
    """What `eftlocal.load` is told.

    Attributes:
        entry: a model entry; None where files are given.
        files: role -> file, or a list of them.
        models: the user's models.toml.
        runtime: changes to `RuntimeOptions`.
    """

    entry: str | None = None
    files: Mapping[str, Any] = field(default_factory=dict)
    models: Path | None = None
    runtime: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> FusedModel:
        """Load them.

        Raises:
            EftlocalError: as `eftlocal.load` does.
        """
        return load(self.entry, models=self.models, **self.files, **self.runtime)

    def content(self, options: Mapping[str, Any]) -> Record:
        """What replies depend on beside the prompt: files, prompts' styles, and all options.

        Raises:
            EftlocalError: for a file that is not there, an unknown entry, or unknown options.
        """
        entry, paths = locate(self.entry, models=self.models, **self.files)
        runtime = asdict(RuntimeOptions().updated(entry.runtime).updated(self.runtime))
        generation = GenerationOptions().updated(entry.options).updated(options)
        values = {option_name(f.name): getattr(generation, f.name) for f in fields(generation)}
        if generation.part == "fused":
            # What was kept before there were parts is fused, and stays valid.
            del values["part"]
        templates = {
            role: file_digest(style) if isinstance(style, Path) else style
            for role, style in entry.templates.items()
        }
        return {
            "versions": [__version__, llama_cpp_version],
            "files": {role: file_digest(path) for role, path in paths.items()},
            "scales": [expert.tuned.scale for expert in entry.experts],
            "prompt": [entry.prompt, entry.neutral, templates],
            "runtime": {k: v for k, v in runtime.items() if k not in _WITHOUT_EFFECT},
            "options": {k: _plain(v) for k, v in values.items()},
        }


def _plain(value: object) -> object:
    """Settings as JSON's types."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class System:
    """One way to answer.

    Attributes:
        title: what a table calls it.
        models: what answers.
        options: changes to the models' own generation options.
    """

    title: str
    models: Models
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> Record:
        """What its replies depend on beside the prompt; see `Models.content`."""
        return self.models.content(self.options)


def family(base: str, tuned: str | tuple[str, ...], reference: str = "small") -> Models:
    """Models of the embedded family by the names of their files."""
    names = (tuned,) if isinstance(tuned, str) else tuned
    files = {
        "base": FAMILY / f"{base}.gguf",
        "tuned": [FAMILY / f"{name}.gguf" for name in names],
        "reference": [FAMILY / f"{reference}.gguf" for _ in names],
    }
    return Models(files=files, runtime=_SMALL)


def greedy(**options: Any) -> dict[str, Any]:
    """Options of a greedy reply without drafts, as questions of the embedded family are asked."""
    return {**PLAIN, "temperature": 0.0, "max_tokens": 64, **options}
