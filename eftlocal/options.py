"""Every option and its default, in one place, for the command line, Python, models.toml and HTTP.

`RuntimeOptions` are fixed when models are loaded; `GenerationOptions` belong to one request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from reprlib import repr as brief
from typing import Any, Self

from .errors import UsageError

MAX_DRAFT = 16
"""Most tokens that one round may decide; contexts reserve this many rows of logits."""

CONSTRAINTS = ("json_schema", "regex", "grammar")
"""Options that say what a completion must match; at most one is given."""

ALPHA_MODES = ("dynamic", "grid", "one-sided", "joint")
"""Words for an alpha that is searched for every token; see `alpha.search_alpha`."""

PARTS = ("fused", "base", "tuned", "reference")
"""Whose distribution a completion is drawn from."""


def _check(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise UsageError(f"{name} = {brief(value)} is not allowed; use {allowed}")


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_count(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_server(value: object) -> bool:
    """Whether it is HOST:PORT with a name or an IPv4 address, all that llama.cpp connects to."""
    found = re.fullmatch(r"[\w.-]+:([0-9]{1,5})", value) if isinstance(value, str) else None
    return found is not None and 0 < int(found[1]) < 65536


def option_name(field_name: str) -> str:
    """The name of an option outside Python, where `lambda` is no keyword."""
    return field_name.removesuffix("_")


class _Updatable:
    """Adds `updated`: a copy with some fields replaced, unknown names rejected."""

    __slots__ = ()

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with `changes` applied; values of None leave the field as it is.

        Raises:
            UsageError: for a name that is not an option, or a value that is not allowed.
        """
        names = [item.name for item in fields(self)]  # type: ignore[arg-type]
        known = {option_name(name): name for name in names}
        for name in changes:
            if option_name(name) not in known:
                raise UsageError(f"unknown option {name!r}; known options: {', '.join(known)}")
        given = {known[option_name(k)]: value for k, value in changes.items() if value is not None}
        return replace(self, **given) if given else self  # type: ignore[type-var]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions(_Updatable):
    """How models are loaded and contexts are made.

    Attributes:
        ctx: context length in tokens; 0 takes what every model was trained for (at most 8,192).
        gpu_layers: "auto" (what fits on GPUs, small models first), "all", or a number of layers.
        base_gpu_layers, tuned_gpu_layers, reference_gpu_layers: the same for one role.
        threads: 0 takes the physical cores that this process may use and that others leave idle.
        batch: prompt tokens evaluated per call; Ctrl-C is heard between two calls.
        flash_attention: "auto", "on" or "off".
        cache_type: type of the KV cache: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0.
        mmap: "auto", "on" or "off"; auto maps files only where no copy would be made anyway.
        mlock: keep weights in RAM.
        parallel: sequences (conversations) that each context can hold at once.
        kv_unified: "auto", "on" or "off": whether they share one KV cache; auto shares it where
            there are several. A cache of its own for each is 10 to 25 % quicker with long texts,
            but several times slower while their drafts differ in length.
        rpc: rpc-servers that hold the base's layers: "HOST:PORT,HOST:PORT", or a list of them.
    """

    ctx: int = 0
    gpu_layers: str | int = "auto"
    base_gpu_layers: str | int | None = None
    tuned_gpu_layers: str | int | None = None
    reference_gpu_layers: str | int | None = None
    threads: int = 0
    batch: int = 256
    flash_attention: str = "auto"
    cache_type: str = "f16"
    mmap: str = "auto"
    mlock: bool = False
    parallel: int = 1
    kv_unified: str = "auto"
    rpc: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.rpc, list):
            object.__setattr__(self, "rpc", tuple(self.rpc))
        _check(_is_count(self.ctx, 0), "ctx", self.ctx, "a number of tokens, or 0 for the default")
        for name in ("", "base_", "tuned_", "reference_"):
            layers = getattr(self, f"{name}gpu_layers")
            allowed = layers in ("auto", "all") or _is_count(layers, 0) or (name and layers is None)
            _check(bool(allowed), f"{name}gpu_layers", layers, "auto, all, or a number of layers")
        _check(_is_count(self.threads, 0), "threads", self.threads, "1 or more, or 0 for auto")
        _check(_is_count(self.batch, MAX_DRAFT), "batch", self.batch, f"{MAX_DRAFT} or more")
        for name in ("flash_attention", "mmap", "kv_unified"):
            value = getattr(self, name)
            _check(value in ("auto", "on", "off"), name, value, "auto, on or off")
        types = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
        _check(self.cache_type in types, "cache_type", self.cache_type, ", ".join(types))
        _check(isinstance(self.mlock, bool), "mlock", self.mlock, "true or false")
        _check(_is_count(self.parallel, 1), "parallel", self.parallel, "1 or more")
        self._check_rpc()

    def _check_rpc(self) -> None:
        """Check the form of the servers, and that there is something for them to hold."""
        ok = self.rpc is None or isinstance(self.rpc, str | tuple)
        servers = self.rpc_servers if ok else ()
        ok = ok and all(map(_is_server, servers)) and len(set(servers)) == len(servers)
        allowed = "HOST:PORT[,HOST:PORT], every server once, such as 192.168.0.5:50052"
        _check(ok, "rpc", self.rpc, allowed)
        own = self.base_gpu_layers
        layers = self.gpu_layers if own is None else own
        allowed = "base_gpu_layers above 0: so many layers go to the servers"
        _check(not servers or layers != 0, "rpc", self.rpc, allowed)

    @property
    def rpc_servers(self) -> tuple[str, ...]:
        """HOST:PORT of every rpc-server; none without `rpc`."""
        if isinstance(self.rpc, str):
            return tuple(part.strip() for part in self.rpc.split(",")) if self.rpc else ()
        return tuple(self.rpc or ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler(_Updatable):
    """What is done to the fused distribution before a token is drawn, in this order.

    Attributes:
        logit_bias: token id -> number added to its logit.
        repetition_penalty: divides positive and multiplies negative logits of completion tokens.
        presence_penalty, frequency_penalty: subtracted once, and per occurrence, from logits.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest likeliest set with this probability; 1 keeps all.
        min_p: drop tokens less likely than min_p times the likeliest; 0 drops none.
        temperature: 0 is greedy; 1 samples the fused distribution itself (the EFT paper).
    """

    logit_bias: Mapping[int, float] = field(default_factory=dict)
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        # Every bound is far beyond use; within them float32 logits stay finite.
        ok = _is_number(self.temperature, 0, 100)
        _check(ok, "temperature", self.temperature, "0 (greedy) to 100")
        _check(_is_count(self.top_k, 0), "top_k", self.top_k, "0 (off) or more")
        ok = _is_number(self.top_p, 0, 1) and self.top_p > 0
        _check(ok, "top_p", self.top_p, "a number above 0, up to 1 (off)")
        _check(_is_number(self.min_p, 0, 1), "min_p", self.min_p, "0 (off) to 1")
        ok = _is_number(self.repetition_penalty, 0.01, 100)
        _check(ok, "repetition_penalty", self.repetition_penalty, "0.01 to 100 (1 is off)")
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            _check(_is_number(value, -1000, 1000), name, value, "-1000 to 1000 (0 is off)")
        ok = isinstance(self.logit_bias, Mapping) and all(
            _is_count(token, 0) and _is_number(bias, -1e6, 1e6)
            for token, bias in self.logit_bias.items()
        )
        allowed = "token ids with numbers (at most 1e6), such as {42: -1.5}"
        _check(ok, "logit_bias", self.logit_bias, allowed)

    @property
    def has_penalties(self) -> bool:
        """Whether the completion so far changes the next token's logits."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions(Sampler):
    """How one completion is fused, sampled (see `Sampler`) and ended.

    Attributes:
        alpha: multiplier of the delta (log tuned - log reference), 0 being the base alone; or how
            it is searched for each token: "dynamic", "grid", "one-sided" or "joint".
        alpha_low, alpha_high: where it is searched (the grid is always 0, 0.1, ..., 2).
        alpha_every: search again after so many tokens; 0 searches for the first token only.
        weight: expert name -> weight of its delta; experts that are not named get 0. Without
            weights a fixed alpha gives each of E experts 1/E, and a search chooses among them.
        lambda_: weights (lambda, 1 - lambda) of two experts; outside Python it is called lambda.
        upscale_top_p: the base counts only for tokens in the tuned model's top-p set; 1 is off.
        part: "fused", or the "base", "tuned" or "reference" model, which then speaks alone, while
            the others read along; of several experts, the one whose weight is the largest in size.
            What says how models are fused has no effect then, and alpha is reported as 0.
        trace: describe every token's distributions, see `diagnostics.Trace`.
        seed: the text is a function of it (given equal logits).
        max_tokens: 0 goes on to the end of the context.
        stop: strings that end the completion; they are not part of the text.
        draft: "auto" (as many as pay, from measured costs), "off", or the number of tokens that
            one round may decide (2 to 16).
        accept: "coupled", the drafter's and the fused row share their noise; or "rejection", which
            accepts more drafts. Both draw from the same distribution, each its own texts, and a
            seed gives one text with any draft.
        top_logprobs: likeliest alternatives reported per token, 0 to 20.
        json_schema: a JSON schema (a mapping) that the text must match; true: any JSON object.
        regex: a regular expression that the whole text must match.
        grammar: a grammar that it must match: Lark, or llama.cpp's GBNF. At most one of these
            three; the answer after a <think> block is what must match.
    """

    alpha: float | str = 1.0
    alpha_low: float = 0.0
    alpha_high: float = 2.0
    alpha_every: int = 1
    weight: Mapping[str, float] = field(default_factory=dict)
    lambda_: float | None = None
    upscale_top_p: float = 1.0
    part: str = "fused"
    trace: bool = False
    seed: int = 0
    max_tokens: int = 0
    stop: Sequence[str] = ()
    draft: str | int = "auto"
    accept: str = "coupled"
    top_logprobs: int = 0
    json_schema: Mapping[str, Any] | bool | None = None
    regex: str | None = None
    grammar: str | None = None

    def __post_init__(self) -> None:
        Sampler.__post_init__(self)
        if isinstance(self.stop, str | list):
            stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
            object.__setattr__(self, "stop", stop)
        self._check_fusion()
        _check(_is_count(self.seed, 0), "seed", self.seed, "an integer of 0 or more")
        _check(_is_count(self.max_tokens, 0), "max_tokens", self.max_tokens, "0 (no limit) or more")
        texts = isinstance(self.stop, tuple) and all(isinstance(s, str) and s for s in self.stop)
        _check(texts, "stop", self.stop, "strings that are not empty")
        in_range = _is_count(self.draft, 1) and int(self.draft) <= MAX_DRAFT
        allowed = f"auto, off, or 1 to {MAX_DRAFT}"
        _check(self.draft in ("auto", "off") or in_range, "draft", self.draft, allowed)
        rules = ("coupled", "rejection")
        _check(self.accept in rules, "accept", self.accept, " or ".join(rules))
        in_range = _is_count(self.top_logprobs, 0) and self.top_logprobs <= 20
        _check(in_range, "top_logprobs", self.top_logprobs, "0 to 20")
        self._check_constraint()

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """See `_Updatable.updated`; a new weight replaces lambda, and the other way round.

        A new constraint replaces any other one.
        """
        named = {option_name(name) for name, value in changes.items() if value is not None}
        start = self
        if "weight" in named and "lambda" not in named:
            start = replace(self, lambda_=None)
        elif "lambda" in named and "weight" not in named:
            start = replace(self, weight={})
        if named & set(CONSTRAINTS):
            start = replace(start, json_schema=None, regex=None, grammar=None)
        return _Updatable.updated(start, changes)

    def _check_constraint(self) -> None:
        """Check that there is one at most; `constraints.check` looks into it."""
        if self.json_schema is False:
            object.__setattr__(self, "json_schema", None)
        given = [name for name in CONSTRAINTS if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} are given; use one of them")
        schema = self.json_schema
        ok = schema is None or schema is True or isinstance(schema, Mapping)
        _check(ok, "json_schema", schema, "a JSON schema, or true for any JSON object")
        for name in ("regex", "grammar"):
            text = getattr(self, name)
            _check(text is None or isinstance(text, str), name, text, "a text")

    def _check_fusion(self) -> None:
        """Check what says how rows are fused."""
        in_range = _is_number(self.alpha, -1000, 1000)
        allowed = f"a number (-1000 to 1000), {', '.join(ALPHA_MODES)}"
        _check(in_range or self.alpha in ALPHA_MODES, "alpha", self.alpha, allowed)
        in_range = _is_number(self.alpha_low, -100, 100)
        _check(in_range, "alpha_low", self.alpha_low, "a number from -100 to 100")
        in_range = _is_number(self.alpha_high, -100, 100) and self.alpha_high > self.alpha_low
        allowed = f"a number above alpha_low ({self.alpha_low}), up to 100"
        _check(in_range, "alpha_high", self.alpha_high, allowed)
        allowed = "0 (the first token only), 1 (every token) or more"
        _check(_is_count(self.alpha_every, 0), "alpha_every", self.alpha_every, allowed)
        ok = isinstance(self.weight, Mapping) and all(
            isinstance(name, str) and _is_number(weight, -1000, 1000)
            for name, weight in self.weight.items()
        )
        allowed = "expert names with numbers (-1000 to 1000), such as math=0.5"
        _check(ok, "weight", self.weight, allowed)
        in_range = self.lambda_ is None or _is_number(self.lambda_, -1000, 1000)
        _check(in_range, "lambda", self.lambda_, "a number, such as 0.5 (-1000 to 1000)")
        both = bool(self.weight) and self.lambda_ is not None
        _check(not both, "lambda", self.lambda_, "either weight or lambda, not both")
        in_range = _is_number(self.upscale_top_p, 0, 1) and self.upscale_top_p > 0
        allowed = "a number above 0, up to 1 (off)"
        _check(in_range, "upscale_top_p", self.upscale_top_p, allowed)
        _check(self.part in PARTS, "part", self.part, f"{', '.join(PARTS[:-1])} or {PARTS[-1]}")
        _check(isinstance(self.trace, bool), "trace", self.trace, "true or false")

    @property
    def most_rows(self) -> int:
        """The largest n of a round: 1 is plain decoding."""
        return {"off": 1, "auto": MAX_DRAFT}.get(str(self.draft)) or int(self.draft)
