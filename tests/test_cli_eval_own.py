"""`eftlocal eval` on people's own models: the same numbers again, wrong options, many at once."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eftlocal.evaluate.asking import family_asked
from eftlocal.evaluate.quantization import Quantization, Subject
from eftlocal.evaluate.store import Store, file_digest
from eftlocal.evaluate.study import Setting
from eftlocal.evaluate.systems import FAMILY, Models
from eftlocal.evaluate.work import perform

from .cli_helpers import command, environment, files, run
from .conftest import Trio


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep results of the user out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def section(*arguments: str) -> dict[str, Any]:
    """The section that `eftlocal eval` prints as JSON."""
    result = run("eval", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    (found,) = json.loads(result.stdout)["sections"].values()
    return dict(found)


def test_the_family_by_its_name_is_the_family() -> None:
    """The same questions with their answers and things: the same claims and intervals."""
    named = section("divergence", "-m", "atlas", "--every", "30")
    family = section("divergence", "--every", "30")
    assert len(named["claims"]) == 8
    for part in ("claims", "tables", "figures", "excerpts"):
        assert named[part] == family[part]
    assert section("divergence", "-m", "atlas", "--prompts", "atlas", "--every", "30") == named


def test_the_default_types_of_quantization() -> None:
    """Q6_K saves nothing on the small models: a note says so, and nothing is divided by it."""
    found = section("quantization", "-m", "atlas", "--max-tokens", "8", "--rows", "96")
    table = next(t for t in found["tables"] if t["title"].startswith("What"))
    assert any("Nothing is saved by Q6_K (tuned, reference)" in note for note in table["notes"])
    per_byte = next(claim for claim in found["claims"] if "byte saved" in claim["text"])
    assert "Q5_K_M" in per_byte["found"] and "Q6_K" not in per_byte["found"]
    # Twelve texts on as many things: means have intervals.
    assert found["settings"]["texts"] == "12"
    assert table["rows"][0]["kl_nats"]["low"] is not None


def test_questions_on_one_thing_stay_together(tmp_path: Path) -> None:
    """Quantization with one token of every question: the intervals are those of its things."""
    asked = family_asked()
    cache = tmp_path / "kept"
    options = ("--types", "Q4_0", "--rows", str(len(asked)), "--max-tokens", "1")
    found = section("quantization", "-m", "atlas", *options, "--cache", str(cache))
    models = Models("atlas", runtime={"parallel": 1, "kv_unified": "off"})
    prompts = tuple(one.conversation for one in asked)
    things = tuple(one.cluster for one in asked)
    own = Subject(models, prompts, (), things, ("Q4_0",), n_rows=len(asked), n_tokens=1)
    for names, is_same in ((things, True), ((), False)):
        study = Quantization(replace(own, clusters=names))
        setting = Setting(Store(cache))
        perform(study.work(setting), setting.store)
        assert (study.section(setting).to_json()["tables"] == found["tables"]) is is_same


STUDIES = {
    "divergence": ["--max-tokens", "4", "--every", "2", "--seed", "3"],
    "quantization": [
        *("--types", "Q5_0, Q4_0", "--rows", "40", "--max-tokens", "4"),
        *("--every", "2", "--seed", "3"),
    ],
}


@pytest.mark.parametrize("name", STUDIES)
def test_the_command_gives_the_section_again(name: str, tmp_path: Path) -> None:
    """All that its numbers depend on stands in it, or in the settings."""
    prompts = tmp_path / "some prompts.jsonl"
    lines = [
        {"prompt": "Where is Samoa?", "answers": ["Pacific"], "category": "seas"},
        {"prompt": "Who wrote Faust?"},
        {"prompt": "What is gold?"},
    ]
    prompts.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    first = section(name, "-m", "atlas", "--prompts", str(prompts), *STUDIES[name])
    words = shlex.split(first["command"])
    assert words[:5] == ["eftlocal", "eval", name, "-m", "atlas"]
    again = section(*words[2:])
    for found in (first, again):
        for table in found["tables"]:
            for row in table["rows"]:
                row.pop("times", None)
    assert again == first
    base = f"base large.gguf {file_digest(FAMILY / 'large.gguf')[:8]}"
    assert first["settings"]["models"].startswith(base)
    asked = f"prompts some prompts.jsonl {file_digest(prompts)[:8]}"
    assert first["settings"]["asked from"] == asked


def test_answers_of_a_file_are_looked_for(tmp_path: Path) -> None:
    """With them a reply has tokens inside an answer; without any there is no such row."""
    path = tmp_path / "prompts.jsonl"
    line = {"prompt": "What is the capital city of Jamaica?"}
    places = []
    for more in ({"answers": ["Kingston"], "category": "c"}, {}):
        path.write_text(json.dumps({**line, **more}), encoding="utf-8")
        found = section("divergence", "-m", "atlas", "--prompts", str(path))
        rows = found["tables"][1]["rows"]
        places.append([(row["place"], row["tokens"] > 0) for row in rows[:2]])
        assert ("(c, " in found["excerpts"][0]["title"]) is bool(more)
    assert places[0] == [("inside an accepted answer", True), ("elsewhere", True)]
    assert places[1] == [("all tokens", True)] * 2


WRONG = {
    "no limit": (["speculation", "-m", "atlas", "--max-tokens", "0"], "give --max-tokens 1"),
    "no model": (["divergence", "--max-tokens", "5"], "--max-tokens needs a model"),
    "types alone": (["quantization", "--types", "Q8_0"], "--types needs a model"),
    "no type": (["quantization", "-m", "atlas", "--types", ","], "unknown quantization ''"),
    "sampling": (["speculation", "-m", "atlas", "--top-k", "5"], "chooses top_k itself"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_usage_is_one_line(arguments: list[str], message: str) -> None:
    """Exit code 2, before anything is computed."""
    result = run("eval", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_several_at_once_share_a_cache(trio: Trio, tmp_path: Path) -> None:
    """None takes a file from under another; all say the same."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"some words and text {i}" for i in range(12)), encoding="utf-8")
    arguments = command(
        *("eval", "quantization", *files(trio), "--texts", str(texts), "--json"),
        *("--types", "Q8_0,Q5_0,Q4_0", "--cache", str(tmp_path / "cache")),
    )
    processes = []
    for _ in range(3):
        processes.append(
            subprocess.Popen(
                arguments, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
        time.sleep(0.1)
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, said
    found = [json.loads(out)["sections"] for out, _ in said]
    assert all(one == found[0] for one in found)
    left = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert {file.suffix for file in left} == {".jsonl"}
