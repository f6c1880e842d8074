"""What is compared: a fused model, each of its parts alone, and a ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...loading import locate
from ...registry import Entry, Source
from ...registry.entries import Expert
from ...registry.writing import format_entry
from ..store import file_digest
from ..systems import PLAIN, Models, System
from .model import EXACT

ROLES = ("fused", "base", "tuned", "reference", "ceiling")
_OF_FUSING = (
    "alpha", "alpha_low", "alpha_high", "alpha_every", "weight", "lambda", "lambda_",
    "upscale_top_p",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A system with the part that it plays.

    Attributes:
        role: one of `ROLES`; "tuned" is the floor, as up-scaling is to improve on it.
        system: what answers.
    """

    role: str
    system: System


@dataclass(frozen=True)
class Comparison:
    """What is to be compared.

    Attributes:
        models: the fused model.
        options: of its generations, as given by the user.
        parts: whether each of its models is asked alone, too.
        ceiling: file of a model that is asked alone as the ceiling.
        is_chat: whether a chat template is applied: it needs the tuned model's beside the others.
        folder: where entries of parts are written for as long as they are needed.
    """

    models: Models
    options: Mapping[str, Any]
    parts: bool
    ceiling: str | None
    is_chat: bool
    folder: Path

    def check(self) -> None:
        """Find out, before anything is asked, whether all files are there.

        Raises:
            EftlocalError: as `locate` does, or for a ceiling that is no file.
        """
        locate(self.models.entry, models=self.models.models, **self.models.files)
        if self.ceiling is not None:
            file = self.ceiling
            _, paths = locate(base=file, tuned=[file], reference=[file])
            for path in paths.values():
                file_digest(path)

    def fused(self) -> Part:
        """The fused model, as its entry and the user's options say."""
        runtime = {**EXACT, **self.models.runtime}
        title = self.models.entry or "files"
        models = replace(self.models, runtime=runtime)
        return Part("fused", System(f"{title} (fused)", models, {**PLAIN, **self.options}))

    def others(self, n_ctx: int) -> list[Part]:
        """The parts and the ceiling.

        Args:
            n_ctx: context of the fused model; all get the same, so that all read the same.

        Raises:
            EftlocalError: as `locate` does.
        """
        entry, _ = locate(self.models.entry, models=self.models.models, **self.models.files)
        found = []
        if self.parts:
            found.append(self._base(entry, n_ctx))
            several = len(entry.experts) > 1
            references: list[Source] = []
            for i, expert in enumerate(entry.experts):
                name = f" ({expert.name})" if several else ""
                tuned, alpha = _tuned(entry, expert)
                title = f"tuned alone{name}" if several else "tuned alone (floor)"
                found.append(self._alone("tuned", title, tuned, alpha, n_ctx, f"tuned-{i}"))
                if expert.reference in references:
                    continue
                references.append(expert.reference)
                other = self._reference(entry, expert)
                title = f"reference alone{name}"
                found.append(self._alone("reference", title, other, 0.0, n_ctx, f"reference-{i}"))
        if self.ceiling is not None:
            source = Source.parse(self.ceiling)
            whole = _single(entry, source, entry.style("tuned"))
            title = f"{source.label} (ceiling)"
            found.append(self._alone("ceiling", title, whole, 0.0, n_ctx, "ceiling"))
        return found

    def _base(self, entry: Entry, n_ctx: int) -> Part:
        if not self.is_chat:
            alone = _single(entry, entry.base, "template")
            return self._alone("base", "base alone", alone, 0.0, n_ctx, "base")
        # Its own file may have no template; with alpha 0 it reads what it reads when fused.
        options = {k: v for k, v in self.options.items() if k not in _OF_FUSING}
        fused = self.fused().system
        options = {**PLAIN, **options, "alpha": 0.0, "upscale_top_p": 1.0}
        return Part("base", System("base alone", fused.models, options))

    def _reference(self, entry: Entry, expert: Expert) -> Entry:
        if not self.is_chat:
            return _single(entry, expert.reference, "template")
        style = entry.style("reference")
        templates = {**entry.templates, "base": style, "reference": style}
        return replace(entry, base=expert.reference, experts=(_named(expert),), templates=templates)

    def _alone(
        self, role: str, title: str, entry: Entry, alpha: float, n_ctx: int, name: str
    ) -> Part:
        """A system of an entry that is written for it; with its context and its sampler."""
        kept = {k: v for k, v in entry.options.items() if k not in _OF_FUSING}
        entry = replace(_absolute(entry), name=name, aliases=(), options=kept, description="")
        path = self.folder / f"{name}.toml"
        path.write_text(format_entry(entry), encoding="utf-8")
        runtime = {**EXACT, **self.models.runtime, "ctx": n_ctx}
        options = {k: v for k, v in self.options.items() if k not in _OF_FUSING}
        options = {**PLAIN, **options, "alpha": alpha}
        return Part(role, System(title, Models(name, {}, path, runtime), options))


def _named(expert: Expert) -> Expert:
    """The expert, as the only one of an entry."""
    return replace(expert, name="tuned")


def _single(entry: Entry, source: Source, style: str | Path) -> Entry:
    """An entry in which one file plays all roles, so that one context is enough."""
    templates = {} if style == "template" else dict.fromkeys(("base", "tuned", "reference"), style)
    return replace(
        entry,
        base=source,
        experts=(Expert("tuned", source, source),),
        prompt="shared",
        neutral="none",
        templates=templates,
    )


def _tuned(entry: Entry, expert: Expert) -> tuple[Entry, float]:
    """The tuned model alone, and the alpha of it: an adapter needs what it was tuned from."""
    from ...llama import is_adapter

    style = entry.style("tuned")
    alone = _single(entry, expert.tuned, style)
    path = expert.tuned.path
    if expert.tuned.scale is None and not (path is not None and is_adapter(path)):
        return alone, 0.0
    both = replace(alone, base=expert.reference, experts=(_named(expert),))
    return both, 1.0


def _absolute(entry: Entry) -> Entry:
    """The entry with whole paths, because relative ones count from the file of an entry."""

    def whole(source: Source) -> Source:
        return replace(source, path=source.path.absolute()) if source.path else source

    experts = tuple(
        replace(expert, tuned=whole(expert.tuned), reference=whole(expert.reference))
        for expert in entry.experts
    )
    return replace(entry, base=whole(entry.base), experts=experts)
