"""What models.toml says, as frozen dataclasses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ..errors import RegistryError, UsageError
from ..experts import expert_names, references_for

PROMPTS = ("shared", "tuned-only")
NEUTRAL = ("control", "none")
EVIDENCE = ("seen", "inferred")
THINK = ("show", "dim", "hide")
ROLES = ("base", "tuned", "reference")
DEFAULT_ENTRY = "atlas"
"""The entry that is taken where none is named."""

DEFAULT_QUANT = "Q4_K_M"
"""The quantization that is taken where a repository is named without one, as llama.cpp does."""

REPOSITORY = r"[\w.-]+/[\w.-]+"
QUANT = r"[\w.-]+"
HUB_FILE = r"(?!/)(?!.*\.\.)[^\\\r\n:]+"
_HUB = re.compile(rf"hf:({REPOSITORY})(?::({QUANT})|/({HUB_FILE}))?", re.ASCII)
HUB_FORMS = "hf:user/repository, hf:user/repository:QUANT or hf:user/repository/file.gguf"


@dataclass(frozen=True, slots=True)
class Source:
    """Where one model file is: `path`; or `hf` with either `file` or `quant`.

    Attributes:
        path: a file on this machine; whether it exists is found out when it is loaded.
        hf: a repository of the Hugging Face hub.
        file: the name of the file in it, the first one where it comes in shards; None where
            only the quantization is known, until `hub.find_file` has asked the hub.
        evidence: how repository and name are known: "seen" in public pages, or "inferred".
        sha256: of the file, 64 hexadecimal digits.
        scale: multiplier of a LoRA adapter on the reference; None is a file that says itself
            whether it is an adapter (of scale 1).
        size: bytes, often rounded to three digits; for lists and plans, never to check a file.
        revision: a branch, tag or commit of the repository; None is its main branch.
        quant: the name of a quantization such as "Q4_K_M", where `file` is None.
    """

    path: Path | None = None
    hf: str | None = None
    file: str | None = None
    evidence: str | None = None
    sha256: str | None = None
    scale: float | None = None
    size: int | None = None
    revision: str | None = None
    quant: str | None = None

    def __str__(self) -> str:
        """The path, or repository and file, as a user would write it."""
        if self.path is not None:
            return str(self.path)
        return f"{self.hf}/{self.file}" if self.file else f"{self.hf}:{self.quant}"

    @property
    def label(self) -> str:
        """The name alone: of the file, or repository and quantization."""
        if self.path is not None:
            return self.path.name
        name = self.file or f"{self.hf}:{self.quant}"
        return name.rpartition("/")[2]

    @classmethod
    def parse(cls, text: str | Path) -> Self:
        """Read what a user wrote: a path, or one of `HUB_FORMS`.

        Raises:
            UsageError: for an empty text, or one that begins with hf: and has none of the forms.
        """
        if isinstance(text, Path) or not text.startswith("hf:"):
            if not str(text):
                raise UsageError(f"an empty file name; give the path of a GGUF, or {HUB_FORMS}")
            return cls(path=Path(text).expanduser())
        found = _HUB.fullmatch(text)
        if found is None:
            raise UsageError(f"{text!r} is not {HUB_FORMS}")
        hf, quant, file = found.groups()
        return cls(hf=hf, file=file, quant=None if file else quant or DEFAULT_QUANT)


@dataclass(frozen=True, slots=True)
class Expert:
    """A fine-tuned model, or an adapter (`Source.scale`), and the model it was tuned from."""

    name: str
    tuned: Source
    reference: Source


@dataclass(frozen=True, slots=True)
class Entry:
    """One named combination of models.

    Attributes:
        name: what `-m` and the Python API call it.
        base: the model whose pre-training is kept.
        experts: at least one.
        description: one line for lists.
        prompt: "shared" or "tuned-only": which models get the tuned model's chat template.
        neutral: "control" lets tuned models alone decide on control and end tokens; or "none".
        runtime: the fields of `RuntimeOptions` that it sets.
        options: the fields of `GenerationOptions` that it sets.
        aliases: other names of it.
        licence: of its files, in a few words.
        hardware: what it suits, such as "8 GB GPU".
        memory: bytes of its weights and its KV caches, where that is known; otherwise None.
        why: the reason of its prompt style.
        templates: role -> "plain", "template" (the chat template in the tuned model's file) or a
            Jinja file; only for roles that differ from what `prompt` says. See `style`.
        idle_timeout: a server unloads it after so many seconds without a request; 0 is never.
        think: what a terminal does with <think> blocks: "show", "dim" or "hide".
    """

    name: str
    base: Source
    experts: tuple[Expert, ...]
    description: str = ""
    prompt: str = "shared"
    neutral: str = "none"
    runtime: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    licence: str = ""
    hardware: str = ""
    memory: int | None = None
    why: str = ""
    templates: Mapping[str, str | Path] = field(default_factory=dict)
    idle_timeout: float = 0.0
    think: str = "dim"

    @classmethod
    def from_files(
        cls, base: str | Path, tuned: Sequence[str | Path], reference: Sequence[str | Path]
    ) -> Self:
        """The entry made of given files, named as its base; each is read by `Source.parse`.

        There is one reference per tuned file, or one for all; `experts.expert_names` names them.

        Raises:
            UsageError: where the files do not go together.
        """
        references = references_for(list(map(str, tuned)), list(map(str, reference)))
        experts = tuple(
            Expert(name, Source.parse(own), Source.parse(other))
            for name, own, other in zip(expert_names(tuned), tuned, references, strict=True)
        )
        source = Source.parse(base)
        return cls(source.label, base=source, experts=experts)

    def style(self, role: str) -> str | Path:
        """How the prompt of a role is written: "template", "plain" or a Jinja file.

        Where `prompt` is "shared", base and reference follow the tuned model.
        """
        if role in self.templates:
            return self.templates[role]
        if role == "tuned":
            return "template"
        return "plain" if self.prompt == "tuned-only" else self.style("tuned")

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Every role and its source: "base", "tuned", "reference"; or "math tuned", ..."""
        yield "base", self.base
        for expert in self.experts:
            prefix = f"{expert.name} " if len(self.experts) > 1 else ""
            yield f"{prefix}tuned", expert.tuned
            yield f"{prefix}reference", expert.reference


@dataclass(frozen=True, slots=True)
class Registry:
    """All model entries by name: those of the user's file, then those that are shipped.

    Attributes:
        entries: name -> entry.
        user_file: the file that the user's entries were read from, None where there is none.
        own: names of the entries in it.
    """

    entries: Mapping[str, Entry]
    user_file: Path | None = None
    own: frozenset[str] = frozenset()

    def find(self, name: str) -> Entry:
        """Return the entry of that name or alias; names win over aliases.

        Raises:
            RegistryError: where there is none; names those that look alike.
        """
        if name in self.entries:
            return self.entries[name]
        aliases: dict[str, Entry] = {}
        for entry in self.entries.values():
            for alias in entry.aliases:
                aliases.setdefault(alias, entry)
        if name in aliases:
            return aliases[name]
        alike = difflib.get_close_matches(name, [*self.entries, *aliases])
        hint = f"did you mean {' or '.join(alike)}? " if alike else ""
        known = ", ".join(self.entries)
        raise RegistryError(f"no model entry is called {name!r}; {hint}entries: {known}")
