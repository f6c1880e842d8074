"""models.toml -> entries; whatever is not understood is an error, never ignored."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..errors import RegistryError, UsageError
from ..experts import NAME_PATTERN, resolve_weights
from ..options import GenerationOptions, RuntimeOptions, option_name
from .entries import (
    EVIDENCE,
    HUB_FILE,
    NEUTRAL,
    PROMPTS,
    QUANT,
    REPOSITORY,
    ROLES,
    THINK,
    Entry,
    Expert,
    Registry,
    Source,
)
from .tables import Document, Table, dotted

PACKAGE = Path(__file__).resolve().parents[1]

ENTRY_NAME = r"(?!-)\S+"
"""What an entry or alias may be called: no blanks, and nothing that looks like an option."""

_RUNTIME = tuple(item.name for item in fields(RuntimeOptions))
_GENERATION = tuple(option_name(item.name) for item in fields(GenerationOptions))
_ABOUT = ("description", "aliases", "licence", "hardware", "memory")
_PROMPTS = ("prompt", "why", "templates", "neutral", "think")
_SOURCE_FORM = '{ path = "..." } or { hf = "user/repository", file = "name.gguf" }'
_LORA_FORM = f'"..." (a path), {_SOURCE_FORM}'
_STYLE_FORM = 'plain, template, or { path = "template.jinja" }'


def load_registry(user_file: Path | None = None) -> Registry:
    """Read the shipped entries and the user's own, which win where names are equal.

    Args:
        user_file: a models.toml; by default the one that `find_user_file` finds.

    Raises:
        RegistryError: for a file that cannot be read or is not understood; names file, line, key.
    """
    file = user_file.expanduser() if user_file else find_user_file()
    # A file that was named has to be there; the usual one need not.
    if user_file is None and not os.environ.get("EFTLOCAL_MODELS") and not file.is_file():
        return Registry(shipped_entries())
    users = read_entries(file)
    others = {name: item for name, item in shipped_entries().items() if name not in users}
    return Registry(users | others, file, frozenset(users))


def find_user_file() -> Path:
    """Where the user's entries stand, or would stand: the file need not exist.

    EFTLOCAL_MODELS names it; else it is eftlocal/models.toml in XDG_CONFIG_HOME (~/.config).
    """
    if named := os.environ.get("EFTLOCAL_MODELS"):
        return Path(named).expanduser()
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(config, "eftlocal", "models.toml")


def read_entries(file: Path, folder: Path | None = None) -> dict[str, Entry]:
    """Read one models.toml; relative paths count from `folder`, by default the file's own.

    Raises:
        RegistryError: for a file that cannot be read or is not understood; names file, line, key.
    """
    return parse_entries(read_text(file), file, folder)


def read_text(file: Path) -> str:
    """The text of a models.toml, with the ends of its lines as they are.

    Raises:
        RegistryError: where it cannot be read.
    """
    try:
        return file.read_bytes().decode("utf-8")
    except OSError as error:
        raise RegistryError(f"{file}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RegistryError(f"{file}: not valid TOML: it is not UTF-8 text") from error


def parse_toml(text: str, file: Path) -> dict[str, Any]:
    """The content of a TOML text that was read from `file`.

    Raises:
        RegistryError: where it is not TOML; names the line.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{file}: not valid TOML: {error}") from error


def parse_entries(text: str, file: Path, folder: Path | None = None) -> dict[str, Entry]:
    """As `read_entries`, of a text that stands in `file`, or is to be written there."""
    top = Table(parse_toml(text, file), Document(file, text))
    models = top.table("models")
    top.finish("models")
    folder = (file.parent if folder is None else folder).absolute()
    entries = {name: _entry(name, models.table(name), folder) for name in models.content}
    _check_aliases(entries, models)
    return entries


def shipped_entries() -> dict[str, Entry]:
    """The entries of the package (wheel), or beside it (sources and editable installs)."""
    inside = PACKAGE / "models.toml"
    return read_entries(inside if inside.exists() else PACKAGE.parent / "models.toml", PACKAGE)


def _check_aliases(entries: Mapping[str, Entry], models: Table) -> None:
    """Within one file a name has one meaning."""
    taken = {name: name for name in entries}
    for name, entry in entries.items():
        for alias in entry.aliases:
            if alias in taken:
                problem = f"{alias!r} names the entry {taken[alias]} already; use another alias"
                models.table(name).fail("aliases", problem)
            taken[alias] = name


def _entry(name: str, table: Table, folder: Path) -> Entry:
    entry = _described(name, table, folder)
    roles = ("experts",) if "experts" in table.content else ("tuned", "reference")
    own = (*_ABOUT, "base", *roles, *_PROMPTS, "idle_timeout", "sampling")
    table.finish(*own, *_RUNTIME, *_GENERATION)
    try:
        names = [expert.name for expert in entry.experts]
        resolve_weights(names, GenerationOptions().updated(entry.options))
    except UsageError as error:
        key = _named_option(error)
        in_entry = key in table.content or "sampling" not in table.content
        at = (*table.path, key) if in_entry else (*table.path, "sampling", key)
        table.document.fail(table.path, str(error), at)
    return entry


def _described(name: str, table: Table, folder: Path) -> Entry:
    """The entry as its keys say; the keys themselves are checked by `_entry`."""
    if not re.fullmatch(ENTRY_NAME, name):
        table.document.fail(table.path, f"{name!r} is not allowed; use a name without blanks")
    runtime = {key: value for key, value in table.content.items() if key in _RUNTIME}
    _check_options(RuntimeOptions(), runtime, table)
    prompt = table.text("prompt", " or ".join(PROMPTS), "|".join(PROMPTS)) or PROMPTS[0]
    neutral = table.text("neutral", " or ".join(NEUTRAL), "|".join(NEUTRAL))
    think = table.text("think", ", ".join(THINK), "|".join(THINK))
    timeout = table.number("idle_timeout", "seconds, or 0 for never", 0, 1e9)
    entry = Entry(
        name=name,
        base=_source(table, "base", folder),
        experts=_experts(table, folder),
        description=_line(table, "description"),
        prompt=prompt,
        runtime=runtime,
        options=_generation_options(table),
        aliases=table.texts("aliases", "a list of names without blanks", ENTRY_NAME),
        licence=_line(table, "licence"),
        hardware=_line(table, "hardware"),
        memory=table.count("memory", "a number of bytes"),
        why=_line(table, "why"),
        templates=_templates(table, folder),
        idle_timeout=float(timeout or 0),
        think=think or "dim",
    )
    usual = "control" if entry.style("base") == "plain" else "none"
    return replace(entry, neutral=neutral or usual)


def _line(table: Table, key: str) -> str:
    return table.text(key, "a line of text", r"[^\r\n]+") or ""


def _templates(table: Table, folder: Path) -> dict[str, str | Path]:
    """Role -> how its prompt is written, see `Entry.style`."""
    if "templates" not in table.content:
        return {}
    inner = table.table("templates", f"a table: role = {_STYLE_FORM}")
    inner.finish(*ROLES)
    styles: dict[str, str | Path] = {}
    for role, style in inner.content.items():
        if isinstance(style, dict):
            form = inner.table(role)
            path = form.text("path", "the path of a Jinja template")
            form.finish("path")
            if path is None:
                inner.fail(role, f"path missing; use {_STYLE_FORM}")
            styles[role] = folder / Path(path).expanduser()
        else:
            styles[role] = inner.text(role, _STYLE_FORM, "plain|template") or ""
    return styles


def _generation_options(table: Table) -> dict[str, Any]:
    """Options in the entry itself and in its table `sampling`, each in one place only."""
    options = {key: value for key, value in table.content.items() if key in _GENERATION}
    _check_options(GenerationOptions(), options, table)
    if "sampling" in table.content:
        sampling = table.table("sampling", "a table of sampling options")
        sampling.finish(*_GENERATION)
        for key in sampling.content:
            if key in options:
                sampling.fail(key, f"also stands in {dotted(table.path)}; keep one of the two")
        _check_options(GenerationOptions(), sampling.content, sampling)
        options |= sampling.content
    if "logit_bias" in options:
        options["logit_bias"] = _token_keys(options["logit_bias"])
    return options


def _check_options(
    defaults: RuntimeOptions | GenerationOptions, given: dict[str, Any], table: Table
) -> None:
    if "logit_bias" in given:
        given = given | {"logit_bias": _token_keys(given["logit_bias"])}
    try:
        defaults.updated(given)
    except UsageError as error:
        table.document.fail(table.path, str(error), (*table.path, _named_option(error)))


def _named_option(error: UsageError) -> str:
    """The option that a message is about; all begin with its name."""
    return str(error).split(maxsplit=1)[0]


def _token_keys(bias: Any) -> Any:
    """TOML's keys are strings; token ids are not. What is no table is left to be rejected."""
    if not isinstance(bias, dict):
        return bias
    return {int(key) if key.isdecimal() else key: value for key, value in bias.items()}


def _experts(table: Table, folder: Path) -> tuple[Expert, ...]:
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
        inner = Table(item, table.document, (*table.path, "experts", i))
        name = inner.text("name", "a name without blanks and =", NAME_PATTERN)
        if name is None:
            inner.fail("name", "missing; experts in a list need names")
        if name in experts:
            inner.fail("name", f"{name!r} is the name of an expert above already")
        experts[name] = _expert(name, inner, folder)
        inner.finish("name", "tuned", "reference")
    return tuple(experts.values())


def _expert(name: str, table: Table, folder: Path) -> Expert:
    tuned = table.content.get("tuned")
    if isinstance(tuned, dict) and ("lora" in tuned or "scale" in tuned):
        return Expert(
            name, _adapter(table.table("tuned"), folder), _source(table, "reference", folder)
        )
    return Expert(name, _source(table, "tuned", folder), _source(table, "reference", folder))


def _adapter(table: Table, folder: Path) -> Source:
    """The form `{ lora = ..., scale = 1.0 }` of a tuned model."""
    scale = table.number("scale", "a number (-1000 to 1000)", -1000, 1000)
    lora = table.content.get("lora")
    if isinstance(lora, str) and lora:
        source = Source(path=folder / Path(lora).expanduser())
    elif isinstance(lora, dict):
        source = _source(table, "lora", folder)
    else:
        found = "missing" if lora is None else f"{lora!r} is not allowed"
        table.fail("lora", f"{found}; use {_LORA_FORM}")
    table.finish("lora", "scale")
    return replace(source, scale=1.0 if scale is None else float(scale))


def _source(parent: Table, role: str, folder: Path) -> Source:
    table = parent.table(role, _SOURCE_FORM)
    sha256 = table.text("sha256", "64 hexadecimal digits", "[0-9a-f]{64}")
    if "path" in table.content:
        path = table.text("path", "the path of a GGUF file")
        table.finish("path", "sha256")
        return Source(path=folder / Path(path or "").expanduser(), sha256=sha256)
    source = Source(
        hf=table.text("hf", "user/repository", f"(?a:{REPOSITORY})"),
        file=table.text("file", "the name of a file in the repository", HUB_FILE),
        evidence=table.text("evidence", " or ".join(EVIDENCE), "|".join(EVIDENCE)),
        sha256=sha256,
        size=table.count("size", "a number of bytes"),
        revision=table.text("revision", "a branch, tag or commit", r"[\w./-]+"),
        quant=table.text("quant", "a quantization such as Q4_K_M", f"(?a:{QUANT})"),
    )
    table.finish("path", "hf", "file", "quant", "evidence", "sha256", "size", "revision")
    if source.file and source.quant:
        table.fail("quant", "stands beside file; use one of the two")
    if source.hf is None or not (source.file or source.quant):
        missing = "file" if source.hf else "hf" if source.file else "path, or hf and file"
        table.document.fail(table.path, f"{missing} missing; use {_SOURCE_FORM}")
    return source
