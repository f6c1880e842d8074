"""The lines of a trace file as frozen dataclasses, to JSON and back; see `tracefile`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from reprlib import repr as brief
from typing import Any

from ..diagnostics import ORIGINS, ModelTrace, Trace
from ..errors import UsageError
from ..experts import resolve_weights
from ..options import GenerationOptions

FORMAT = "eftlocal-trace"
VERSION = 1

_LARGEST = 1e300  # Python's integers go further than floats
_DIVERGENCES = ("kl_fused_base", "kl_base_fused")
_EXPERT_DIVERGENCES = ("kl_tuned_reference", "kl_reference_tuned")


@dataclass(frozen=True, slots=True)
class Header:
    """What a reply was made with.

    Attributes:
        version: of eftlocal.
        model: name of the model entry, or of the base's file.
        files: role -> name of its file.
        experts: their names.
        options: name of a generation option, as on the command line -> value.
        prompt: the base's prompt as text, markers included.
        prompt_tokens: its ids.
    """

    version: str
    model: str
    files: Mapping[str, str]
    experts: tuple[str, ...]
    options: Mapping[str, Any]
    prompt: str
    prompt_tokens: tuple[int, ...]

    @property
    def generation_options(self) -> GenerationOptions:
        """The options as the engine had them.

        Raises:
            UsageError: for options that are not known or not allowed.
        """
        values = dict(self.options)
        bias = values.get("logit_bias")
        if isinstance(bias, dict) and all(str(token).isdecimal() for token in bias):
            values["logit_bias"] = {int(token): value for token, value in bias.items()}
        return GenerationOptions().updated(values)

    @property
    def weights(self) -> tuple[float, ...] | None:
        """One weight per expert; None where the user gave none."""
        return resolve_weights(self.experts, self.generation_options)

    def to_json(self) -> dict[str, Any]:
        """The header line."""
        content = asdict(self)
        return {"format": FORMAT, "version": VERSION, "eftlocal": content.pop("version"), **content}

    @classmethod
    def from_json(cls, content: object) -> Header:
        """A header line read back.

        Raises:
            UsageError: naming what is wrong with it.
        """
        line = _Line(content)
        if line.value("format") != FORMAT:
            raise UsageError(f'"format" is not {FORMAT}')
        if line.value("version") != VERSION:
            version = brief(line.value("version"))
            raise UsageError(f"it has version {version}, this eftlocal reads {VERSION}")
        options, files = line.table("options"), line.table("files")
        if not all(isinstance(name, str) for name in files.values()):
            raise UsageError('"files" are not names')
        header = cls(
            version=line.text("eftlocal"),
            model=line.text("model"),
            files=files,
            experts=tuple(map(_text, line.items("experts"))),
            options=options,
            prompt=line.text("prompt"),
            prompt_tokens=tuple(map(_count, line.items("prompt_tokens"))),
        )
        _ = header.weights
        return header


@dataclass(frozen=True, slots=True)
class TracedToken:
    """One token of a reply; fields as in `TokenEvent`, `index` counts from 0."""

    index: int
    token: int
    text: str
    logprob: float
    from_draft: bool
    finish_reason: str | None
    trace: Trace

    def to_json(self) -> dict[str, Any]:
        """Its line, without texts of ids."""
        content = asdict(self)
        content["logprob"] = _finite(self.logprob)
        trace = content["trace"]
        for name in _DIVERGENCES:
            trace[name] = _finite(trace[name])
        for name in _EXPERT_DIVERGENCES:
            trace[name] = [_finite(value) for value in trace[name]]
        for view in (trace["base"], trace["fused"], *trace["tuned"], *trace["reference"]):
            view["logprobs"] = [_finite(value) for value in view["logprobs"]]
        return content

    @classmethod
    def from_json(cls, content: object) -> TracedToken:
        """A token's line read back.

        Raises:
            UsageError: naming what is wrong with it.
        """
        line = _Line(content)
        reason = line.value("finish_reason")
        if reason not in (None, "stop", "length"):
            raise UsageError('"finish_reason" is not null, "stop" or "length"')
        return cls(
            index=_count(line.value("index")),
            token=_count(line.value("token")),
            text=line.text("text"),
            logprob=_logprob(line.value("logprob")),
            from_draft=line.value("from_draft") is True,
            finish_reason=reason,
            trace=_trace(_Line(line.value("trace"))),
        )


def pieces_from_json(content: object) -> dict[int, str]:
    """The texts of ids that a token's line adds.

    Raises:
        UsageError: naming what is wrong with them.
    """
    table = _Line(content).table("pieces")
    if not all(key.isdecimal() and isinstance(text, str) for key, text in table.items()):
        raise UsageError('"pieces" are not texts of token ids')
    return {int(key): text for key, text in table.items()}


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of a trace file.

    Attributes:
        header: what it was made with.
        tokens: its tokens.
        pieces: texts of all ids that the traces name, as `tracefile.piece_text` writes them.
        is_cut: whether its last line was incomplete and is missing here.
    """

    header: Header
    tokens: tuple[TracedToken, ...]
    pieces: Mapping[int, str]
    is_cut: bool = False

    @property
    def text(self) -> str:
        """What the reply said."""
        return "".join(token.text for token in self.tokens)


def _trace(line: _Line) -> Trace:
    n = len(line.items("alpha"))
    ids = tuple(map(_count, line.items("ids")))
    if line.value("origin") not in ORIGINS:
        raise UsageError(f'"origin" is none of {", ".join(ORIGINS)}')

    def view(content: object) -> ModelTrace:
        return _view(_Line(content), len(ids))

    def experts(name: str, read: Callable[[object], Any]) -> tuple[Any, ...]:
        items = tuple(map(read, line.items(name)))
        if len(items) != n or not n:
            raise UsageError(f'"{name}" has {len(items)} entries for {n} experts')
        return items

    return Trace(
        alpha=experts("alpha", _number),
        total_variation=experts("total_variation", _number),
        kl_fused_base=_divergence(line.value("kl_fused_base")),
        kl_base_fused=_divergence(line.value("kl_base_fused")),
        kl_tuned_reference=experts("kl_tuned_reference", _divergence),
        kl_reference_tuned=experts("kl_reference_tuned", _divergence),
        origin=line.text("origin"),
        ids=ids,
        n_top=_count(line.value("n_top")),
        base=view(line.value("base")),
        fused=view(line.value("fused")),
        tuned=experts("tuned", view),
        reference=experts("reference", view),
    )


def _view(line: _Line, n_ids: int) -> ModelTrace:
    logprobs = tuple(map(_logprob, line.items("logprobs")))
    if len(logprobs) != n_ids or not n_ids:
        raise UsageError(f"{len(logprobs)} log-probs for {n_ids} ids")
    return ModelTrace(
        top=_count(line.value("top")),
        top_probability=_number(line.value("top_probability")),
        probability=_number(line.value("probability")),
        logprobs=logprobs,
    )


class _Line:
    """The fields of a JSON object; what is missing or of another type is a UsageError."""

    def __init__(self, content: object) -> None:
        if not isinstance(content, dict):
            raise UsageError("a JSON object is missing")
        self._content = content

    def value(self, name: str) -> Any:
        if name not in self._content:
            raise UsageError(f'"{name}" is missing')
        return self._content[name]

    def text(self, name: str) -> str:
        return _text(self.value(name))

    def items(self, name: str) -> list[Any]:
        if not isinstance(self.value(name), list):
            raise UsageError(f'"{name}" is not a list')
        return list(self.value(name))

    def table(self, name: str) -> dict[str, Any]:
        if not isinstance(self.value(name), dict):
            raise UsageError(f'"{name}" is not an object')
        return dict(self.value(name))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{brief(value)} is not a text")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{brief(value)} is not a token id or a count")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > _LARGEST:
        raise UsageError(f"{brief(value)} is not a number")
    return float(value)


def _divergence(value: object) -> float:
    return math.inf if value is None else _number(value)


def _logprob(value: object) -> float:
    return -math.inf if value is None else _number(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
