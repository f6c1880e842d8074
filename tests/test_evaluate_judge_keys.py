"""`eftlocal eval judge` sends keys to those whom they are for, and nothing else that is secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eftlocal.cli.eval_judge_options import Wishes

from .cli_helpers import run
from .judge_server import Answer, Seen, good, judging, refusal, six_questions, verdict


@pytest.fixture
def base(tmp_path: Path) -> list[str]:
    """The options of every run."""
    return six_questions(tmp_path)


def test_keys_stay_with_their_judges(base: list[str]) -> None:
    """Another server does not get the first one's key, unless it has a variable of its own."""
    env = {"OPENAI_API_KEY": "first-key", "OTHER": "other-key"}
    with judging(good) as one, judging(good) as two:
        args = [*base, *one.options(), *two.options("b", "second-judge")]
        assert run(*args, env=env).exit_code == 0
        assert {s.headers["authorization"] for s in one.seen} == {"Bearer first-key"}
        assert {s.headers["authorization"] for s in two.seen} == {"Bearer none"}
        two.seen.clear()
        args = [*args[:-1], "c", "--second-judge-key-env", "OTHER"]
        assert run(*args, env=env).exit_code == 0
        assert {s.headers["authorization"] for s in two.seen} == {"Bearer other-key"}
        args = [*base, *one.options(), *one.options("d", "second-judge")]
        assert run(*args, env=env).exit_code == 0
        assert {s.headers["authorization"] for s in one.seen} == {"Bearer first-key"}


def test_nothing_else_of_the_environment_is_sent(base: list[str]) -> None:
    """What the openai package would send along is not for every judge."""
    env = {
        "OPENAI_API_KEY": "the-key",
        "OPENAI_ORG_ID": "secret-organization",
        "OPENAI_PROJECT_ID": "secret-project",
        "OPENAI_ADMIN_KEY": "secret-admin",
        "OPENAI_CUSTOM_HEADERS": "X-Gateway: secret-token\nAuthorization: Bearer secret-key",
    }
    with judging(good) as server:
        assert run(*base, *server.options(), env=env).exit_code == 0
    for seen in server.seen:
        assert seen.headers["authorization"] == "Bearer the-key"
        assert not any("secret" in value for value in seen.headers.values())
        assert not any(name.startswith("openai-") for name in seen.headers)


def through(proxy: str) -> dict[str, str]:
    """An environment in which every URL leads to a proxy."""
    url = proxy.removesuffix("/v1")
    names = ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY")
    return dict(zip(names, (url, url, "", ""), strict=True)) | {"OPENAI_API_KEY": "openai-key"}


def test_the_default_key_is_for_openai_and_this_machine(base: list[str]) -> None:
    """Others get none; where they want one, the line names the option."""

    def picky(seen: Seen) -> Answer:
        if seen.headers["authorization"] == "Bearer none":
            return refusal(401, "who are you?")
        return verdict(2)

    # One at once, so that none is under way when a run ends.
    judge = ["--judge", "http://judge.example/v1", "--judge-model", "x", "--concurrency", "1"]
    named = [*judge, "--judge-key-env", "OPENAI_API_KEY"]
    other = ["--second-judge", "http://other.example/v1", "--second-judge-model", "y"]
    with judging(picky) as server:
        env = through(server.url)
        result = run(*base, *judge, env=env)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "wants a key, and was sent none (401)" in result.stderr
        assert "with --judge-key-env" in result.stderr
        assert server.seen and {s.headers["host"] for s in server.seen} == {"judge.example"}
        assert {s.headers["authorization"] for s in server.seen} == {"Bearer none"}
        server.seen.clear()
        assert run(*base, *named, env=env).exit_code == 0
        assert {s.headers["authorization"] for s in server.seen} == {"Bearer openai-key"}
        server.seen.clear()
        result = run(*base, *named, *other, env=env)
        assert result.exit_code == 1 and "with --second-judge-key-env" in result.stderr
        assert {s.headers["authorization"] for s in server.seen} == {"Bearer none"}


@pytest.mark.parametrize(
    ("url", "sends"),
    [
        ("https://api.openai.com/v1", True),
        ("https://API.OpenAI.com:443/v1", True),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com.example/v1", False),
        ("https://example/api.openai.com/v1", False),
        ("http://127.0.0.1:8080/v1", True),
        ("http://127.8.9.1/v1", True),
        ("http://[::1]:8080/v1", True),
        ("http://localhost:8080/v1", True),
        ("http://localhost.example/v1", False),
        ("http://192.168.0.5:8080/v1", False),
        ("http://0.0.0.0:8080/v1", False),
    ],
)
def test_who_is_sent_the_default_key(
    url: str, sends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever is named with the key's variable is sent it, too."""
    monkeypatch.setenv("OPENAI_API_KEY", "openai-key")
    (server,) = wishes(judge=url).servers()
    assert server.key == ("openai-key" if sends else "none")
    (server,) = wishes(judge=url, judge_key_env="OPENAI_API_KEY").servers()
    assert server.key == "openai-key"


def wishes(**more: str) -> Wishes:
    """The options of one judge."""
    given: dict[str, Any] = dict.fromkeys(Wishes.__dataclass_fields__)
    given |= {"judge_timeout": 1.0, "judge_retries": 0, "concurrency": 1, "judge_max_tokens": 9}
    return Wishes(**{**given, "judge_model": "x", **more})
