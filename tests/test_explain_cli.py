"""`eftlocal explain`, and `--trace` of the other commands, as transcripts on random models."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

import eftlocal
from eftlocal.explain import read_trace

from .cli_chat import face, new_chat, replies, say
from .cli_helpers import ENDLESS, command, environment, files, run
from .conftest import Trio

PROMPT = "the other thing"
SHORT = ("--max-tokens", "10", "--seed", "5")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One thread, and no conversations of the user."""
    monkeypatch.setenv("EFTLOCAL_THREADS", "1")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="module")
def saved(trio: Trio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of two replies, the second by a searched alpha."""
    path = tmp_path_factory.mktemp("saved") / "trace.jsonl"
    for args in (["--alpha", "0.5"], ["--alpha", "dynamic", "--temperature", "0"]):
        made = run("complete", *files(trio), *SHORT, *args, "--threads", "1",
                   "--trace", str(path), PROMPT)  # fmt: skip
        assert made.exit_code == 0, made.stderr
    return path


def test_explains_an_answer(trio: Trio) -> None:
    """The answer of chat is shown with marks, a summary and a table."""
    result = run("explain", *files(trio), *SHORT, PROMPT)
    assert (result.exit_code, result.stderr) == (0, "")
    answer = run("chat", *files(trio), *SHORT, PROMPT).stdout
    first, drawn = result.stdout.split("\n\n", 2)[:2]
    assert first.startswith("base.gguf: ")
    assert PROMPT in first
    marks = re.compile(r"[\s\[\]]|\\n|<[^>]*>")
    assert marks.sub("", drawn) == marks.sub("", answer)
    assert "10 tokens, mean total variation" in result.stdout
    assert "every model's own choice" in result.stdout
    assert "\x1b" not in result.stdout


def test_verbose_adds_timings(trio: Trio) -> None:
    """Timings go to stderr, as with the other commands."""
    result = run("explain", *files(trio), *SHORT, "--verbose", PROMPT)
    assert [line.split()[0] for line in result.stderr.splitlines()][:2] == ["load", "prompt"]
    assert result.stdout == run("explain", *files(trio), *SHORT, PROMPT).stdout


def test_raw_explains_a_completion(trio: Trio) -> None:
    """`--raw --json` has the tokens of complete, with their traces."""
    args = [*files(trio), *SHORT, "--json", PROMPT]
    content = json.loads(run("explain", "--raw", *args).stdout)
    same = json.loads(run("complete", *args).stdout)
    assert content["text"] == same["text"]
    assert content["prompt_tokens"] == same["prompt_tokens"]
    assert [token["token"] for token in content["tokens"]] == same["tokens"]
    assert content["summary"]["tokens"] == len(same["tokens"])
    assert all(len(token["trace"]["total_variation"]) == 1 for token in content["tokens"])
    assert content["options"]["seed"] == 5
    assert "changes" not in content


def test_system_prompts_reach_the_template(trio: Trio) -> None:
    """`-s` is part of the prompt that is shown."""
    result = run("explain", *files(trio), *SHORT, "-s", "Be curt.", PROMPT)
    assert "Be curt." in result.stdout.splitlines()[0]


def test_trace_of_explain_draws_the_same(trio: Trio, tmp_path: Path) -> None:
    """What `--trace` saves is drawn by `--from` exactly as the reply itself was."""
    path = tmp_path / "trace.jsonl"
    # Where the clock chooses drafts, the sizes of batches move the last digits.
    asked = [*files(trio), *SHORT, "--draft", "off", PROMPT]
    new = run("explain", *asked, "--trace", str(path))
    again = run("explain", "--from", str(path))
    assert (again.exit_code, again.stderr) == (0, "")
    assert again.stdout == new.stdout
    objects = [
        json.loads(run("explain", "--json", *args).stdout)
        for args in (["--from", str(path)], asked)
    ]
    assert objects[0] == objects[1]


def test_from_draws_the_last_reply_or_the_one_asked_for(saved: Path) -> None:
    """`--reply N` counts from 1, and no model is loaded."""
    drawings = [run("explain", "--from", str(saved), *args).stdout for args in
                ([], ["--reply", "1"], ["--reply", "2"])]  # fmt: skip
    assert drawings[0] == drawings[2] != drawings[1]
    assert "Alpha was fixed at 0.5." in drawings[1]
    assert "(dynamic)" in drawings[2]


def test_alpha_with_from_says_what_would_have_changed(saved: Path, trio: Trio) -> None:
    """At another alpha the first change is the first token in which that alpha's text differs."""
    path = str(saved)
    same = run("explain", "--from", path, "--reply", "1", "--alpha", "0.5")
    assert "At alpha 0.5 the same tokens" in same.stdout
    content = json.loads(run("explain", "--from", path, "--alpha", "0", "--json").stdout)
    changes = content["changes"]
    tokens = [token["token"] for token in content["tokens"]]
    args = [*files(trio), *SHORT, "--temperature", "0", "--alpha", "0", "--json", PROMPT]
    other = json.loads(run("complete", *args).stdout)["tokens"]
    differing = [i for i, pair in enumerate(zip(tokens, other, strict=False)) if len({*pair}) > 1]
    assert changes["places"][0]["index"] == differing[0]
    assert changes["places"][0]["new"] == other[differing[0]]
    drawn = run("explain", "--from", path, "--alpha", "0").stdout
    assert drawn.count(" -> ") == len(changes["places"])


def test_colours_follow_the_option(saved: Path) -> None:
    """`--color on` colours a pipe, NO_COLOR and off do not."""
    args = ["explain", "--from", str(saved)]
    assert "\x1b[" in run(*args, "--color", "on").stdout
    assert "\x1b[" not in run(*args, "--color", "off").stdout
    assert "\x1b[" not in run(*args, env={"NO_COLOR": "1"}).stdout
    by_alpha = run(*args, "--by", "alpha", "--color", "on").stdout
    assert "underlined" in by_alpha
    assert run(*args, env={"EFTLOCAL_BY": "alpha", "EFTLOCAL_COLOR": "on"}).stdout == by_alpha


def test_pages_are_written(saved: Path, tmp_path: Path) -> None:
    """`--html` writes one page beside what is printed, and says so."""
    path = tmp_path / "page.html"
    result = run("explain", "--from", str(saved), "--html", str(path), "--alpha", "1.5")
    assert result.exit_code == 0
    assert result.stderr == f"eftlocal: wrote {path}\n"
    assert result.stdout == run("explain", "--from", str(saved), "--alpha", "1.5").stdout
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "At another alpha" in text


def test_cut_traces_are_drawn_with_a_remark(saved: Path, tmp_path: Path) -> None:
    """A file whose writer was stopped is still of use."""
    path = tmp_path / "cut.jsonl"
    path.write_bytes(saved.read_bytes()[:-60])
    result = run("explain", "--from", str(path))
    assert result.exit_code == 0
    assert result.stderr == "eftlocal: the last line of this reply is cut off and left out\n"
    assert "9 tokens" in result.stdout


def test_prompts_from_standard_input(trio: Trio) -> None:
    """A piped prompt is explained like one that is given."""
    args = ["explain", *files(trio), *SHORT]
    assert run(*args, text=PROMPT + "\n").stdout == run(*args, PROMPT).stdout


def test_ctrl_c_shows_what_there_is(trio: Trio, tmp_path: Path) -> None:
    """SIGINT ends the reply, which is drawn as far as it came; the trace grows meanwhile."""
    path = tmp_path / "trace.jsonl"
    options = ("--ctx", "2048", *ENDLESS, "--rows", "0", "--trace", str(path))
    args = command("explain", *files(trio), *options, PROMPT)
    with subprocess.Popen(
        args, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        while child.poll() is None and (not path.exists() or path.read_text().count("\n") < 5):
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        shown, remarks = child.communicate(timeout=60)
        assert (child.returncode, remarks.strip()) == (130, "")
    (saved,) = read_trace(path)
    assert 3 < len(saved.tokens) < 2000
    assert f"{len(saved.tokens)} tokens, mean total variation" in " ".join(shown.split())


WRONG = {
    "no prompt": ([], "no prompt"),
    "reply alone": (["--reply", "1", "x"], "--from FILE"),
    "raw system": (["--raw", "-s", "x", "y"], "not both"),
    "by": (["--by", "tv", "x"], "total-variation"),
    "page folder": (["--html", "/", "x"], "is a folder"),
    "page nowhere": (["--html", "/no/such/page.html", "x"], "there is no folder"),
    "no trace": (["--trace", __file__, "x"], "no trace"),
}


@pytest.mark.parametrize(("args", "message"), WRONG.values(), ids=WRONG)
def test_wrong_usage(trio: Trio, args: list[str], message: str) -> None:
    """What cannot be done is wrong usage: one line, exit code 2, before models are loaded."""
    result = run("explain", "--base", "/no", "--tuned", "/no", "--reference", "/no", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


WRONG_SAVED = {
    "prompt": (["hello"], "PROMPT has no meaning"),
    "model": (["-m", "atlas"], "--model has no meaning"),
    "seed": (["--seed", "3"], "--seed has no meaning"),
    "trace": (["--trace", "x"], "--trace has no meaning"),
    "word": (["--alpha", "dynamic"], "--alpha dynamic needs the models"),
    "reply": (["--reply", "3"], "has 2 replies; there is no --reply 3"),
    "zero": (["--reply", "0"], "--reply"),
}


@pytest.mark.parametrize(("args", "message"), WRONG_SAVED.values(), ids=WRONG_SAVED)
def test_wrong_usage_of_saved_traces(saved: Path, args: list[str], message: str) -> None:
    """Options that need a model are refused with --from, and so is an alpha that is no number."""
    result = run("explain", "--from", str(saved), *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_files_that_are_no_traces(tmp_path: Path) -> None:
    """A lost file fails, another kind of file is wrong usage; one line each."""
    lost = run("explain", "--from", str(tmp_path / "no.jsonl"))
    assert (lost.exit_code, lost.stderr.count("\n")) == (1, 1)
    assert "cannot read" in lost.stderr
    other = run("explain", "--from", __file__)
    assert (other.exit_code, other.stderr.count("\n")) == (2, 1)
    assert "no trace" in other.stderr


def test_settings_of_the_environment_do_not_stop_from(saved: Path) -> None:
    """Only what is typed is refused: EFTLOCAL_SEED and EFTLOCAL_ALPHA may stay set."""
    env = {"EFTLOCAL_SEED": "3", "EFTLOCAL_ALPHA": "dynamic", "EFTLOCAL_MODEL": "atlas"}
    result = run("explain", "--from", str(saved), env=env)
    assert result.exit_code == 0
    assert result.stdout == run("explain", "--from", str(saved)).stdout


@pytest.mark.parametrize("name", ["complete", "chat"])
def test_trace_changes_nothing_else(trio: Trio, tmp_path: Path, name: str) -> None:
    """With --trace the other commands print the same, and the file has what they printed."""
    path = tmp_path / "trace.jsonl"
    args = [name, *files(trio), *SHORT, PROMPT]
    plain, traced = run(*args), run(*args, "--trace", str(path))
    assert (traced.exit_code, traced.stderr) == (0, "")
    assert traced.stdout == plain.stdout
    run(*args, "--trace", str(path), "--json", "--alpha", "0.5")
    replies = read_trace(path)
    assert [reply.header.options["alpha"] for reply in replies] == [1.0, 0.5]
    assert replies[0].text.strip() == plain.stdout.strip()
    assert PROMPT in replies[0].header.prompt


def test_every_reply_of_a_conversation_is_traced(trio: Trio, tmp_path: Path) -> None:
    """Messages and regenerated replies are appended with the seeds that they had."""
    from eftlocal.cli.tracing import TracedSession, make_traced
    from eftlocal.explain import TraceWriter

    path = tmp_path / "trace.jsonl"
    with eftlocal.load(**trio._asdict(), threads=1, ctx=256) as model, TraceWriter(path) as writer:
        make_traced(model)
        chat = new_chat(trio, model)
        plain = chat.session
        session = TracedSession(plain.arguments, plain.load_model, model, options=plain.options)
        session.writer = writer
        chat.session = session
        say(chat, "hello")
        first = replies(chat)[0]
        say(chat, "/regen", "and you?")
        saved = read_trace(path)
        assert [item.text for item in saved] == [first, *replies(chat)]
        assert [item.header.options["seed"] for item in saved] == [5, 5 + 1_000_003, 6]
        # A trace that can be written no longer does not end the chat.
        writer.close()
        say(chat, "more")
        assert len(replies(chat)) == 3
        assert any("no longer written" in text for text in face(chat).warnings)
        assert "no longer written" not in say(chat, "still there")
        assert len(replies(chat)) == 4
    assert len(read_trace(path)) == 3
