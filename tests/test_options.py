"""Options: what is allowed, one clear line for what is not, and unknown names."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from eftlocal.errors import UsageError
from eftlocal.options import (
    ALPHA_MODES,
    MAX_DRAFT,
    PARTS,
    GenerationOptions,
    RuntimeOptions,
    Sampler,
    option_name,
)

Options = type[RuntimeOptions] | type[Sampler] | type[GenerationOptions]
HUGE = 10**400
"""An integer that no float can hold, as JSON and TOML allow."""

COUNTS = [-1, 1.5, "3", True, math.nan, [1]]
NUMBERS = [math.nan, math.inf, -math.inf, HUGE, -HUGE, "1", True, [1.0], {}]

# option -> (what the message must say is allowed, values that are not)
RUNTIME: dict[str, tuple[str, list[object]]] = {
    "ctx": ("a number of tokens, or 0", COUNTS),
    "gpu_layers": ("auto, all, or a number", [-1, "some", "3", 1.5, True, None]),
    "base_gpu_layers": ("auto, all, or a number", [-1, "some", 1.5, False]),
    "tuned_gpu_layers": ("auto, all, or a number", [-2, "", 1.5]),
    "reference_gpu_layers": ("auto, all, or a number", [-1, "none", []]),
    "threads": ("1 or more, or 0", COUNTS),
    "batch": (f"{MAX_DRAFT} or more", [*COUNTS, 0, MAX_DRAFT - 1]),
    "flash_attention": ("auto, on or off", ["yes", "", True, 1, None]),
    "cache_type": ("f32, f16, bf16, q8_0", ["q2_k", "F16", "", 16, None]),
    "mmap": ("auto, on or off", ["true", False, 0]),
    "kv_unified": ("auto, on or off", ["yes", True, 1]),
    "mlock": ("true or false", ["on", 1, 0, None]),
    "parallel": ("1 or more", [*COUNTS, 0]),
    "rpc": (
        "HOST:PORT[,HOST:PORT], every server once",
        [
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:1,",
            "a:1;b:1",
            "a:1,a:1",
            "[::1]:5",
            "a b:1",
            "http://a:1",
            "a:+1",
            5,
            True,
            ["a"],
            [5],
            [["a:1"]],
            {"a:1": 1},
        ],
    ),
}
SAMPLER: dict[str, tuple[str, list[object]]] = {
    "logit_bias": (
        "token ids with numbers",
        [[1], "1", {"1": 1.0}, {-1: 1.0}, {1.5: 1.0}, {True: 1.0}, *({1: x} for x in NUMBERS)],
    ),
    "repetition_penalty": ("0.01 to 100", [*NUMBERS, 0, -1.0, 1e-320, 101]),
    "presence_penalty": ("-1000 to 1000", [*NUMBERS, 1001, -1e300]),
    "frequency_penalty": ("-1000 to 1000", [*NUMBERS, 1001, -1e300]),
    "top_k": ("0 (off) or more", COUNTS),
    "top_p": ("a number above 0, up to 1", [*NUMBERS, 0, 0.0, -0.1, 1.01, 90]),
    "min_p": ("0 (off) to 1", [*NUMBERS, -0.1, 1.01]),
    "temperature": ("0 (greedy) to 100", [*NUMBERS, -0.1, 100.5]),
}
GENERATION: dict[str, tuple[str, list[object]]] = {
    "alpha": (
        "a number (-1000 to 1000), dynamic, grid, one-sided, joint",
        [*NUMBERS, 1001, "dynamics", "Grid", ""],
    ),
    "alpha_low": ("a number from -100 to 100", [*NUMBERS, -101]),
    "alpha_high": ("a number above alpha_low (0.0), up to 100", [*NUMBERS, 101, 0, -1]),
    "alpha_every": ("0 (the first token only), 1 (every token) or more", COUNTS),
    "weight": (
        "expert names with numbers (-1000 to 1000), such as math=0.5",
        ["a=1", ["a"], 1, {1: 1.0}, *({"a": x} for x in [*NUMBERS, 1001])],
    ),
    "lambda_": ("a number, such as 0.5", [*NUMBERS, 1001, "dynamic"]),
    "upscale_top_p": ("a number above 0, up to 1", [*NUMBERS, 0, 0.0, -0.1, 1.01, 90]),
    "part": ("fused, base, tuned or reference", ["", "Base", "floor", 0, None, ["base"], {}]),
    "trace": ("true or false", ["on", 1, 0, None]),
    "seed": ("an integer of 0 or more", COUNTS),
    "max_tokens": ("0 (no limit) or more", COUNTS),
    "stop": ("strings that are not empty", ["", [""], ["a", 1], 5, {"a"}, [b"a"], [None]]),
    "accept": ("coupled or rejection", ["", "couple", 1, None]),
    "draft": (
        f"auto, off, or 1 to {MAX_DRAFT}",
        [0, -1, MAX_DRAFT + 1, "on", "4", 2.0, True, None],
    ),
    "top_logprobs": ("0 to 20", [*COUNTS, 21, HUGE]),
    "json_schema": ("a JSON schema, or true", ["{}", "true", 0, 1, 1.5, ["a"], b"{}"]),
    "regex": ("a text", [1, True, ["a"], b"a", {"a": 1}]),
    "grammar": ("a text", [1, True, ["a"], b"a", {"a": 1}]),
}
KINDS: list[tuple[Options, dict[str, tuple[str, list[object]]]]] = [
    (RuntimeOptions, RUNTIME),
    (Sampler, SAMPLER),
    (GenerationOptions, SAMPLER | GENERATION),
]
BAD = [
    pytest.param(kind, name, allowed, value, id=f"{kind.__name__}-{name}-{str(value)[:12]}")
    for kind, table in KINDS
    for name, (allowed, values) in table.items()
    for value in values
]


@pytest.mark.parametrize(("kind", "name", "allowed", "value"), BAD)
def test_a_bad_value_is_one_clear_line(kind: Options, name: str, allowed: str, value: Any) -> None:
    """The line names the option and the value, and says what is allowed."""
    with pytest.raises(UsageError) as caught:
        kind(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{option_name(name)} = ")
    assert f"is not allowed; use {allowed}" in message
    assert "\n" not in message
    assert len(message) < 200


@pytest.mark.parametrize(("kind", "table"), KINDS, ids=lambda x: getattr(x, "__name__", ""))
def test_no_option_is_unchecked(kind: Options, table: dict[str, object]) -> None:
    """Every field stands in the tables above; every default is allowed."""
    assert {field.name for field in dataclasses.fields(kind)} == set(table)
    kind()


def test_long_values_are_cut() -> None:
    """A message does not repeat what fills a screen."""
    with pytest.raises(UsageError) as caught:
        Sampler().updated({"logit_bias": dict.fromkeys(range(1000), "x" * 1000)})
    assert len(str(caught.value)) < 300


GOOD: list[tuple[Options, dict[str, Any]]] = [
    (RuntimeOptions, {"ctx": 4096, "gpu_layers": "all", "base_gpu_layers": 0, "threads": 3}),
    (RuntimeOptions, {"gpu_layers": 12, "batch": MAX_DRAFT, "cache_type": "q8_0", "mlock": True}),
    (RuntimeOptions, {"mmap": "off", "flash_attention": "on", "parallel": 8}),
    (
        RuntimeOptions,
        {"rpc": "gpu-1.lan:50052, 10.0.0.5:65535", "gpu_layers": 0, "base_gpu_layers": 9},
    ),
    (RuntimeOptions, {"rpc": "", "base_gpu_layers": 0}),
    (Sampler, {"temperature": 0, "top_k": 10**9, "top_p": 1, "min_p": 1.0}),
    (Sampler, {"repetition_penalty": 1.1, "presence_penalty": -2, "frequency_penalty": 0.5}),
    (Sampler, {"logit_bias": {0: -100, 151_935: 1.5}}),
    (GenerationOptions, {"alpha": -1.5, "seed": 2**64, "max_tokens": 5, "top_logprobs": 20}),
    (GenerationOptions, {"draft": MAX_DRAFT}),
    (GenerationOptions, {"draft": "auto", "accept": "rejection"}),
    *((GenerationOptions, {"alpha": mode}) for mode in ALPHA_MODES),
    (GenerationOptions, {"alpha_low": -2, "alpha_high": -1.5, "alpha_every": 100, "trace": True}),
    (GenerationOptions, {"weight": {"math": 0.5, "code": -1}, "upscale_top_p": 0.9}),
    (GenerationOptions, {"lambda_": 1.5}),
    *((GenerationOptions, {"part": part}) for part in PARTS),
]


@pytest.mark.parametrize(("kind", "values"), GOOD)
def test_good_values_are_kept(kind: Options, values: dict[str, Any]) -> None:
    """Allowed values stay as they are, however they are given."""
    for options in (kind(**values), kind().updated(values)):
        assert {name: getattr(options, name) for name in values} == values


def test_lambda_has_two_spellings() -> None:
    """Outside Python the option is called lambda, and both names are taken."""
    for name in ("lambda", "lambda_"):
        assert GenerationOptions().updated({name: 0.3}).lambda_ == 0.3
    with pytest.raises(UsageError, match=r"^unknown option 'heat'; known options: .*, lambda, "):
        GenerationOptions().updated({"heat": 1})


def test_weight_and_lambda_replace_each_other() -> None:
    """The newer one counts; both at once are refused."""
    weighted = GenerationOptions(weight={"math": 1.0})
    mixed = weighted.updated({"lambda": 0.3})
    assert (mixed.lambda_, dict(mixed.weight)) == (0.3, {})
    assert mixed.updated({"weight": {"math": 1.0}}) == weighted
    assert mixed.updated({"weight": None, "seed": 0}).lambda_ == 0.3
    with pytest.raises(UsageError, match="either weight or lambda, not both"):
        weighted.updated({"weight": {"a": 1}, "lambda": 0.5})


def test_servers_come_as_text_or_as_a_list() -> None:
    """One string for the command line and the environment, a list for Python and TOML."""
    servers = ("a.b:1", "10.0.0.5:2")
    assert RuntimeOptions(rpc="a.b:1, 10.0.0.5:2").rpc_servers == servers
    assert RuntimeOptions(rpc=list(servers)) == RuntimeOptions(rpc=servers)
    assert RuntimeOptions(rpc=servers).rpc_servers == servers
    assert RuntimeOptions(rpc=servers).updated({"rpc": ""}).rpc_servers == ()
    assert RuntimeOptions().rpc_servers == ()


@pytest.mark.parametrize("layers", [{"gpu_layers": 0}, {"gpu_layers": 5, "base_gpu_layers": 0}])
def test_servers_without_layers_are_refused(layers: dict[str, Any]) -> None:
    """What would silently run here is a mistake."""
    with pytest.raises(UsageError, match=r"^rpc = 'a:1' is not allowed; use base_gpu_layers above"):
        RuntimeOptions(rpc="a:1", **layers)


def test_stop_becomes_a_tuple() -> None:
    """One string or a list of strings."""
    assert GenerationOptions(stop="a b").stop == ("a b",)
    assert GenerationOptions(stop=["a", "b"]).stop == ("a", "b")
    assert GenerationOptions().updated({"stop": ["x"]}).stop == ("x",)


def test_updated_ignores_none() -> None:
    """None means "not given", for known names; without changes the same object comes back."""
    options = GenerationOptions(temperature=0.5, seed=3)
    assert options.updated({"temperature": None, "seed": None}) is options
    assert options.updated({}) is options
    changed = options.updated({"temperature": 0.0, "seed": None})
    assert (changed.temperature, changed.seed) == (0.0, 3)
    assert options.temperature == 0.5


@pytest.mark.parametrize("value", [1, None])
def test_unknown_names_are_rejected(value: object) -> None:
    """The line names the unknown option and lists the known ones, also where the value is None."""
    with pytest.raises(UsageError, match=r"^unknown option 'heat'; known options: .*temperature"):
        GenerationOptions().updated({"seed": 1, "heat": value})
    with pytest.raises(UsageError, match=r"^unknown option 'alpha'; known options: ctx, "):
        RuntimeOptions().updated({"alpha": value})


def test_updated_checks_values() -> None:
    """A change is checked as a new object is, and the old one stays."""
    options = RuntimeOptions()
    with pytest.raises(UsageError, match=r"^ctx = -1 is not allowed"):
        options.updated({"ctx": -1})
    assert options == RuntimeOptions()


def test_options_cannot_be_changed() -> None:
    """Frozen: a change is a new object."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        GenerationOptions().seed = 4  # type: ignore[misc]


def test_most_rows() -> None:
    """Off and 1 are plain decoding; auto may go as far as possible."""
    rows = [GenerationOptions(draft=draft).most_rows for draft in ("off", 1, 4, "auto")]
    assert rows == [1, 1, 4, MAX_DRAFT]


def test_has_penalties() -> None:
    """Any of the three counts; the defaults do nothing."""
    assert not Sampler().has_penalties
    for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
        assert Sampler().updated({name: 0.5}).has_penalties
