"""`eftlocal eval judge` and endpoints that differ, fail, are slow, or lose their client."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .cli_helpers import command, environment, run
from .judge_server import (
    QUESTIONS,
    Answer,
    JudgeServer,
    Script,
    Seen,
    counts,
    good,
    judged,
    judging,
    mean,
    refusal,
    six_questions,
    verdict,
)

Json = dict[str, Any]


@pytest.fixture
def base(tmp_path: Path) -> list[str]:
    """The options of every run."""
    return six_questions(tmp_path)


def test_an_endpoint_without_schemas(base: list[str]) -> None:
    """What is refused with 400 is asked in a plainer form; after two times at once."""

    def plain(seen: Seen) -> Answer:
        if "response_format" in seen.body:
            return refusal(400, "response_format is not supported")
        assert seen.body["temperature"] == 0
        return "The reply is wrong twice.\n**VERDICT:** 2"

    with judging(plain) as server:
        found = judged(*base, "--concurrency", "1", *server.options())
    assert mean(found) == 2
    assert len(server.seen) == len(QUESTIONS) + 2


def test_an_endpoint_that_refuses_temperatures(base: list[str]) -> None:
    """As models that think do."""

    def thinking(seen: Seen) -> Answer:
        if {"temperature", "max_tokens"} & seen.body.keys():
            return refusal(400, "unsupported parameter")
        assert seen.body["max_completion_tokens"] == 1024
        return verdict(2)

    with judging(thinking) as server:
        found = judged(*base, "--concurrency", "1", *server.options())
    assert mean(found) == 2
    assert len(server.seen) == len(QUESTIONS) + 4


FAILURES: dict[str, tuple[Answer, str]] = {
    "401": (refusal(401, "secret-key is wrong"), "refuses the key (401); set JUDGE_KEY"),
    "403": (refusal(403, "no"), "refuses the key (403)"),
    "404": (refusal(404, "no model scripted"), "has no model 'scripted'"),
    "429": (refusal(429, "slowly"), "still asks to slow down after 0 retries (429)"),
    "500": (refusal(500, "secret-key \x1b[31mfire"), "status 500: *** [31mfire"),
    "page": ((200, "<html>Welcome</html>"), "no chat completion"),
    "empty": ((200, {"choices": []}), "no chat completion"),
    "list": ((200, "[]", {"Content-Type": "application/json"}), "no chat completion"),
    "torn": ((200, "{", {"Content-Type": "application/json"}), "no JSON"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_one_line_and_lose_nothing(name: str, base: list[str]) -> None:
    """What was judged before stays; the next run asks for the rest alone."""
    answer, words = FAILURES[name]
    more = ["--concurrency", "1", "--judge-retries", "0", "--judge-key-env", "JUDGE_KEY"]
    env = {"JUDGE_KEY": "secret-key"}
    broken = True

    def failing(seen: Seen) -> Answer:
        return answer if broken and seen.number >= 3 else verdict(2)

    with judging(failing) as server:
        args = [*base, *more, *server.options()]
        result = run(*args, env=env)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1 and words in result.stderr, result.stderr
        assert server.url in result.stderr
        assert "secret-key" not in result.output and "\x1b" not in result.output
        assert {s.headers["authorization"] for s in server.seen} == {"Bearer secret-key"}
        before = {seen.user for seen in server.seen[:3]}
        server.seen.clear()
        broken = False
        assert mean(judged(*args)) == 2
        assert len(server.seen) == len(QUESTIONS) - 3
        assert not before & {seen.user for seen in server.seen}


def test_nobody_is_there(base: list[str]) -> None:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    result = run(*base, "--judge", url, "--judge-model", "x", "--judge-retries", "0")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert f"the judge at {url} cannot be reached" in result.stderr


def test_a_slow_judge(base: list[str]) -> None:
    """One that answers too late."""
    release = threading.Event()

    def slow(seen: Seen) -> Answer:
        release.wait(20)
        return verdict(2)

    with judging(slow) as server:
        more = ["--judge-timeout", "0.2", "--judge-retries", "0"]
        result = run(*base, *more, *server.options())
        release.set()
    assert result.exit_code == 1
    assert "does not answer within 0.2 s; raise --judge-timeout" in result.stderr


def test_a_busy_judge_is_asked_again(base: list[str]) -> None:
    """429 with Retry-After, then 503: waited for, and nothing is missing."""
    first: dict[str, int] = {}

    def busy(seen: Seen) -> Answer:
        first[seen.user] = first.get(seen.user, 0) + 1
        if first[seen.user] == 1:
            return (429, {"error": {"message": "later"}}, {"Retry-After": "0.05"})
        if first[seen.user] == 2:
            return (503, {"error": {"message": "later"}}, {"Retry-After": "0.05"})
        return verdict(2)

    with judging(busy) as server:
        found = judged(*base, "--judge-retries", "2", *server.options())
    assert mean(found) == 2
    assert counts(found) == (0, 0)
    assert set(first.values()) == {3}


@pytest.mark.parametrize("count", [1, 3])
def test_concurrency(count: int, base: list[str]) -> None:
    """As many requests at once as allowed, and never more."""

    def waiting(seen: Seen) -> Answer:
        # The others come while this one waits.
        deadline = time.monotonic() + 5
        while len(server.seen) < min(count, len(QUESTIONS)) and time.monotonic() < deadline:
            time.sleep(0.005)
        return verdict(2)

    with judging(waiting) as server:
        judged(*base, "--concurrency", str(count), *server.options())
    assert server.most_at_once == count


@pytest.fixture
def halting() -> Iterator[tuple[JudgeServer, threading.Event]]:
    """A judge that answers three questions, and the others once it is told to."""
    release = threading.Event()

    def script(seen: Seen) -> Answer:
        if seen.number >= 3:
            release.wait(30)
        return verdict(2)

    made: Script = script
    with judging(made) as server:
        yield server, release
        release.set()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_and_continued(
    how: signal.Signals, base: list[str], tmp_path: Path,
    halting: tuple[JudgeServer, threading.Event],
) -> None:  # fmt: skip
    """However it is stopped, the next run asks only what has no verdict yet."""
    server, release = halting
    args = [*base, "--concurrency", "1", *server.options()]
    process = subprocess.Popen(
        command(*args),
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(server.seen) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    out, errors = process.communicate(timeout=20)
    assert not out
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert errors.strip() == "eftlocal: stopped; the same command goes on from here"
    before = {seen.user for seen in server.seen[:3]}
    server.seen.clear()
    release.set()
    found = judged(*args)
    assert mean(found) == 2
    assert len(server.seen) == 3
    assert not before & {seen.user for seen in server.seen}
    server.seen.clear()
    assert judged(*args) == found
    assert not server.seen


def test_another_model_or_server_is_asked_anew(base: list[str]) -> None:
    """Verdicts belong to a model at a URL."""
    with judging(good) as one, judging(good) as two:
        judged(*base, *one.options())
        judged(*base, *one.options("other"))
        judged(*base, *two.options())
        assert (len(one.seen), len(two.seen)) == (2 * len(QUESTIONS), len(QUESTIONS))


def test_without_the_package(
    base: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line says what to install; without a judge it is not needed."""
    monkeypatch.delitem(sys.modules, "eftlocal.evaluate.judge.endpoint", raising=False)
    monkeypatch.setitem(sys.modules, "openai", None)
    result = run(*base, "--judge", "http://127.0.0.1:9/v1", "--judge-model", "x")
    assert result.exit_code == 2
    expected = "eftlocal: eftlocal eval judge needs more packages: pip install 'eftlocal[eval]'\n"
    assert result.stderr == expected
    assert run(*base, "--out", str(tmp_path / "asks.jsonl")).exit_code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--judge", "http://x/v1"], "--judge and --judge-model go together"),
        (["--second-judge", "http://x/v1", "--second-judge-model", "x"], "needs --judge"),
        (["--judge", "ftp://x", "--judge-model", "x"], "is not the URL of an API"),
        (["--judge", "http://me:pw@x/v1", "--judge-model", "x"], "holds no password"),
        (["--judge", "http://x:port/v1", "--judge-model", "x"], "is not the URL of an API"),
        (
            "--judge http://x/v1 --judge-model x "
            "--second-judge http://x/v1/ --second-judge-model x".split(),
            "the second judge is the first one",
        ),
        (["--roles", "beauty"], "there is no role 'beauty'"),
        (["--pairs"], "add --parts or --ceiling"),
        (["--json"], "add --judge or --verdicts"),
        (["--verdicts", "a", "--verdicts", "b", "--verdicts", "c"], "more than two judges"),
        (["--out", "no/such/folder/x"], "there is no folder no/such/folder"),
        (["--parts", "--ceiling", "no.gguf"], "no.gguf"),
    ],
)
def test_wrong_usage(options: list[str], words: str, base: list[str]) -> None:
    """Said in one line before anything is loaded; a password is not repeated."""
    result = run(*base, *options)
    assert result.exit_code in (1, 2)
    assert result.stderr.count("\n") == 1 and words in result.stderr
    assert "me:pw" not in result.stderr
