"""models.toml -> frozen dataclasses; whatever is not understood is an error, never ignored."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from .errors import RegistryError, UsageError
from .experts import NAME_PATTERN, resolve_weights
from .options import GenerationOptions, RuntimeOptions, option_name

PACKAGE = Path(__file__).resolve().parent
PROMPTS = ("shared", "tuned-only")
NEUTRAL = ("control", "none")
EVIDENCE = ("seen", "inferred")
DEFAULT_ENTRY = "atlas"
"""The entry that is taken where none is named."""

_RUNTIME = tuple(item.name for item in fields(RuntimeOptions))
_GENERATION = tuple(option_name(item.name) for item in fields(GenerationOptions))
_SOURCE_FORM = '{ path = "..." } or { hf = "user/repository", file = "name.gguf" }'
_LORA_FORM = f'"..." (a path), {_SOURCE_FORM}'


@dataclass(frozen=True, slots=True)
class Source:
    """Where one model file is: `path`, or `hf` and `file`.

    Attributes:
        path: a file on this machine; whether it exists is found out when it is loaded.
        hf: a repository of the Hugging Face hub.
        file: the name of the file in it.
        evidence: how repository and name are known: "seen" in public pages, or "inferred".
        sha256: of the file, 64 hexadecimal digits.
        scale: multiplier of a LoRA adapter on the reference; None is a file that says itself
            whether it is an adapter (of scale 1).
    """

    path: Path | None = None
    hf: str | None = None
    file: str | None = None
    evidence: str | None = None
    sha256: str | None = None
    scale: float | None = None

    def __str__(self) -> str:
        """The path, or repository and file, as a user would write it."""
        return f"{self.hf}/{self.file}" if self.path is None else str(self.path)


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
    """

    name: str
    base: Source
    experts: tuple[Expert, ...]
    description: str = ""
    prompt: str = "shared"
    neutral: str = "none"
    runtime: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Registry:
    """All model entries by name: those of the user's file, then those that are shipped."""

    entries: Mapping[str, Entry]

    def find(self, name: str) -> Entry:
        """Return the entry of that name.

        Raises:
            RegistryError: where there is none; names those that look alike.
        """
        if name in self.entries:
            return self.entries[name]
        alike = difflib.get_close_matches(name, self.entries)
        hint = f"did you mean {' or '.join(alike)}? " if alike else ""
        known = ", ".join(self.entries)
        raise RegistryError(f"no model entry is called {name!r}; {hint}entries: {known}")


def load_registry(user_file: Path | None = None) -> Registry:
    """Read the shipped entries and the user's own, which win where names are equal.

    Args:
        user_file: a models.toml; by default the one that EFTLOCAL_MODELS names, else
            eftlocal/models.toml in XDG_CONFIG_HOME (~/.config) where it exists.

    Raises:
        RegistryError: for a file that cannot be read or is not understood; names file and key.
    """
    own = user_file or _default_user_file()
    users = {} if own is None else read_entries(own.expanduser())
    return Registry(users | {k: v for k, v in _shipped_entries().items() if k not in users})


def read_entries(file: Path, folder: Path | None = None) -> dict[str, Entry]:
    """Read one models.toml; relative paths count from `folder`, by default the file's own.

    Raises:
        RegistryError: for a file that cannot be read or is not understood; names file and key.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RegistryError(f"{file}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RegistryError(f"{file}: not valid TOML: {error}") from error
    top = _Table(content, file)
    models = top.table("models")
    top.finish("models")
    folder = (file.parent if folder is None else folder).absolute()
    return {name: _entry(name, models.table(name), folder) for name in models.content}


def _shipped_entries() -> dict[str, Entry]:
    """Those in the package (wheel), or beside it (sources and editable installs)."""
    inside = PACKAGE / "models.toml"
    return read_entries(inside if inside.exists() else PACKAGE.parent / "models.toml", PACKAGE)


def _default_user_file() -> Path | None:
    if named := os.environ.get("EFTLOCAL_MODELS"):
        return Path(named)
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    found = Path(config, "eftlocal", "models.toml")
    return found if found.is_file() else None


@dataclass(frozen=True, slots=True)
class _Table:
    """A TOML table, the file that it stands in and the keys that lead to it."""

    content: dict[str, Any]
    file: Path
    keys: str = ""

    @property
    def place(self) -> str:
        """What error messages say of it."""
        return f"{self.file}: {self.keys}"

    def path_of(self, key: str) -> str:
        """The keys that lead to something in it."""
        return f"{self.keys}.{key}" if self.keys else key

    def fail(self, key: str, problem: str) -> NoReturn:
        """Report a problem with the value of a key."""
        raise RegistryError(f"{self.file}: {self.path_of(key)}: {problem}")

    def table(self, key: str, form: str = "a table") -> _Table:
        """The table under a key, which has to be there."""
        value = self.content.get(key)
        if value is None:
            self.fail(key, f"missing; it is {form}")
        if not isinstance(value, dict):
            self.fail(key, f"{value!r} is not allowed; it is {form}")
        return _Table(value, self.file, self.path_of(key))

    def text(self, key: str, allowed: str, pattern: str = r"(?s).+") -> str | None:
        """The string under a key, or None where the key is not there."""
        value = self.content.get(key)
        if value is not None and not (isinstance(value, str) and re.fullmatch(pattern, value)):
            self.fail(key, f"{value!r} is not allowed; use {allowed}")
        return value

    def finish(self, *known: str) -> None:
        """Reject keys that nobody asks for."""
        for key in self.content:
            if key not in known:
                alike = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {alike[0]}? " if alike else ""
                self.fail(key, f"unknown key; {hint}allowed: {', '.join(known)}")


def _entry(name: str, table: _Table, folder: Path) -> Entry:
    runtime = {key: value for key, value in table.content.items() if key in _RUNTIME}
    _check_options(RuntimeOptions(), runtime, table)
    prompt = table.text("prompt", " or ".join(PROMPTS), "|".join(PROMPTS)) or PROMPTS[0]
    neutral = table.text("neutral", " or ".join(NEUTRAL), "|".join(NEUTRAL))
    entry = Entry(
        name=name,
        base=_source(table, "base", folder),
        experts=_experts(table, folder),
        description=table.text("description", "a line of text") or "",
        prompt=prompt,
        neutral=neutral or ("control" if prompt == "tuned-only" else "none"),
        runtime=runtime,
        options=_generation_options(table),
    )
    roles = ("experts",) if "experts" in table.content else ("tuned", "reference")
    own = ("description", "base", *roles, "prompt", "neutral", "sampling")
    table.finish(*own, *_RUNTIME, *_GENERATION)
    try:
        names = [expert.name for expert in entry.experts]
        resolve_weights(names, GenerationOptions().updated(entry.options))
    except UsageError as error:
        raise RegistryError(f"{table.place}: {error}") from error
    return entry


def _generation_options(table: _Table) -> dict[str, Any]:
    """Options in the entry itself and in its table `sampling`, each in one place only."""
    options = {key: value for key, value in table.content.items() if key in _GENERATION}
    _check_options(GenerationOptions(), options, table)
    if "sampling" in table.content:
        sampling = table.table("sampling", "a table of sampling options")
        sampling.finish(*_GENERATION)
        for key in sampling.content:
            if key in options:
                sampling.fail(key, f"also stands in {table.keys}; keep one of the two")
        _check_options(GenerationOptions(), sampling.content, sampling)
        options |= sampling.content
    if "logit_bias" in options:
        options["logit_bias"] = _token_keys(options["logit_bias"])
    return options


def _check_options(
    defaults: RuntimeOptions | GenerationOptions, given: dict[str, Any], table: _Table
) -> None:
    if "logit_bias" in given:
        given = given | {"logit_bias": _token_keys(given["logit_bias"])}
    try:
        defaults.updated(given)
    except UsageError as error:
        raise RegistryError(f"{table.place}: {error}") from error


def _token_keys(bias: Any) -> Any:
    """TOML's keys are strings; token ids are not. What is no table is left to be rejected."""
    if not isinstance(bias, dict):
        return bias
    return {int(key) if key.isdecimal() else key: value for key, value in bias.items()}


def _experts(table: _Table, folder: Path) -> tuple[Expert, ...]:
    """The pair `tuned` and `reference`, or the list `experts`."""
    if "experts" not in table.content:
        return (_expert("tuned", table, folder),)
    for key in ("tuned", "reference"):
        if key in table.content:
            table.fail(key, "stands beside experts; use either tuned and reference, or experts")
    form = "a list of { name = ..., tuned = {...}, reference = {...} }"
    listed = table.content["experts"]
    if not (isinstance(listed, list) and listed and all(isinstance(item, dict) for item in listed)):
        table.fail("experts", f"{listed!r} is not allowed; use {form}")
    experts: dict[str, Expert] = {}
    for i, item in enumerate(listed):
        inner = _Table(item, table.file, table.path_of(f"experts[{i}]"))
        name = inner.text("name", "a name without blanks and =", NAME_PATTERN)
        if name is None:
            inner.fail("name", "missing; experts in a list need names")
        if name in experts:
            inner.fail("name", f"{name!r} is the name of an expert above already")
        experts[name] = _expert(name, inner, folder)
        inner.finish("name", "tuned", "reference")
    return tuple(experts.values())


def _expert(name: str, table: _Table, folder: Path) -> Expert:
    tuned = table.content.get("tuned")
    if isinstance(tuned, dict) and ("lora" in tuned or "scale" in tuned):
        return Expert(
            name, _adapter(table.table("tuned"), folder), _source(table, "reference", folder)
        )
    return Expert(name, _source(table, "tuned", folder), _source(table, "reference", folder))


def _adapter(table: _Table, folder: Path) -> Source:
    """The form `{ lora = ..., scale = 1.0 }` of a tuned model."""
    scale = table.content.get("scale", 1.0)
    is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not (is_number and -1000 <= scale <= 1000):
        table.fail("scale", f"{scale!r} is not allowed; use a number (-1000 to 1000)")
    lora = table.content.get("lora")
    if isinstance(lora, str) and lora:
        source = Source(path=folder / Path(lora).expanduser())
    elif isinstance(lora, dict):
        source = _source(table, "lora", folder)
    else:
        found = "missing" if lora is None else f"{lora!r} is not allowed"
        table.fail("lora", f"{found}; use {_LORA_FORM}")
    table.finish("lora", "scale")
    return replace(source, scale=float(scale))


def _source(parent: _Table, role: str, folder: Path) -> Source:
    table = parent.table(role, _SOURCE_FORM)
    if "path" in table.content:
        path = table.text("path", "the path of a GGUF file")
        table.finish("path")
        return Source(path=folder / Path(path or "").expanduser())
    source = Source(
        hf=table.text("hf", "user/repository", r"[\w.-]+/[\w.-]+"),
        file=table.text("file", "the name of a file in the repository"),
        evidence=table.text("evidence", " or ".join(EVIDENCE), "|".join(EVIDENCE)),
        sha256=table.text("sha256", "64 hexadecimal digits", "[0-9a-f]{64}"),
    )
    table.finish("path", "hf", "file", "evidence", "sha256")
    if source.hf is None or source.file is None:
        missing = "file" if source.hf else "hf" if source.file else "path, or hf and file"
        raise RegistryError(f"{table.place}: {missing} missing; use {_SOURCE_FORM}")
    return source
