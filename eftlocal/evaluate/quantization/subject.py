"""What is quantized, and on which texts that is looked at."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import EftlocalError, UsageError
from ...gguf import read_model
from ...llama import is_adapter
from ...llama.library import llama_cpp_version
from ...llama.quantizing import Packing, nominal_bits, quantize, type_named
from ...loading import locate
from ...registry import ROLES
from ...textfiles import filled_lines, json_value, read_text
from ..answering import Conversation, ask
from ..measures import thinned
from ..questions import Question
from ..store import Store, digest, file_digest
from ..study import Setting
from ..systems import Models, family
from . import offgrid

PAIRED = "tuned and reference"
PARTS: Mapping[str, tuple[str, ...]] = {
    **{role: (role,) for role in ROLES},
    PAIRED: ("tuned", "reference"),
    "all three": ROLES,
}
"""What a table calls it -> the roles that are quantized together."""

_FEWER_BITS = 1.06
"""A quantization is tried where the file has so many times its bits, or more."""
_TEXTS = 25
_ABANDONED_SECONDS = 24 * 3600
"""Longer than a model is scored."""
_LENT = ".lent.gguf"


@dataclass(frozen=True)
class Subject:
    """Models, quantizations of them, and texts.

    Attributes:
        models: one expert; no adapter.
        prompts: conversations; the greedy replies of the models as they are count, token by
            token.
        texts: taken as they are, from their second token on.
        clusters: a name per prompt, then per text; those of one name stand or fall together.
            Empty: each has its own.
        types: what `llama.quantizing.type_named` takes, finest first.
        pure: see `llama.quantizing.quantize`.
        n_rows: tokens at most, of all texts. A row of logits has 4 bytes for each token of the
            vocabulary, and six times so much room on the disk is taken while the study runs.
        n_tokens: of one text, at most.
        judged: those types whose effect on replies to the family's questions is judged, too.
    """

    models: Models
    prompts: tuple[Conversation, ...] = ()
    texts: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    types: tuple[str, ...] = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M")
    pure: bool = False
    n_rows: int = 1000
    n_tokens: int = 64
    judged: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", tuple(dict.fromkeys(map(type_named, self.types))))
        if not (self.prompts or self.texts):
            raise UsageError("quantization is looked at on texts: give some, or prompts")
        if not self.types:
            raise UsageError("give at least one type to quantize to")
        if not 0 < self.n_tokens <= self.n_rows:
            raise UsageError(f"n_tokens = {self.n_tokens} is not allowed; use 1 to {self.n_rows}")

    def paths(self) -> Mapping[str, Path]:
        """Role -> file.

        Raises:
            UsageError: for several experts, or an adapter.
            EftlocalError: for files that are not there.
        """
        _, found = locate(self.models.entry, models=self.models.models, **self.models.files)
        if set(found) != set(ROLES):
            raise UsageError("quantization is studied with one expert: one tuned and one reference")
        if is_adapter(found["tuned"]):
            raise UsageError(f"{found['tuned']}: an adapter; only whole models are quantized")
        return found

    def quantized(self) -> Mapping[str, tuple[str, ...]]:
        """Type -> roles whose files have more bits than that; types without any are left out.

        Raises:
            UsageError: where nothing is left.
            EftlocalError: as `paths` does.
        """
        bits = {role: Packing.of(read_model(path)).bits for role, path in self.paths().items()}
        found = {
            name: tuple(role for role in ROLES if bits[role] > _FEWER_BITS * nominal_bits(name))
            for name in self.types
        }
        if not any(found.values()):
            raise UsageError(
                "the files have as few bits as these types already: give smaller types"
            )
        return {name: roles for name, roles in found.items() if roles}

    def thinned(self, every: int) -> Subject:
        """Every n-th prompt and text; of these as many as there is room for, evenly chosen."""
        n_prompts = len(self.prompts)
        places = range(n_prompts + len(self.texts))[::every]
        room = min(len(places), self.n_rows // self.n_tokens)
        kept = [places[i * len(places) // room] for i in range(room)]
        return replace(
            self,
            prompts=tuple(self.prompts[i] for i in kept if i < n_prompts),
            texts=tuple(self.texts[i - n_prompts] for i in kept if i >= n_prompts),
            clusters=tuple(self.clusters[i] for i in kept) if self.clusters else (),
        )


def parts_of(roles: tuple[str, ...]) -> list[str]:
    """The members of `PARTS` whose roles are all there."""
    return [part for part, wanted in PARTS.items() if set(wanted) <= set(roles)]


@dataclass(frozen=True)
class Folder:
    """Where files that are made lie; one is named by all that its content depends on."""

    path: Path

    @classmethod
    def of(cls, store: Store) -> Folder:
        """The folder below a store's."""
        return cls(store.folder / "quantized")

    def quantize(self, source: Path, name: str, pure: bool) -> Path:
        """A quantization of a file, made where it is not there yet.

        Raises:
            EftlocalError: as `llama.quantizing.quantize` does.
        """
        made = self._file(file_digest(source), name, pure)
        if not made.exists():
            self._tidy()
            quantize(source, made, name, pure=pure)
        return made

    @contextmanager
    def lent(self, source: Path, name: str, pure: bool) -> Iterator[tuple[Path, Packing]]:
        """A quantization that is there for the length of the block, and nobody else's.

        Raises:
            EftlocalError: as `llama.quantizing.quantize` does.
        """
        shared = self._file(file_digest(source), name, pure)
        own = shared.with_name(f"{shared.stem}.{os.getpid()}.{secrets.token_hex(4)}{_LENT}")
        self._tidy()
        try:
            yield own, quantize(source, own, name, pure=pure)
        finally:
            own.unlink(missing_ok=True)

    def off_grid(self, source: Path, seed: int) -> Path:
        """A model of the embedded family as 32-bit floats.

        Raises:
            EftlocalError: as `offgrid.unpack_off_grid` does.
        """
        made = self._file(file_digest(source), "off grid", offgrid.VERSION, seed)
        if not made.exists():
            offgrid.unpack_off_grid(source, made, seed)
        return made

    def _tidy(self) -> None:
        """Remove what processes that were killed have left: files that nobody wrote to for long."""
        for part in (*self.path.glob(".*.part"), *self.path.glob(f"*{_LENT}")):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                    part.unlink()

    def _file(self, *content: object) -> Path:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EftlocalError(f"cannot use {self.path}: {error.strerror or error}") from None
        return self.path / f"{digest([llama_cpp_version, *content])}.gguf"


def embedded(setting: Setting, n_draws: int) -> tuple[Subject, ...]:
    """The embedded family's three models off their grid and some of its questions, several times.

    Each draw computes the same and is rounded otherwise when it is quantized: what one model loses
    by chance shows in how far the draws differ.
    """
    packaged = family("large", "small-chat")
    questions = thinned("questions.jsonl", Question, setting)
    questions = questions[:: max(1, len(questions) // _TEXTS)]
    given = {
        "base": packaged.files["base"],
        "tuned": packaged.files["tuned"][0],
        "reference": packaged.files["reference"][0],
    }
    folder = Folder.of(setting.store)
    subjects = []
    for seed in range(n_draws):
        files = {role: folder.off_grid(file, seed) for role, file in given.items()}
        subject = Subject(
            replace(packaged, files=files),
            prompts=tuple(ask(question.question) for question in questions),
            clusters=tuple(f"{question.subject}/{question.entity}" for question in questions),
            types=("F16", "Q8_0", "Q5_1", "Q5_0", "Q4_0", "IQ4_NL"),
            pure=True,
            n_rows=64 * len(questions),
            judged=("Q8_0", "Q4_0"),
        )
        subjects.append(subject)
    return tuple(subjects)


def read_texts(path: Path) -> tuple[str, ...]:
    """Texts of a file: one per line, or with the ending .jsonl one JSON value per line.

    A JSON value is a string, or an object with "text", "prompt" or "question".

    Raises:
        UsageError: where the file cannot be read or a line is none of these.
    """
    filled = filled_lines(read_text(path))
    if path.suffix != ".jsonl":
        return tuple(line for _, line in filled)
    return tuple(_text(line, f"{path}, line {number}") for number, line in filled)


def _text(line: str, place: str) -> str:
    try:
        value = json_value(line)
    except ValueError as error:
        raise UsageError(f"{place}: not JSON ({error})") from None
    if isinstance(value, dict):
        value = next((value[key] for key in ("text", "prompt", "question") if key in value), None)
    if not isinstance(value, str):
        raise UsageError(f'{place}: neither a string nor an object with "text" or "prompt"')
    return value
