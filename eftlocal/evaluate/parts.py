"""Who answers: a fused model, each of its models alone, and a ceiling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ModelFileError
from ..llama import is_adapter
from ..loading import locate
from ..options import option_name
from ..registry import DEFAULT_ENTRY, ROLES, Entry, Expert, Source
from ..registry.writing import format_entry
from .systems import Models, System

FUSED, TUNED, CEILING = "fused", "tuned alone", "ceiling"
"""Titles; the tuned model alone is the floor, as up-scaling is to improve on it."""

_OF_FUSING = (
    "alpha", "alpha_low", "alpha_high", "alpha_every", "weight", "lambda", "upscale_top_p",
    "part",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A system with the part that it plays.

    Attributes:
        role: "base", "tuned", "reference", "fused" or "ceiling".
        system: what answers.
    """

    role: str
    system: System


@dataclass(frozen=True)
class Lineup:
    """What is to answer.

    Attributes:
        models: the fused model.
        folder: where entries of parts are written for as long as they are needed.
        options: of generations, before those of the model entry.
        alone: those of `registry.ROLES` that answer alone, too, for each expert.
        ceiling: file of a model that answers alone as the ceiling.
        is_chat: whether a chat template is applied: it needs the tuned model's beside the others.
        defaults: options of generations, after those of the model entry.
    """

    models: Models
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    alone: tuple[str, ...] = ()
    ceiling: str | None = None
    is_chat: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Find out, before anything is asked, whether it can be.

        Raises:
            EftlocalError: as `locate` does, or for a ceiling that is no file.
        """
        self._located()
        if self.ceiling is not None:
            _, files = locate(base=self.ceiling, tuned=self.ceiling, reference=self.ceiling)
            if not files["base"].is_file():
                raise ModelFileError(f"there is no file {self.ceiling} for --ceiling")

    def fused(self) -> Part:
        """The fused model, as its entry and the options say.

        Raises:
            EftlocalError: as `locate` does.
        """
        return Part("fused", System(FUSED, self.models, self._said(self._located()[0])))

    def others(self, n_ctx: int | None = None) -> list[Part]:
        """The parts and the ceiling.

        Args:
            n_ctx: the context of all of them, so that all read what the fused model reads; None is
                what each would have by itself.

        Raises:
            EftlocalError: as `locate` does.
        """
        entry, files = self._located()
        found = [self._base(entry, n_ctx)] if "base" in self.alone else []
        if "tuned" in self.alone:
            found += self._tuned(entry, files, n_ctx)
        if "reference" in self.alone:
            found += self._references(entry, n_ctx)
        if self.ceiling is not None:
            source = Source.parse(self.ceiling)
            whole = _single(entry, source, entry.style("tuned"))
            found.append(self._part("ceiling", CEILING, whole, 0.0, n_ctx))
        return found

    def _located(self) -> tuple[Entry, Mapping[str, Path]]:
        return locate(self.models.entry, models=self.models.models, **self.models.files)

    def _said(self, entry: Entry) -> dict[str, Any]:
        """Options of a generation beside the entry's own."""
        own = {option_name(name) for name in entry.options}
        defaults = {name: value for name, value in self.defaults.items() if name not in own}
        return {**defaults, **{option_name(name): value for name, value in self.options.items()}}

    def _base(self, entry: Entry, n_ctx: int | None) -> Part:
        title = "base alone"
        if not self.is_chat:
            alone = _single(entry, entry.base, "template")
            return self._part("base", title, alone, 0.0, n_ctx)
        # Its own file may have no template; with alpha 0 it reads what it reads when fused.
        plain = {"alpha": 0.0, "upscale_top_p": 1.0, "part": "fused"}
        options = {**_without_fusing(self._said(entry)), **plain}
        return Part("base", System(title, self.models, options))

    def _tuned(self, entry: Entry, files: Mapping[str, Path], n_ctx: int | None) -> Iterator[Part]:
        """Every expert's tuned model; an adapter needs what it was tuned from."""
        several = len(entry.experts) > 1
        for number, expert in enumerate(entry.experts):
            prefix = f"{expert.name} " if several else ""
            alone, alpha = _single(entry, expert.tuned, entry.style("tuned")), 0.0
            if expert.tuned.scale is not None or is_adapter(files[f"{prefix}tuned"]):
                # Where base and reference are the same, F at alpha 1 is T.
                own = replace(expert, name="tuned")
                alone, alpha = replace(alone, base=expert.reference, experts=(own,)), 1.0
            title = f"{TUNED} ({expert.name})" if several else TUNED
            yield self._part("tuned", title, alone, alpha, n_ctx, number)

    def _references(self, entry: Entry, n_ctx: int | None) -> Iterator[Part]:
        """Every model that an expert was tuned from, once."""
        experts: dict[Source, Expert] = {}
        for expert in entry.experts:
            experts.setdefault(expert.reference, expert)
        for number, (source, expert) in enumerate(experts.items()):
            if self.is_chat:
                style = entry.style("reference")
                templates = {**entry.templates, "base": style, "reference": style}
                own = (replace(expert, name="tuned"),)
                alone = replace(entry, base=source, experts=own, templates=templates)
            else:
                alone = _single(entry, source, "template")
            title = f"reference alone ({expert.name})" if len(experts) > 1 else "reference alone"
            yield self._part("reference", title, alone, 0.0, n_ctx, number)

    def _part(
        self, role: str, title: str, entry: Entry, alpha: float, n_ctx: int | None, number: int = 0
    ) -> Part:
        """A system of an entry that is written for it; with its context and its sampler."""
        options = {**_without_fusing(self._said(entry)), "alpha": alpha}
        name = f"{role}-{number}"
        kept = _without_fusing(entry.options)
        entry = replace(_absolute(entry), name=name, aliases=(), options=kept, description="")
        path = self.folder / f"{name}.toml"
        path.write_text(format_entry(entry), encoding="utf-8")
        runtime = {**self.models.runtime, **({} if n_ctx is None else {"ctx": n_ctx})}
        return Part(role, System(title, Models(name, {}, path, runtime), options))


def named(entry: str | None, files: Mapping[str, Any], ceiling: str | None) -> dict[str, str]:
    """Which models the titles stand for, as settings of a report."""
    lists = {role: given if isinstance(given, list) else [given] for role, given in files.items()}
    texts = [f"{role} {' '.join(map(str, given))}" for role, given in lists.items()]
    ends = {} if ceiling is None else {"ceiling": ceiling}
    return {"models": ", ".join(texts) or entry or DEFAULT_ENTRY, **ends}


def _without_fusing(options: Mapping[str, Any]) -> dict[str, Any]:
    """Without what means nothing to one model."""
    return {k: v for k, v in options.items() if option_name(k) not in _OF_FUSING}


def _single(entry: Entry, source: Source, style: str | Path) -> Entry:
    """An entry in which one file plays all roles, so that one context is enough."""
    templates = {} if style == "template" else dict.fromkeys(ROLES, style)
    return replace(
        entry,
        base=source,
        experts=(Expert("tuned", source, source),),
        prompt="shared",
        neutral="none",
        templates=templates,
    )


def _absolute(entry: Entry) -> Entry:
    """The entry with whole paths, because relative ones count from the file of an entry."""

    def whole(source: Source) -> Source:
        return replace(source, path=source.path.absolute()) if source.path else source

    experts = tuple(
        replace(expert, tuned=whole(expert.tuned), reference=whole(expert.reference))
        for expert in entry.experts
    )
    return replace(entry, base=whole(entry.base), experts=experts)
