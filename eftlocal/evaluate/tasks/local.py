"""Tasks whose data is here already: the harness's own on local files, and atlas's."""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
from lm_eval.tasks._yaml_loader import load_yaml

from ... import EftlocalError, UsageError
from ...textfiles import filled_lines, json_value, read_text
from ..questions import Question, holds, read_questions
from ..systems import FAMILY

Config = dict[str, Any]
Row = dict[str, Any]

ATLAS = ("atlas", "atlas-chat")
FILES = ("gsm8k", "truthfulqa")
N_CHOICES = 4


def local_tasks(name: str, path: Path | None) -> list[Config]:
    """The configurations of a local task, as the harness takes them.

    Args:
        name: atlas or atlas-chat; or, with a file, gsm8k (JSON lines with question and answer) or
            truthfulqa (its csv; gives mc1 and mc2).
        path: of the data.

    Raises:
        UsageError: for another name, or a file that cannot be read.
        EftlocalError: for a file of another form.
    """
    if path is None and name in ATLAS:
        return [_atlas() if name == "atlas" else _atlas_chat()]
    if path is not None and name in FILES:
        path = path.expanduser()
        return [_gsm8k(path)] if name == "gsm8k" else _truthfulqa(path)
    raise UsageError(f"{name}=FILE: only {' and '.join(FILES)} can be read from a file")


def _harness(name: str, file: str, rows: list[Row]) -> Config:
    """A task of the harness with other data."""
    (folder,) = lm_eval.tasks.__path__
    config: Config = load_yaml(Path(folder) / name / file)
    config.pop("tag", None)
    config.pop("dataset_name", None)
    # There is one split, so that examples come from it, too; never the question itself.
    splits = {"training_split": None, "validation_split": None, "test_split": "test"}
    return {**config, **splits, "fewshot_split": "test", **_data(rows)}


def _data(rows: list[Row]) -> Config:
    return {"dataset_path": "local", "custom_dataset": partial(_dataset, rows)}


def _dataset(rows: list[Row], **more: Any) -> Mapping[str, Any]:
    """What the harness would have downloaded; it passes on settings that do not matter."""
    found: Mapping[str, Any] = datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
    return found


def _gsm8k(path: Path) -> Config:
    rows = []
    for number, line in filled_lines(read_text(path)):
        try:
            row = json_value(line)
            rows.append({"question": str(row["question"]), "answer": str(row["answer"])})
        except (ValueError, TypeError, KeyError):
            raise EftlocalError(
                f"{path}, line {number}: no JSON with question and answer"
            ) from None
    return _harness("gsm8k", "gsm8k.yaml", _some(rows, path))


def _truthfulqa(path: Path) -> list[Config]:
    """Choices are the answers of the columns, as in the data set of the task's authors."""
    rows = []
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    for row in reader:
        try:
            right, wrong = _answers(row["Correct Answers"]), _answers(row["Incorrect Answers"])
            best, question = row["Best Answer"].strip(), row["Question"].strip()
        except (KeyError, AttributeError):
            names = "Question, Best Answer, Correct Answers and Incorrect Answers"
            raise EftlocalError(f"{path}: the columns {names} are needed") from None
        rows.append(
            {
                "question": question,
                "mc1_targets": _targets([best], wrong),
                "mc2_targets": _targets(right, wrong),
            }
        )
    rows = _some(rows, path)
    return [_harness("truthfulqa", f"truthfulqa_{kind}.yaml", rows) for kind in ("mc1", "mc2")]


def _answers(column: str) -> list[str]:
    return [answer.strip() for answer in column.split(";") if answer.strip()]


def _targets(right: Sequence[str], wrong: Sequence[str]) -> Row:
    return {"choices": [*right, *wrong], "labels": [1] * len(right) + [0] * len(wrong)}


def _some(rows: list[Row], path: Path) -> list[Row]:
    if not rows:
        raise EftlocalError(f"{path} holds no questions")
    return rows


def _atlas() -> Config:
    """Multiple choice on facts: which of four answers is the likeliest."""
    return {
        "task": "atlas",
        "output_type": "multiple_choice",
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "metric_list": [_metric("acc")],
        "metadata": {"version": 1.0},
        **_data(atlas_choices()),
    }


def _atlas_chat() -> Config:
    """The same questions, answered freely; right where an accepted answer is in the reply."""
    questions = read_questions(FAMILY / "questions.jsonl", Question)
    rows = [{"question": q.question, "entity": q.entity, "answers": q.answers} for q in questions]
    return {
        "task": "atlas-chat",
        "output_type": "generate_until",
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answers[0]}}",
        "process_results": contains,
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 64, "do_sample": False},
        "metric_list": [_metric("contains")],
        "metadata": {"version": 1.0},
        **_data(rows),
    }


def _metric(name: str) -> Config:
    return {"metric": name, "aggregation": "mean", "higher_is_better": True}


def contains(row: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether an accepted answer is in the reply, as whole words."""
    return {"contains": float(any(holds(results[0], answer) for answer in row["answers"]))}


def atlas_choices(seed: int = 0) -> list[Row]:
    """Atlas's questions with four answers each: question, entity, choices, label.

    The wrong ones are right answers of other questions, of those first that are worded most
    alike, so that an answer's kind alone does not give it away. The same ones every time.
    """
    questions = read_questions(FAMILY / "questions.jsonl", Question)
    words = [_words(question) for question in questions]
    rows = []
    for i, question in enumerate(questions):
        rng = random.Random(f"{seed} {question.question}")
        others = [j for j in range(len(questions)) if j != i]
        rng.shuffle(others)
        others.sort(key=partial(_distance, questions, words, i))
        accepted = {answer.lower() for answer in question.answers}
        answers = dict.fromkeys(questions[j].answers[0] for j in others)
        wrong = [answer for answer in answers if answer.lower() not in accepted]
        choices = [question.answers[0], *wrong[: N_CHOICES - 1]]
        rng.shuffle(choices)
        label = choices.index(question.answers[0])
        row = {"question": question.question, "entity": question.entity}
        rows.append({**row, "choices": choices, "label": label})
    return rows


def _distance(
    questions: Sequence[Question], words: Sequence[set[str]], i: int, j: int
) -> tuple[bool, int]:
    """How little two questions have to do with each other; to sort by."""
    return questions[i].subject != questions[j].subject, -len(words[i] & words[j])


def _words(question: Question) -> set[str]:
    """What a question is about, beside whom: its words of four letters or more."""
    text = question.question.replace(question.entity, " ").lower()
    return set(re.findall(r"\w{4,}", text))
