"""Whether a model entry can work here, found out without loading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import hub
from ..errors import ModelFileError, VocabularyMismatch
from ..gguf import (
    VOCABULARY_KEYS,
    Header,
    check_headers,
    check_sane,
    read_model,
    real_path,
)
from ..llama.library import has_amx
from ..memory import Device, Need, Plan, can_rewind, need, plan
from ..options import RuntimeOptions
from ..registry import Entry


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot work, or works badly.

    Attributes:
        text: what it is, one line.
        advice: what to do, one line.
        is_fatal: whether the entry cannot work as it is.
    """

    text: str
    advice: str
    is_fatal: bool = True


@dataclass(frozen=True, slots=True)
class EntryReport:
    """What was found out about one entry; None is not known, because files are missing or bad.

    Attributes:
        missing: role -> the file that is not there.
        problems: of the entry; a file of the hub that is not downloaded is none by itself.
        n_tokens: of the common vocabulary.
        need: in memory.
        plan: what goes where.
        can_draft: whether all caches can take tokens back.
    """

    name: str
    missing: dict[str, str]
    problems: tuple[Problem, ...]
    n_tokens: int | None = None
    need: Need | None = None
    plan: Plan | None = None
    can_draft: bool | None = None

    @property
    def works(self) -> bool:
        """Whether its files are there and nothing is known to be in the way."""
        return not self.missing and not any(problem.is_fatal for problem in self.problems)


def check_entry(
    entry: Entry,
    devices: Sequence[Device],
    runtime: RuntimeOptions,
    asked: bool = False,
    is_made: bool = False,
) -> EntryReport:
    """Look at an entry's files: are they there, whole, of one vocabulary, and do they fit.

    Args:
        entry: of the registry, or made of files.
        devices: RAM and GPUs.
        runtime: how it would be loaded.
        asked: it was named, so that files that are not downloaded are a problem, too.
        is_made: it was made of files, so that its name is no name of an entry.
    """
    paths: dict[str, Path] = {}
    missing: dict[str, str] = {}
    problems: list[Problem] = []
    for role, source in entry.sources():
        found = hub.find_local(source)
        if found is not None:
            paths[role] = real_path(found) if source.path else found
            continue
        missing[role] = str(source)
        if source.path is not None:
            advice = "put the file there, or give its path in models.toml"
            problems.append(Problem(f"{role}: {source.path}: no such file", advice))
        elif asked:
            advice = f"eftlocal pull {f'hf:{source}' if is_made else entry.name}"
            problems.append(Problem(f"{role}: {source} is not downloaded", advice))
    headers: dict[str, Header] = {}
    read: dict[Path, Header] = {}
    for role, path in paths.items():
        try:
            if path not in read:
                read[path] = read_model(path, keep=VOCABULARY_KEYS)
                check_sane(read[path])
            headers[role] = read[path]
        except ModelFileError as error:
            advice = "get the file again (eftlocal verify compares it with the hub's)"
            problems.append(Problem(f"{role}: {error}", advice))
    if missing or len(headers) < len(paths):
        return EntryReport(entry.name, missing, tuple(problems))
    return _check_headers(entry, headers, devices, runtime, problems)


def _check_headers(
    entry: Entry,
    headers: dict[str, Header],
    devices: Sequence[Device],
    runtime: RuntimeOptions,
    problems: list[Problem],
) -> EntryReport:
    """The part of `check_entry` for which all files are there."""
    models = {role: header for role, header in headers.items() if not header.is_adapter}
    for role in headers.keys() - models.keys():
        if not role.endswith("tuned"):
            text = f"{role}: {headers[role].name} is an adapter, not a whole model"
            problems.append(
                Problem(text, "give the model that it belongs to; only tuned can be one")
            )
            return EntryReport(entry.name, {}, tuple(problems))
    n_tokens = None
    try:
        n_tokens = check_headers(models.values())
    except (ModelFileError, VocabularyMismatch) as error:
        advice = "take base, tuned and reference from one model family"
        problems.append(Problem(str(error), advice))
    styles = {role: entry.style(role.rpartition(" ")[2]) for role in headers}
    wanted = need(headers, runtime, styles, repacks=not has_amx())
    planned = plan(wanted, devices)
    if not planned.fits:
        problems.append(Problem("it does not fit into the memory that is free now", planned.advice))
    if 0 < wanted.n_ctx_train < wanted.ctx:
        text = f"ctx = {wanted.ctx:,} is more than the models were trained for"
        advice = f"use --ctx {wanted.n_ctx_train} or less: replies may get worse beyond it"
        problems.append(Problem(text, advice, is_fatal=False))
    can_draft = all(map(can_rewind, models.values()))
    if not can_draft:
        problems.append(
            Problem(
                "a model of it cannot take tokens back, so nothing can be drafted",
                "nothing to do: it works with one token at a time",
                is_fatal=False,
            )
        )
    return EntryReport(entry.name, {}, tuple(problems), n_tokens, wanted, planned, can_draft)
