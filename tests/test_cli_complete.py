"""`eftlocal complete`, as transcripts on random models."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

import eftlocal
from eftlocal import Timings

from .cli_helpers import ENDLESS, command, environment, files, run
from .conftest import Trio

PROMPT = "the other thing"
KEYS = [
    "text",
    "prompt_tokens",
    "tokens",
    "logprobs",
    "alphas",
    "drafted",
    "accepted",
    "finish_reason",
    "timings",
]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests share the machine."""
    monkeypatch.setenv("EFTLOCAL_THREADS", "1")


def expected(trio: Trio, **options: object) -> eftlocal.Completion:
    """What the Python API returns for the same prompt."""
    with eftlocal.load(**trio._asdict(), threads=1) as model:
        return model.complete(PROMPT, **options)


def test_prints_the_text_of_the_python_api(trio: Trio) -> None:
    """The text alone goes to stdout, ended by one line end, without control codes."""
    result = run("complete", *files(trio), "--max-tokens", "12", "--seed", "5", PROMPT)
    assert (result.exit_code, result.stderr) == (0, "")
    text = expected(trio, max_tokens=12, seed=5).text
    assert result.stdout == text + "\n"
    assert "\x1b" not in result.stdout
    assert "\r" not in result.stdout


def test_json_has_what_the_contract_names(trio: Trio) -> None:
    """`--json` prints the keys of the contract, in accordance with the Python API."""
    args = ["--max-tokens", "12", "--seed", "5", "--draft", "4", "--alpha", "0.5"]
    result = run("complete", *files(trio), "--json", *args, PROMPT)
    content = json.loads(result.stdout)
    assert list(content) == KEYS
    same = expected(trio, max_tokens=12, seed=5, draft=4, alpha=0.5)
    assert content["text"] == same.text
    assert content["tokens"] == list(same.tokens)
    assert content["prompt_tokens"] == list(same.prompt_tokens)
    assert content["logprobs"] == pytest.approx(list(same.logprobs), abs=1e-4)
    assert content["alphas"] == [[0.5]] * len(same.tokens)
    assert content["drafted"] == same.timings.drafted > 0
    assert content["accepted"] == same.timings.accepted
    assert content["finish_reason"] == same.finish_reason
    assert set(content["timings"]) == {f.name for f in fields(Timings)} | {"load_seconds"}


def test_prompt_as_token_ids(trio: Trio) -> None:
    """`--tokens` takes the ids that a text prompt becomes."""
    base = ["complete", *files(trio), "--json", "--max-tokens", "8", "--temperature", "0"]
    by_text = json.loads(run(*base, PROMPT).stdout)
    ids = ",".join(map(str, by_text["prompt_tokens"]))
    by_ids = json.loads(run(*base, "--tokens", ids).stdout)
    assert by_ids["prompt_tokens"] == by_text["prompt_tokens"]
    assert by_ids["tokens"] == by_text["tokens"]


@pytest.mark.parametrize("args", [[], ["-"]], ids=["piped", "dash"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=["bare", "newline", "crlf"])
def test_prompt_from_standard_input(trio: Trio, args: list[str], end: str) -> None:
    """A piped prompt is the prompt, less the line end that echo adds."""
    base = ["complete", *files(trio), "--json", "--max-tokens", "4"]
    piped = json.loads(run(*base, *args, text=PROMPT + end).stdout)
    given = json.loads(run(*base, PROMPT).stdout)
    assert piped["prompt_tokens"] == given["prompt_tokens"]


def test_a_given_prompt_leaves_standard_input_alone(trio: Trio) -> None:
    """With PROMPT nothing is read, so that loops of a shell keep their input."""
    base = ["complete", *files(trio), "--json", "--max-tokens", "4"]
    assert (
        json.loads(run(*base, PROMPT, text="ignored").stdout)["prompt_tokens"]
        == (json.loads(run(*base, PROMPT).stdout)["prompt_tokens"])
    )


PROMPT_ERRORS = {
    "none": ([], b"", "no prompt"),
    "empty": ([], b"\n", "standard input is empty"),
    "bytes": ([], b"\xff\xfe\xff", "not UTF-8"),
    "two": (["--tokens", "1", "hi"], b"", "not both"),
    "words": (["--tokens", "1,x"], b"", "use token ids such as 1,2,3"),
    "foreign ids": (["--tokens", "1,999999"], b"", "1199"),
    "negative ids": (["--tokens", "1,-5"], b"", "1199"),
    "no ids": (["--tokens", ""], b"", "empty"),
}


@pytest.mark.parametrize(("args", "text", "message"), PROMPT_ERRORS.values(), ids=PROMPT_ERRORS)
def test_unusable_prompts(trio: Trio, args: list[str], text: bytes, message: str) -> None:
    """A prompt that cannot be used is wrong usage: one line, exit code 2."""
    result = run("complete", *files(trio), *args, text=text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_prompt_longer_than_the_context(trio: Trio) -> None:
    """Nothing is truncated: the line names the tokens and the limit."""
    result = run("complete", *files(trio), "--ctx", "256", "word " * 300)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "256" in result.stderr
    assert "ctx" in result.stderr
    assert result.stderr.count("\n") == 1


def test_full_context_is_said(trio: Trio) -> None:
    """A text that the end of the context cut off is printed, with a line on stderr."""
    result = run("complete", *files(trio), "--ctx", "256", *ENDLESS, "--temperature", "0", PROMPT)
    assert result.exit_code == 0
    assert len(result.stdout) > 100
    assert result.stderr.startswith("eftlocal: the context is full (256 of 256 tokens)")
    assert "--ctx" in result.stderr


def test_stop_ends_the_text(trio: Trio) -> None:
    """`--stop` may be repeated, and its text is not printed."""
    whole = expected(trio, max_tokens=30, seed=5).text
    middle = whole[len(whole) // 2 : len(whole) // 2 + 3]
    args = ["--max-tokens", "30", "--seed", "5", "--stop", "\u2603", "--stop", middle]
    result = run("complete", *files(trio), *args, PROMPT)
    assert result.stdout == whole[: whole.index(middle)] + "\n"


def test_verbose_prints_timings_to_stderr(trio: Trio) -> None:
    """Timings are no part of the text."""
    args = ["--max-tokens", "12", "--seed", "5", "--draft", "4"]
    result = run("complete", *files(trio), "--verbose", *args, PROMPT)
    assert result.stdout == run("complete", *files(trio), *args, PROMPT).stdout
    starts = [line.split()[0] for line in result.stderr.splitlines()]
    assert starts == ["load", "prompt", "generation", "first", "mean", "draft"]
    assert "mean alpha  1.000" in result.stderr


def test_closed_pipe_is_quiet(trio: Trio, tmp_path: Path) -> None:
    """`eftlocal complete ... | head -c 20` ends soon and says nothing."""
    args = command("complete", *files(trio), "--ctx", "2048", *ENDLESS, PROMPT)
    with subprocess.Popen(
        args, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(20)
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(timeout=30) == 1


def test_ctrl_c_prints_what_there_is(trio: Trio, tmp_path: Path) -> None:
    """SIGINT ends a generation at once: the text so far, no traceback, exit code 130."""
    args = command("complete", *files(trio), "--ctx", "2048", *ENDLESS, PROMPT)
    with subprocess.Popen(
        args, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        start = child.stdout.read(20)
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read()
        assert child.wait(timeout=30) == 130
        assert child.stderr.read().strip() == ""
    assert len(start + rest) < 4000
    assert rest.endswith("\n")
