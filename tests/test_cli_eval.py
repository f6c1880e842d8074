"""`eftlocal eval`: help, reports as text, JSON and pages, and runs that are killed."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import click
import pytest

from eftlocal.cli.eval import COMMANDS
from eftlocal.cli.eval import eval as group
from eftlocal.evaluate.run import STUDIES

from .cli_helpers import command, environment, run

FEW = ("--every", "60")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep results of the user out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def content(text: str) -> dict[str, Any]:
    """A report in JSON without what the clock said."""

    def timeless(value: Any) -> Any:
        if isinstance(value, list):
            return [timeless(item) for item in value]
        if isinstance(value, dict):
            return {name: timeless(item) for name, item in value.items() if name != "times"}
        return value

    found: dict[str, Any] = timeless(json.loads(text))
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    """Each explains itself."""
    result = run("eval", name, "--help")
    assert result.exit_code == 0
    assert f"eftlocal eval {name}" in result.stdout


def test_the_group_has_a_command_for_every_study() -> None:
    """The table of the command line and that of the studies agree."""
    assert [name for name in COMMANDS if name in STUDIES] == list(STUDIES)
    context = click.Context(group)
    for name in COMMANDS:
        found = group.get_command(context, name)
        assert found is not None and found.name == name


def test_a_report_in_the_terminal() -> None:
    """Facts, claims with verdicts, tables with intervals."""
    result = run("eval", "scale", *FEW)
    assert result.exit_code == 0, result.stderr
    assert "* Up-scaling helps factuality" in result.stdout
    assert re.search(r"small-chat \(floor\) +\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", result.stdout)
    assert "one of every 60" in result.stdout
    assert all(len(line) <= 100 for line in result.stdout.split("All systems")[0].splitlines()[9:])


def test_a_page_and_json_of_the_same(tmp_path: Path) -> None:
    """--html writes a page, --json prints the numbers that stand in it."""
    page = tmp_path / "report.html"
    result = run("eval", "frontier", *FEW, "--json", "--html", str(page))
    assert result.exit_code == 0, result.stderr
    (section,) = content(result.stdout)["sections"].values()
    text = page.read_text(encoding="utf-8")
    assert section["title"] in text and "<svg" in text
    for claim in section["claims"]:
        assert claim["text"] in text and claim["found"] in text
    first = section["tables"][0]["rows"][0]["answered"]
    assert f"{first['value']:.2f} [{first['low']:.2f}, {first['high']:.2f}]" in text


def test_killed_runs_end_with_the_same_report(tmp_path: Path) -> None:
    """Whenever they were killed: the report of all studies is that of a run that was left alone.

    EFTLOCAL_KILLS says how often, EFTLOCAL_KILLS_EVERY which questions are asked.
    """
    kills, every = os.environ.get("EFTLOCAL_KILLS", "3"), os.environ.get("EFTLOCAL_KILLS_EVERY")
    arguments = command("eval", "all", "--every", every or "100", "--json", "--cache")
    variables = environment(tmp_path)
    started = time.monotonic()
    whole = subprocess.run(
        [*arguments, str(tmp_path / "whole")],
        env=variables, capture_output=True, text=True, check=True,
    )  # fmt: skip
    longest = 2 * (time.monotonic() - started) / (int(kills) + 1)
    rng = random.Random(7)
    n_killed = 0
    for _ in range(int(kills)):
        with subprocess.Popen(
            [*arguments, str(tmp_path / "torn")],
            env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            time.sleep(rng.uniform(0.5, longest))
            n_killed += process.poll() is None
            process.kill()
    assert n_killed
    torn = subprocess.run(
        [*arguments, str(tmp_path / "torn")],
        env=variables, capture_output=True, text=True, check=True,
    )  # fmt: skip
    print(f"killed {n_killed} times")
    assert content(torn.stdout) == content(whole.stdout)


def test_a_result_that_is_kept_is_not_computed_again(tmp_path: Path) -> None:
    """What stands in the store is what is reported; --fresh computes it."""
    cache = tmp_path / "kept"
    arguments = ("eval", "frontier", *FEW, "--json", "--cache", str(cache))
    first = run(*arguments)
    for file in cache.glob("*.jsonl"):
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub(r'"text":"[^"]*"', '"text":"I am sorry, no."', text), "utf-8")
    (section,) = content(run(*arguments).stdout)["sections"].values()
    assert {row["refused"]["value"] for row in section["tables"][0]["rows"]} == {1.0}
    assert content(run(*arguments, "--fresh").stdout) == content(first.stdout)


WRONG = {
    "unknown study": (["all", "--only", "scale,sacle"], "there is no study 'sacle'; use scale, fr"),
    "no number": (["scale", "--every", "0"], "0 is not in the range x>=1"),
    "no folder": (["scale", "--html", "missing/report.html"], "there is no folder missing"),
    "a folder": (["scale", "--html", "."], "--html . is a folder; name a file"),
    "unknown command": (["scales"], "No such command 'scales'"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_usage_is_one_line(arguments: list[str], message: str) -> None:
    """Exit code 2, before anything is computed."""
    result = run("eval", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_cache_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    """Exit code 1: a file is in its place."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = run("eval", "scale", *FEW, "--cache", str(tmp_path / "file"))
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "cannot use" in result.stderr
