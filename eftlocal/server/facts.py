"""What the files of a model entry say of themselves, found out without loading them."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .. import hub
from ..errors import EftlocalError
from ..gguf import Header, read_model
from ..reasoning import OPEN
from ..registry import Entry

_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
"""llama.cpp's `llama_ftype`, which is the metadata key general.file_type."""

_LARGEST_METADATA = 1000
"""Characters of a metadata text that are shown."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One file, or the shards of one model.

    Attributes:
        name: of the file, without folders.
        family: the architecture, such as "llama".
        parameters: how many.
        quantization: such as "Q4_K_M".
        n_bytes: of the file.
        metadata: its single values; no lists, no template.
    """

    name: str
    family: str
    parameters: int
    quantization: str
    n_bytes: int
    metadata: Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Facts:
    """An entry's files.

    Attributes:
        models: role -> what its file says; only files that are there and can be read.
        template: the chat template; "" where there is none.
        modified: time.time of the youngest file; 0 where none is there.
        n_bytes: of all files, each once.
        digest: 64 hexadecimal digits that change with the files; no hash of their contents.
    """

    models: Mapping[str, ModelFacts] = field(default_factory=dict)
    template: str = ""
    modified: float = 0.0
    n_bytes: int = 0
    digest: str = ""

    @property
    def base(self) -> ModelFacts | None:
        """The base, which is what the entry counts as."""
        return self.models.get("base")

    @property
    def can_think(self) -> bool:
        """Whether the template knows <think> blocks."""
        return OPEN in self.template

    @property
    def has_tools(self) -> bool:
        """Whether the template shows tools to the model."""
        return "tools" in self.template


class FactsReader:
    """Reads an entry's facts, again only where its files changed; any thread may call it.

    Args:
        entry: files of it may be missing.
    """

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._lock = threading.Lock()
        self._key: object = None
        self._facts = Facts()

    def read(self) -> Facts:
        """What the files say now."""
        with self._lock:
            paths = {role: hub.find_local(source) for role, source in self._entry.sources()}
            states = {path: _state(path) for path in paths.values() if path is not None}
            key = (tuple(paths.items()), tuple(states.items()))
            if key != self._key:
                self._key, self._facts = key, self._gather(paths, states)
            return self._facts

    def _gather(
        self, paths: Mapping[str, Path | None], states: Mapping[Path, tuple[int, float]]
    ) -> Facts:
        headers: dict[Path, Header] = {}
        for path in states:
            try:
                headers[path] = read_model(path)
            except EftlocalError:
                continue
        models = {
            role: _model(path.name, headers[path])
            for role, path in paths.items()
            if path in headers and path is not None
        }
        told = repr((self._entry.name, sorted((p.name, *state) for p, state in states.items())))
        return Facts(
            models=models,
            template=self._template(paths, headers),
            modified=max((changed for _, changed in states.values()), default=0.0),
            n_bytes=sum(header.n_bytes for header in headers.values()),
            digest=hashlib.sha256(told.encode("utf-8", "replace")).hexdigest(),
        )

    def _template(self, paths: Mapping[str, Path | None], headers: Mapping[Path, Header]) -> str:
        """The template of the first tuned model, or for an adapter that of its reference."""
        style = self._entry.style("tuned")
        if isinstance(style, Path):
            try:
                return style.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                return ""
        found = (
            headers[path]
            for role, path in paths.items()
            if path in headers and path is not None and role != "base"
        )
        own = (header for header in found if not header.is_adapter)
        first = next(own, None) if style == "template" else None
        return first.text("tokenizer.chat_template") if first else ""


def _state(path: Path) -> tuple[int, float]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0.0
    return found.st_size, found.st_mtime


def _model(name: str, header: Header) -> ModelFacts:
    sizes: Counter[str] = Counter()
    for tensor in header.tensors:
        sizes[tensor.type] += tensor.n_bytes
    stated = header.metadata.get("general.file_type")
    named = _FILE_TYPES.get(stated.value) if stated and isinstance(stated.value, int) else None
    metadata = {
        key: value.value
        for key, value in header.metadata.items()
        if (isinstance(value.value, int | float) and math.isfinite(value.value))
        or (isinstance(value.value, str) and len(value.value) <= _LARGEST_METADATA)
    }
    metadata.pop("tokenizer.chat_template", None)
    return ModelFacts(
        name=name,
        family=header.architecture,
        parameters=sum(math.prod(tensor.shape) for tensor in header.tensors),
        quantization=named or (sizes.most_common(1)[0][0] if sizes else ""),
        n_bytes=header.n_bytes,
        metadata=metadata,
    )
