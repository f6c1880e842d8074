"""`eftlocal generate`: lines in, lines out, in order, and going on where it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import eftlocal
from eftlocal.batch import run_batch
from eftlocal.cli.generate import AHEAD, Run
from eftlocal.cli.generate_input import Line, Manner, items_of, read_lines, seed_of
from eftlocal.cli.generate_output import open_output
from eftlocal.cli.interrupts import Interrupts

from .cli_generate import CHILE, chat, generate, read, write
from .cli_helpers import run

MANNER = Manner(as_messages=False, logprobs=False, samples=1, plain=None, system=None)


WRONG: Mapping[bytes, str] = {
    b"{not json": "not JSON",
    b"[1, 2]": "not a JSON object",
    b'"text"': "not a JSON object",
    b'{"prompt": 5}': "prompt is not a text",
    b'{"messages": {}}': "messages is not a list",
    b'{"messages": []}': "no messages",
    b'{"messages": [5]}': "message 1 is not a table",
    b'{"messages": [{"role": "nobody", "content": "x"}]}': "role 'nobody'",
    b'{"prompt": "a", "messages": []}': "both prompt and messages",
    b'{"text": "a"}': "unknown field",
    b'{"id": 3}': "neither prompt nor messages",
    b'{"prompt": "a", "temprature": 1}': "did you mean temperature?",
    b'{"prompt": "a", "temperature": "hot"}': "temperature = 'hot' is not allowed",
    b'{"prompt": "a", "temperature": NaN}': "holds NaN, which is no number of JSON",
    b'{"id": NaN, "prompt": "a"}': "holds NaN, which is no number of JSON",
    b'{"prompt": "a", "metadata": {"x": [-Infinity]}}': "holds -Infinity, which is no number",
    b'{"id": 1e400, "prompt": "a"}': "holds 1e400, a number too large",
    b'{"custom_id": NaN, "url": "/v1/completions", "body": {"prompt": "a"}}': "holds NaN",
    b'{"prompt": "a", "lambda": 0.5}': "lambda",
    b'{"prompt": "a", "weight": {"nobody": 1}}': "nobody",
    b'{"prompt": "a", "seed": "x"}': "seed = 'x' is not allowed",
    b'{"prompt": "a", "seed": -1}': "seed = -1 is not allowed",
    b'{"prompt": "a", "n": 0}': "n is not a whole number",
    b'{"prompt": "a", "n": true}': "n is not a whole number",
    b'{"prompt": "a", "n": 2.0}': "n is not a whole number",
    b'{"prompt": "a", "logit_bias": {"x": 1}}': "logit_bias",
    b'{"prompt": "a", "regex": "("}': "regex",
    b'{"prompt": "a", "metadata": 4}': "metadata is not an object",
    b'{"prompt": "\\ud800"}': "not UTF-8",
    b'{"prompt": "\xff"}': "not UTF-8",
    b"[" * 100_000: "nested too deeply",
    b'{"prompt": "' + b"word " * 9000 + b'"}': "context",
    b'{"custom_id": "a", "url": "/v1/embeddings", "body": {}}': "url is not one of",
    b'{"custom_id": "a", "url": "/v1/completions", "body": 4}': "body is not an object",
    b'{"custom_id": "a", "url": "/v1/completions", "body": {"messages": []}}': "unknown field",
    b'{"custom_id": "a", "url": "/v1/completions", "body": {"stream": true}}': "stream = true",
}


def test_wrong_lines_tell_what_is_wrong_and_the_others_go_on(tmp_path: Path) -> None:
    """Every mistake is an error in its own line; the exit code tells that there were some."""
    good = {"id": "good", "prompt": "The capital of Chile is", "max_tokens": 3}
    lines: list[Any] = []
    for wrong in WRONG:
        lines += [wrong, good]
    source, output = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    told = generate(source, output, code=1)
    found = read(output)
    assert len(found) == len(lines)
    for one, (data, message) in zip(found[::2], WRONG.items(), strict=True):
        assert "error" in one, data
        error = one["error"]
        assert message in error["message"], data
        assert "internal error" not in error["message"] and "\n" not in error["message"]
    assert [one["index"] for one in found if "index" in one][:4] == [0, 1, 2, 3]
    assert {one["text"] for one in found[1::2]} == {found[1]["text"]} and found[1]["text"]
    assert f"{len(WRONG)} of them errors" in told
    assert "were there already" in generate(source, output, code=1)


def test_results_are_those_of_the_model_alone(tmp_path: Path, atlas: eftlocal.FusedModel) -> None:
    """A line has the text that the Python API gives with its options and its seed."""
    lines = [
        chat(CHILE, id="first", metadata={"lines": "a\u2028b\x85c"}),
        {"prompt": "The capital of Peru is", "max_tokens": 12, "temperature": 1.0, "stop": ["."]},
        b"  ",
        chat("Who wrote Hamlet?", alpha=0.5, seed=11, temperature=1.0, n=3),
    ]
    source, output = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    generate(source, output, "--max-tokens", "40", "--logprobs", "--seed", "5")
    found = read(output)
    assert [one["id"] for one in found] == ["first", 2, 4, 4, 4]
    assert [one["index"] for one in found] == [0, 1, 2, 2, 2]
    assert [one.get("sample") for one in found] == [None, None, 0, 1, 2]
    assert found[0]["metadata"] == {"lines": "a\u2028b\x85c"} and found[2]["seed"] == 11
    assert len({one["seed"] for one in found}) == 5
    options: list[dict[str, Any]] = [
        {"max_tokens": 40},
        {"max_tokens": 12, "temperature": 1.0, "stop": ["."]},
        *([{"max_tokens": 40, "alpha": 0.5, "temperature": 1.0}] * 3),
    ]
    for one, more in zip(found, options, strict=True):
        more = {**more, "draft": "off", "seed": one["seed"]}
        if one["index"] == 1:
            done = atlas.complete("The capital of Peru is", **more)
        else:
            question = CHILE if one["index"] == 0 else "Who wrote Hamlet?"
            done = atlas.chat(chat(question)["messages"], **more)
        assert (one["text"], one["finish_reason"]) == (done.text, done.finish_reason)
        assert one["tokens"] == list(done.tokens) and len(one["alphas"]) == len(done.tokens)
        assert one["logprobs"] == pytest.approx(list(done.logprobs), abs=1e-4)
        assert one["prompt_tokens"] == len(done.prompt_tokens)
        assert one["completion_tokens"] == len(done.tokens) and one["model"] == "atlas"


def test_openai_batches_are_answered_in_their_form(tmp_path: Path) -> None:
    """custom_id comes back, choices are as many as n, and OpenAI's own classes read the bodies."""
    body = {"model": "gpt", **chat(CHILE), "n": 2, "max_completion_tokens": 30, "temperature": 1}
    text = {"model": "gpt", "prompt": "The capital of", "max_tokens": 4}
    lines = [
        {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": body},
        {"custom_id": "t", "method": "POST", "url": "/v1/completions", "body": text},
        {"custom_id": "w", "method": "POST", "url": "/v1/nothing", "body": text},
    ]
    source, output = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    generate(source, output, code=1)
    found = read(output)
    assert [one["custom_id"] for one in found] == ["c", "t", "w"]
    assert found[2]["response"] is None and "url is not one of" in found[2]["error"]["message"]
    answer, continued = (one["response"]["body"] for one in found[:2])
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["total_tokens"] > 30 and len(continued["choices"][0]["text"]) > 3
    types = pytest.importorskip("openai.types")
    assert types.chat.ChatCompletion.model_validate(answer, strict=True).choices[1].message.content
    assert types.Completion.model_validate(continued, strict=True).choices[0].finish_reason


MISTAKES: Mapping[str, tuple[list[str], str]] = {
    "no input": (["-i", "nosuch.jsonl", "-o", "o"], "cannot read nosuch.jsonl: No such file"),
    "folder": (["-i", ".", "-o", "o"], "--input . is a folder"),
    "empty": (["-i", "empty", "-o", "o"], "empty is empty: there is nothing to generate"),
    "list": (["-i", "list.json", "-o", "o"], "holds a list; write one object per line"),
    "output folder": (["-i", "good", "-o", "."], "--output . is a folder"),
    "no folder": (["-i", "good", "-o", "no/o"], "there is no folder no"),
    "same": (["-i", "good", "-o", "good"], "are the same file"),
    "no output": (["-i", "good"], "Missing option '--output'"),
    "logprobs": (
        ["-i", "good", "-o", "o", "--format", "messages", "--logprobs"],
        "--logprobs goes",
    ),
    "entry": (["-i", "good", "-o", "o", "-m", "nosuch"], "nosuch"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what is wrong, and no file is made."""
    monkeypatch.chdir(tmp_path)
    write(Path("good"), [chat(CHILE)])
    Path("empty").write_text("\n \n")
    Path("list.json").write_text('\n[{"prompt": "x"}]')
    before = sorted(os.listdir())
    args, message = MISTAKES[name]
    result = run("generate", *args)
    assert result.exit_code in (1, 2) and message in result.stderr
    assert result.stderr.count("\n") == 1 and sorted(os.listdir()) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """The line that does not fit is the last one that is tried."""
    source = write(tmp_path / "in.jsonl", [chat(CHILE)] * 30)
    told = generate(source, "/dev/full", "--max-tokens", "2", code=1)
    assert told == "eftlocal: cannot write /dev/full: No space left on device\n"


def test_standard_streams(tmp_path: Path) -> None:
    """Lines go through a pipe, results on standard output and the rest on standard error."""
    text = json.dumps(chat(CHILE)) + "\n" + json.dumps({"prompt": "Größe \u2028 €"})
    more = ("--threads", "1", "--max-tokens", "3")
    result = run("generate", "-i", "-", "-o", "-", *more, text=text.encode())
    assert result.exit_code == 0
    assert [json.loads(line)["index"] for line in result.stdout.splitlines()] == [0, 1]
    assert "2 lines written" in result.stderr


def test_seeds_depend_on_the_line_alone() -> None:
    """No two texts share one, and neither the lines before nor other samples change it."""
    lines = [json.dumps({"prompt": "x", "n": 3}).encode()] * 50
    items = list(items_of(read_lines(b"\n".join(lines), MANNER), MANNER))
    seeds = [seed_of(item.line, item.samples[0], 7) for item in items]
    assert len(set(seeds)) == 150 and all(0 <= seed < 2**53 for seed in seeds)
    assert seeds != [seed_of(item.line, item.samples[0], 8) for item in items]
    shorter = list(items_of(read_lines(b"\n".join(lines[:9]), MANNER), MANNER))
    assert [seed_of(item.line, item.samples[0], 7) for item in shorter] == seeds[:27]


def test_no_job_starts_far_ahead_of_what_is_written(atlas: eftlocal.FusedModel) -> None:
    """`may_start` holds jobs back, and what it raises ends what runs."""
    taken: list[int] = []

    def job(number: int) -> Any:
        taken.append(number)
        return atlas.prepare_complete("One", max_tokens=2, draft="off")

    allowed = [3]
    jobs = [lambda number=number: job(number) for number in range(9)]
    for done, (index, _) in enumerate(run_batch(atlas, jobs, lambda: len(taken) < allowed[0])):
        assert index == done and len(taken) <= allowed[0]
        allowed[0] = done + 2
    assert taken == list(range(9))

    def stop() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(run_batch(atlas, jobs, stop))
    assert atlas.complete("One", max_tokens=2).tokens


class Noted(Mapping[str, Any]):
    """Options that say when they are read, which is when their line is begun."""

    def __init__(self, options: Mapping[str, Any], note: Callable[[], None]) -> None:
        self._options, self._note = options, note

    def __getitem__(self, name: str) -> Any:
        return self._options[name]

    def __iter__(self) -> Iterator[str]:
        self._note()
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)


def test_results_that_wait_for_an_earlier_one_are_few(tmp_path: Path) -> None:
    """While the first text is long, only so many others are begun; all come out in order."""
    output = tmp_path / "out.jsonl"
    distances = []

    def line(index: int, **options: Any) -> Line:
        def note() -> None:
            distances.append(index - output.read_bytes().count(b"\n"))

        return Line(index, index, "One", Noted({**options, "draft": "off"}, note))

    endless = {2: -1000, 262: -1000}
    lines = [line(0, max_tokens=150, logit_bias=endless)]
    lines += [line(i, max_tokens=2) for i in range(1, 41)]
    items = list(items_of(lines, MANNER))
    with (
        eftlocal.load("atlas", threads=1, parallel=2) as model,
        Interrupts() as interrupts,
        open_output(str(output), b"", {}, overwrite=False, own_errors=False) as opened,
    ):
        Run(items, opened, MANNER, {}).perform(model, interrupts)
    assert max(distances) == 2 * AHEAD
    assert [one["index"] for one in read(output)] == list(range(41))
