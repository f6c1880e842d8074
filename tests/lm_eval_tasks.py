"""Tasks for lm-evaluation-harness, made of atlas's questions, and what it does with requests."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

QUESTIONS = (
    Path(__file__).resolve().parents[1] / "eftlocal" / "families" / "atlas" / "questions.jsonl"
)

_CHOICE_TASK = """
task: atlas_choice
dataset_path: json
dataset_kwargs:
  data_files: {data}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list:
  - metric: acc
"""
_CHAT_TASK = """
task: atlas_chat
dataset_path: json
dataset_kwargs:
  data_files: {data}
test_split: train
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[label]}}}}"
generation_kwargs:
  until: ["\\n\\n"]
  max_gen_toks: 40
  temperature: 0
metric_list:
  - metric: exact_match
"""

Item = dict[str, Any]
COUNT = int(os.environ.get("EFTLOCAL_LM_EVAL", "24"))
"""How many questions the harness asks; the bar is 200, which takes some minutes."""


def items(count: int) -> list[Item]:
    """Questions with four answers each, one of them right; the same ones every time."""
    rng = random.Random(6)
    with QUESTIONS.open(encoding="utf-8") as lines:
        questions = [json.loads(line) for line in lines]
    found: list[Item] = []
    for question in questions[:count]:
        right = question["answers"][0]
        others = {other["answers"][0] for other in questions} - {right}
        choices = [right, *rng.sample(sorted(others), 3)]
        rng.shuffle(choices)
        entry = {"question": question["question"], "choices": choices}
        found.append({**entry, "label": choices.index(right)})
    return found


def write_tasks(folder: Path, count: int) -> None:
    """A task of multiple choice and one of chatting, as files that lm-eval reads."""
    data = folder / "items.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items(count)), encoding="utf-8")
    for name, text in (("choice", _CHOICE_TASK), ("chat", _CHAT_TASK)):
        (folder / f"{name}.yaml").write_text(text.format(data=data), encoding="utf-8")


def scoring_request(prompts: Sequence[Sequence[int]]) -> Item:
    """What `LocalCompletionsAPI` of lm-eval 0.4.13 sends to score prompts."""
    return {
        "model": "atlas",
        "prompt": [list(prompt) for prompt in prompts],
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "seed": 1234,
        "echo": True,
    }


def read_scores(answer: Item, starts: Sequence[int]) -> list[tuple[float, bool]]:
    """What it reads in the answer: sum of the log-probs from each start on, and "is greedy"."""
    scores = []
    choices = sorted(answer["choices"], key=itemgetter("index"))
    for choice, start in zip(choices, starts, strict=True):
        logprobs = choice["logprobs"]["token_logprobs"][start:-1]
        top = choice["logprobs"]["top_logprobs"][start:-1]
        pairs = zip(logprobs, top, strict=True)
        is_greedy = all(logprob == max(row.values()) for logprob, row in pairs)
        scores.append((sum(logprobs), is_greedy))
    return scores


def run_lm_eval(folder: Path, task: str, arguments: list[str]) -> list[Item]:
    """Run it as a program of its own; returns the samples that it logs."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder / "cache"),
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-m", "lm_eval", "run", *arguments, "--tasks", task]
    command += ["--include_path", str(folder), "--output_path", str(folder / "out")]
    command += ["--log_samples"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    (samples,) = (folder / "out").rglob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]


def run_in_process(folder: Path, task: str, model: str, arguments: Item, **more: Any) -> list[Item]:
    """Run it in this process, without the seconds in which it looks for all of its tasks.

    Samples are as `run_lm_eval` gives them, but scores are no texts, and arguments are tuples.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = simple_evaluate(
        model, arguments, tasks=[task], task_manager=manager, bootstrap_iters=0, **more
    )
    samples: list[Item] = found["samples"][task]
    return samples
