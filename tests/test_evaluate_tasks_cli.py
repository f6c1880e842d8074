"""`eftlocal eval tasks`: tables, PGR, what is kept, and tasks on local files."""

from __future__ import annotations

import csv
import json
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eftlocal
from eftlocal import EftlocalError
from eftlocal.evaluate.tasks import harness

from .cli_helpers import run
from .lm_eval_tasks import items, write_tasks

FAMILY = Path(eftlocal.__file__).parent / "families" / "atlas"
CEILING = ("--ceiling", str(FAMILY / "large-chat.gguf"))
PERPLEXITY = """
task: lines
dataset_path: json
dataset_kwargs:
  data_files: {data}
test_split: train
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: word_perplexity
    aggregation: weighted_perplexity
    higher_is_better: false
"""

MIXING = """
import random

def mixed(docs):
    return docs.select(random.sample(range(len(docs)), len(docs)))
"""
"""As some tasks shuffle answers when they are loaded."""


def evaluate(folder: Path, *args: str) -> dict[str, Any]:
    """The object that it prints; results are kept in the folder."""
    result = run("eval", "tasks", "--json", "--threads", "1", "--cache", str(folder), *args)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def needs_harness() -> None:
    """Skip where it is not installed."""
    pytest.importorskip("lm_eval")


def test_without_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says how to get it."""
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    result = run("eval", "tasks", "--tasks", "atlas")
    assert result.exit_code == 2
    expected = "eftlocal eval tasks needs more packages: pip install 'eftlocal[eval]'"
    assert result.stderr.strip() == f"eftlocal: {expected}"


def test_fused_parts_and_ceiling(tmp_path: Path) -> None:
    """One row per system, PGR from the same documents, and nothing is computed twice."""
    needs_harness()
    samples = tmp_path / "samples.jsonl"
    command = ("--tasks", "atlas", "--limit", "24", "--parts", *CEILING)
    found = evaluate(tmp_path / "kept", *command, "--log-samples", str(samples))
    (table,) = found["tables"]
    assert [system["role"] for system in found["systems"]] == [
        "fused",
        "base",
        "tuned",
        "reference",
        "ceiling",
    ]
    accuracy: dict[str, list[float]] = {}
    for line in samples.read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        accuracy.setdefault(sample["system"], []).append(float(sample["acc"]))
    means = [float(np.mean(values)) for values in accuracy.values()]
    assert all(len(values) == 24 for values in accuracy.values())
    for row, system, mean in zip(table["rows"], found["systems"], means, strict=True):
        assert row["acc,none"]["value"] == pytest.approx(mean)
        assert row["acc,none"]["low"] <= mean <= row["acc,none"]["high"]
        assert system["lm_eval"]["results"]["atlas"]["acc,none"] == pytest.approx(mean)
        assert "acc_stderr,none" in system["lm_eval"]["results"]["atlas"]
    fused, _, floor, _, ceiling = means
    assert floor < fused and floor < ceiling
    pgr = [row["pgr,acc,none"] for row in table["rows"]]
    assert pgr[0]["value"] == pytest.approx((fused - floor) / (ceiling - floor))
    assert pgr[2] is None and pgr[4] is None
    # A part alone has one context, and no alpha.
    assert found["systems"][2]["options"]["alpha"] == 0
    sizes = {path: path.stat().st_size for path in (tmp_path / "kept").iterdir()}
    assert evaluate(tmp_path / "kept", *command) == found
    assert {path: path.stat().st_size for path in (tmp_path / "kept").iterdir()} == sizes


def test_what_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that are kept are not asked for again, and the report is the same."""
    needs_harness()
    command = ("--tasks", "atlas-chat", "--apply-chat-template", "--limit", "10")
    whole = evaluate(tmp_path / "whole", *command)
    assert whole["tables"][0]["rows"][0]["contains,none"]["value"] > 0.5
    (kept,) = (tmp_path / "whole").iterdir()
    lines = [line for line in kept.read_bytes().splitlines() if line]
    assert len(lines) == 10
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / kept.name).write_bytes(b"\n".join(lines[:6]) + b"\n" + lines[6][:9])
    assert evaluate(tmp_path / "part", *command) == whole
    again = (tmp_path / "part" / kept.name).read_bytes().splitlines()
    assert sorted(set(again) - {b"", lines[6][:9]}) == sorted(lines)
    assert len([line for line in again if line]) == 11


def test_the_same_again(tmp_path: Path) -> None:
    """Versions, seeds and the command are named; the command gives the same object once more."""
    needs_harness()
    words = [
        "--tasks",
        "atlas",
        "--limit",
        "3",
        "--num-fewshot",
        "1",
        "--system-prompt",
        "It's so.",
    ]
    words += ["--no-fewshot-as-multiturn", "--logit-bias", "2=-1", "--logit-bias", "3=1"]
    words += ["--gen-kwargs", "max_gen_toks=9", "-m", "atlas"]
    kept = ("--cache", str(tmp_path))
    variables = {"EFTLOCAL_SEED": "5", "EFTLOCAL_THREADS": "1", "EFTLOCAL_COLOR": "off"}
    first = run("eval", "tasks", *words, "--json", *kept, env=variables)
    found = json.loads(first.stdout)
    assert found["versions"] == {
        name: version(name) for name in ("eftlocal", "llama-cpp-python", "lm-eval")
    }
    assert set(found["seeds"].values()) == {5}
    program, *again = shlex.split(found["command"])
    assert program == "eftlocal"
    for word in (*words, "--seed", "--threads"):
        assert word in again or word == "-m"
    assert not {"--json", "--cache", "--color", "--fewshot-as-multiturn"} & set(again)
    second = run(*again, "--json", *kept)
    assert second.stdout == first.stdout
    text = run(*again, *kept).stdout
    assert f"Again: {found['command']}\n" in text and "Seeds: fewshot 5" in text
    assert all(f"{name} {value}" in text for name, value in found["versions"].items())


@pytest.mark.parametrize("seed", [None, 7])
def test_examples_are_those_of_the_harness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int | None
) -> None:
    """`lm_eval.simple_evaluate` asks the same texts, with and without a seed; all systems too."""
    needs_harness()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    write_tasks(tmp_path, 12)
    task, samples = tmp_path / "choice.yaml", tmp_path / "samples.jsonl"
    more = "fewshot_split: train\nprocess_docs: !function mixing.mixed\n"
    task.write_text(task.read_text(encoding="utf-8") + more, encoding="utf-8")
    (tmp_path / "mixing.py").write_text(MIXING, encoding="utf-8")
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    names = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    seeds = {} if seed is None else dict.fromkeys(names, seed)
    expected = simple_evaluate(
        "dummy", tasks=["atlas_choice"], num_fewshot=2, task_manager=manager, limit=4, **seeds
    )
    given = () if seed is None else ("--seed", str(seed))
    command = ("--tasks", str(task), "--num-fewshot", "2", "--limit", "4", *given, *CEILING)
    evaluate(tmp_path / "kept", *command, "--log-samples", str(samples))
    asked: dict[str, list[Any]] = {}
    for line in samples.read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        asked.setdefault(sample["system"], []).append(list(map(tuple, sample["arguments"])))
    texts = [sample["arguments"] for sample in expected["samples"]["atlas_choice"]]
    assert list(asked.values()) == [texts, texts]


def test_gsm8k_from_a_file(tmp_path: Path) -> None:
    """The harness's own prompt and filters; examples come from the file, never the question."""
    needs_harness()
    rows = [
        {"question": f"What is {n} plus 1?", "answer": f"It is.\n#### {n + 1}"} for n in range(6)
    ]
    data, samples = tmp_path / "math.jsonl", tmp_path / "samples.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = evaluate(
        tmp_path / "kept", "--tasks", f"gsm8k={data}", "--num-fewshot", "2",
        "--gen-kwargs", "max_gen_toks=8", "--log-samples", str(samples),
    )  # fmt: skip
    (table,) = found["tables"]
    assert {"exact_match,strict-match", "exact_match,flexible-extract"} <= table["rows"][0].keys()
    assert table["title"] == "gsm8k, 6 documents, 2-shot"
    for line in samples.read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        prompt = sample["arguments"][0][0]
        assert prompt.count("Question:") == 3 and prompt.count("####") == 2
        assert prompt.count(sample["doc"]["question"]) == 1
        assert sample["arguments"][0][1]["max_gen_toks"] == 8


def test_truthfulqa_from_a_file(tmp_path: Path) -> None:
    """mc1 has the best answer and the wrong ones, mc2 all of them."""
    needs_harness()
    data, samples = tmp_path / "truth.csv", tmp_path / "samples.jsonl"
    names = ["Question", "Best Answer", "Correct Answers", "Incorrect Answers"]
    with data.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([names, ["Is it, \n so?", "Yes", "Yes; It is", "No; Never; Not so"]])
    found = evaluate(
        tmp_path / "kept", "--tasks", f"truthfulqa={data}", "--log-samples", str(samples)
    )
    assert [table["title"].split(",")[0] for table in found["tables"]] == [
        "truthfulqa_mc1",
        "truthfulqa_mc2",
    ]
    one, two = map(json.loads, samples.read_text(encoding="utf-8").splitlines())
    assert [pair[1] for pair in one["arguments"]] == [" Yes", " No", " Never", " Not so"]
    chances = np.exp([float(answer[0]) for answer in two["filtered_resps"]])
    assert two["acc"] == pytest.approx(chances[:2].sum() / chances.sum())


def test_metrics_that_are_no_means(tmp_path: Path) -> None:
    """Perplexity of whole texts, from a YAML file; intervals from the same aggregate."""
    needs_harness()
    data = tmp_path / "lines.jsonl"
    texts = [item["question"] for item in items(24)]
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    task = tmp_path / "lines.yaml"
    task.write_text(PERPLEXITY.format(data=data), encoding="utf-8")
    found = evaluate(tmp_path / "kept", "--tasks", str(task), "--parts", *CEILING)
    (table,) = found["tables"]
    numbers = [row["word_perplexity,none"] for row in table["rows"]]
    for number, system in zip(numbers, found["systems"], strict=True):
        expected = system["lm_eval"]["results"]["lines"]["word_perplexity,none"]
        assert number["value"] == pytest.approx(expected)
        assert number["low"] < number["value"] < number["high"]
    fused, _, floor, _, ceiling = (number["value"] for number in numbers)
    expected = (fused - floor) / (ceiling - floor)
    assert table["rows"][0]["pgr,word_perplexity,none"]["value"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--tasks", "gsm8k=nowhere.jsonl"), "cannot read nowhere.jsonl"),
        (("--tasks", "arc=x.jsonl"), "only gsm8k and truthfulqa can be read from a file"),
        (("--tasks", "nowhere.yaml"), "there is no task file nowhere.yaml"),
        (("--tasks", "atlas,"), "--tasks has an empty name"),
        (("--tasks", "atlas", "--gen-kwargs", "beams=4"), "unknown generation setting 'beams'"),
        (("--tasks", "atlas", "--ceiling", "nowhere.gguf"), "nowhere.gguf"),
    ],
)
def test_what_cannot_be_asked(args: tuple[str, ...], message: str, tmp_path: Path) -> None:
    """One line each."""
    needs_harness()
    result = run("eval", "tasks", "--cache", str(tmp_path), *args)
    assert result.exit_code in (1, 2)
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_names_that_are_near() -> None:
    """An unknown task names those that look alike."""
    message = harness._unknown("helaswag", ["hellaswag", "arc_easy"])
    assert "did you mean hellaswag?" in message
    error = ConnectionError("no network")
    assert "has to be downloaded" in harness._why(error, ["hellaswag"])
    assert issubclass(eftlocal.UsageError, EftlocalError)
