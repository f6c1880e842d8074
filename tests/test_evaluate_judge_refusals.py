"""`eftlocal eval judge` and questions that a judge refuses, or does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cli_helpers import run
from .judge_server import (
    QUESTIONS,
    Answer,
    Seen,
    completion,
    counts,
    judged,
    judging,
    mean,
    refusal,
    six_questions,
    verdict,
)


@pytest.fixture
def base(tmp_path: Path) -> list[str]:
    """The options of every run."""
    return six_questions(tmp_path)


def test_a_question_that_is_too_long(base: list[str]) -> None:
    """Has no verdict; the others have theirs, and the form of questions stays."""

    def short(seen: Seen) -> Answer:
        assert "response_format" in seen.body
        if "Kenya" in seen.user:
            return refusal(400, "too many tokens", code="context_length_exceeded")
        return verdict(2)

    with judging(short) as server:
        found = judged(*base, *server.options())
    assert mean(found) == 2
    assert counts(found) == (1, 1)
    assert len(server.seen) == len(QUESTIONS)


def test_one_400_does_not_make_all_questions_plainer(base: list[str]) -> None:
    """The form is lowered where it is refused again and again only."""

    def moody(seen: Seen) -> Answer:
        if "response_format" in seen.body and ("Peru" in seen.user or "Japan" in seen.user):
            return refusal(400, "no schema for this one")
        return verdict(2)

    with judging(moody) as server:
        found = judged(*base, "--concurrency", "1", *server.options())
    assert mean(found) == 2 and counts(found) == (0, 0)
    forms = ["response_format" in seen.body for seen in server.seen]
    assert (forms.count(True), forms.count(False)) == (len(QUESTIONS), 2)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("bad", ["France", "Kenya"])
def test_a_question_that_is_refused(status: int, bad: str, base: list[str]) -> None:
    """Has no verdict, wherever it stands; it alone is asked again, and may have one then."""
    broken = True

    def filtering(seen: Seen) -> Answer:
        if bad in seen.user and broken:
            return refusal(status, "the content filter says no", code="content_filter")
        assert "response_format" in seen.body
        return verdict(2)

    with judging(filtering) as server:
        args = [*base, "--concurrency", "1", *server.options()]
        found = judged(*args)
        assert mean(found) == 2 and counts(found) == (1, 1)
        server.seen.clear()
        assert judged(*args) == found
        assert server.seen and all(bad in seen.user for seen in server.seen)
        server.seen.clear()
        broken = False
        assert counts(judged(*args)) == (0, 0)
        assert len(server.seen) == 1
        judged(*args)
        assert len(server.seen) == 1


def test_many_refused_questions_do_not_stop_later_runs(base: list[str]) -> None:
    """A judge that has answered before is not given up when it refuses all that is left."""

    def filtering(seen: Seen) -> Answer:
        takes = "France" in seen.user or "Peru" in seen.user
        return verdict(2) if takes else refusal(400, "no")

    with judging(filtering) as server:
        args = [*base, "--concurrency", "1", *server.options()]
        found = judged(*args)
        assert counts(found) == (4, 4)
        assert judged(*args) == found


def test_a_judge_that_refuses_everything(base: list[str]) -> None:
    """Is given up after three questions, in one line with its own words."""
    with judging(lambda seen: refusal(400, "I do not like this")) as server:
        args = [*base, "--concurrency", "1", *server.options()]
        result = run(*args)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "status 400: I do not like this" in result.stderr
        # Each in four forms.
        assert len(server.seen) == 3 * 4
        result = run(*args, "--every", "3")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    words = "gave no verdict on any of 2 questions; it refuses them: I do not like this"
    assert words in result.stderr


def test_an_answer_without_content(base: list[str]) -> None:
    """Null is asked again; where a judge gives no verdict at all, one line says so."""
    with judging(lambda seen: (200, completion(None))) as server:
        result = run(*base, *server.options())
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    words = "gave no verdict on any of 6 questions; what it answers cannot be read: nothing"
    assert words in result.stderr
    assert len(server.seen) == 2 * len(QUESTIONS)


def test_a_file_without_verdicts(base: list[str], tmp_path: Path) -> None:
    """One line says so, too."""
    asks, path = tmp_path / "asks.jsonl", tmp_path / "verdicts.jsonl"
    run(*base, "--out", str(asks))
    keys = [line.split('"')[3] for line in asks.read_text().splitlines()]
    path.write_text("".join(f'{{"key": "{key}", "verdict": null}}\n' for key in keys))
    result = run(*base, "--verdicts", str(path))
    expected = f"eftlocal: {path} has no verdict that can be read on what is asked here\n"
    assert (result.exit_code, result.stderr) == (1, expected)
