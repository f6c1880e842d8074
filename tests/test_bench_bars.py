"""`eftlocal bench --bars`: what is measured on which models, and when a bar is met."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGUFReader

from eftlocal.bench.bars import (
    PLANS,
    Bar,
    Plan,
    bars,
    batches,
    drafts,
    memory,
    peers,
    plain,
    reading,
    second_turn,
)
from eftlocal.bench.resident import measure_filled_apart
from eftlocal.bench.shapes import SHAPES
from eftlocal.bench.target import Target
from eftlocal.bench.timing import QUICK

from .cli_helpers import run
from .conftest import LARGE, SMALL, Trio

TINY = "large=256x2,small=256x1,vocab=1000"


@pytest.mark.parametrize(
    ("sign", "measured", "met"),
    [
        (">=", 0.98, "yes"),
        (">=", 0.97, "yes"),
        (">=", 0.969, "no"),
        ("<=", 0.96, "yes"),
        ("<=", 0.97, "yes"),
        ("<=", 0.98, "no"),
        (">=", None, "not measured: no GPU"),
    ],
)
def test_a_bar_is_met_at_its_height(sign: str, measured: float | None, met: str) -> None:
    """At least, at most, or not measured."""
    row = Bar("rate", "atlas", sign, 0.97, measured, "no GPU").row()
    assert row == ("rate", "atlas", f"{sign} 0.97", measured, met)


def test_every_shape_has_a_name_and_every_bar_a_model() -> None:
    """All plans can be loaded; the ratio of sizes that one of them needs is there."""
    names = {plan.name: plan.is_entry for plan in PLANS}
    assert {name for name, is_entry in names.items() if not is_entry} <= set(SHAPES)
    assert names["atlas"]
    large, small = (
        size.layers
        * size.width
        * (2 * size.width * (1 + size.kv_heads / size.heads) + 3 * size.ffn)
        + 2 * 32_000 * size.width
        for size in (SHAPES["medium"].large, SHAPES["medium"].small)
    )
    assert large / small > 15


def test_bars_are_measured() -> None:
    """On a small shape: a line per bar, those about one thing together."""
    steps: list[str] = []
    parts = (plain, drafts, reading, second_turn)
    plans = (Plan(TINY, parts, (memory, batches)), Plan("atlas", (plain,), is_entry=True))
    effort = replace(QUICK, rounds=1, few=4, many=16)
    report = bars({"threads": 1, "ctx": 256}, effort, steps.append, plans)
    assert steps == [
        f"{TINY}: writing random weights",
        f"{TINY}: memory",
        f"{TINY}: batches",
        *(f"{TINY}: {part.__name__}" for part in parts),
        "atlas: plain",
    ]
    (table,) = report.to_json()["sections"]["bars"]
    found = [(row["bar"], row["model"]) for row in table["rows"]]
    assert len(set(found)) == len(found) == 12
    kinds = [bar for bar, _ in found]
    assert kinds == sorted(kinds, key=kinds.index)
    rows = {(row["bar"], row["model"]): row for row in table["rows"]}
    turn = rows["second turn, prompt tokens read", TINY]
    assert (turn["wanted"], turn["measured"], turn["met"]) == ("<= 17", 17, "yes")
    ceiling = rows.pop(("8 generations, times one", TINY))
    assert ceiling["measured"] is not None or "t(8) allows" in ceiling["met"]
    assert all(row["measured"] is not None for row in rows.values())
    assert report.facts["threads"] == "1"


def test_filled_memory_is_what_the_files_and_sizes_say(trio: Trio) -> None:
    """Weights and caches as in the other measurement, and decoding adds next to nothing."""
    files = {role: str(path) for role, path in trio._asdict().items()}
    seen = measure_filled_apart({**files, "threads": 1, "ctx": 512, "cache_type": "f32"}, 150)
    tensors = [tensor for path in trio for tensor in GGUFReader(path).tensors]
    assert seen["weights_bytes"] == sum(tensor.n_bytes for tensor in tensors)
    width = {
        shape: shape.layers * shape.width // shape.heads * shape.kv_heads
        for shape in (LARGE, SMALL)
    }
    cache_bytes = 2 * 4 * 512 * (width[LARGE] + 2 * width[SMALL])
    assert seen["cache_bytes"] == cache_bytes
    if seen["resident_bytes"] is not None:
        assert seen["resident_bytes"] - (seen["python_bytes"] or 0) > cache_bytes
        assert abs(seen["grown_bytes"] or 0) < 4 * 2**20


def test_without_what_is_compared_with_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five bars, none measured, and what to install."""
    monkeypatch.setitem(sys.modules, "torch", None)
    found = peers(Target("small", {}, {}, random=True), QUICK)
    assert len(found) == 5 and all(bar.is_met is None for bar in found)
    assert all("pip install 'eftlocal[bench]'" in str(bar.row()[-1]) for bar in found)


@pytest.mark.parametrize(
    "args",
    [("-m", "atlas"), ("--shape", "small"), ("--only", "floors"), ("--top-p", "0.9"), ("peers",)],
)
def test_models_and_settings_are_refused(args: tuple[str, ...]) -> None:
    """The bars are about certain models; one line says so before anything is loaded."""
    result = run("bench", "--bars", *args)
    assert result.exit_code != 0 and result.stdout == ""
    assert "--bars has models" in result.stderr and result.stderr.count("\n") == 1


def test_a_page_is_checked_first(tmp_path: Path) -> None:
    """A folder that is not there is reported before an hour of measurements."""
    result = run("bench", "--bars", "--html", str(tmp_path / "no" / "bars.html"))
    assert result.exit_code != 0 and "there is no folder" in result.stderr


def test_the_table_is_plain_json() -> None:
    """Bars that were not measured are null there."""
    bar = Bar("rate", "atlas", ">=", 1.2, None, "no reason")
    assert json.loads(json.dumps(bar.row()))[3] is None
