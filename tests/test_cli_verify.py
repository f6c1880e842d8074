"""`eftlocal verify` on the command line; what it finds is tested in test_hub_verify.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from eftlocal import hub
from eftlocal.registry import Source

from .cli_helpers import run
from .hub_client import hub_at
from .hub_data import Fault
from .hub_server import HubServer

DATA = b"not really a model" * 1000
ENTRY = """
[models.mine]
base = { hf = "a/b", file = "x.Q8_0.gguf" }
tuned = { hf = "a/b", file = "y.Q8_0.gguf" }
reference = { hf = "a/b", file = "z.Q8_0.gguf" }
"""


@pytest.fixture
def server() -> Iterator[HubServer]:
    """A stand-in with two of the entry's three files."""
    with HubServer() as running:
        running.add("a/b", {"x.Q8_0.gguf": DATA, "y.Q8_0.gguf": DATA[::-1]})
        yield running


@pytest.fixture
def cache(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own, and the entry in the user's file."""
    file = tmp_path / "models.toml"
    file.write_text(ENTRY)
    monkeypatch.setenv("EFTLOCAL_MODELS", str(file))
    with hub_at(server, tmp_path / "home", monkeypatch) as folder:
        yield folder


def test_a_line_per_file(server: HubServer, cache: Path) -> None:
    """Those that are there, those that are not yet, and those that never will be."""
    hub.download([Source(hf="a/b", file="x.Q8_0.gguf")])
    result = run("verify", "mine")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line[:14].strip() for line in lines] == ["ok", "not downloaded", "missing"]
    assert "18.0 kB  a/b/x.Q8_0.gguf" in lines[0]
    assert "a/b has no file z.Q8_0.gguf" in lines[2]
    assert result.stderr == "eftlocal: 1 of 3 files is not right, see above\n"
    server.repositories["a/b"].files["z.Q8_0.gguf"] = DATA
    result = run("verify", "mine")
    assert (result.exit_code, result.stderr) == (0, "")


def test_json(server: HubServer, cache: Path) -> None:
    """The same for programs."""
    (path,) = hub.download([Source(hf="a/b", file="x.Q8_0.gguf")])
    result = run("verify", "--json", "mine")
    content = json.loads(result.stdout)
    assert (result.exit_code, result.stderr, content["ok"]) == (1, "", False)
    first, second, third = content["files"]
    assert first == {
        "name": "a/b/x.Q8_0.gguf",
        "status": "ok",
        "size": len(DATA),
        "detail": "",
        "path": str(path),
    }
    assert (second["status"], second["path"]) == ("not downloaded", None)
    assert third["status"] == "missing"


def test_all_entries_offline(server: HubServer, cache: Path) -> None:
    """Without a name every entry is looked at, those that are shipped too."""
    result = run("verify", "--offline")
    assert (result.exit_code, result.stderr) == (0, ""), result.stdout
    assert "a/b/x.Q8_0.gguf" in result.stdout and "large.gguf" in result.stdout
    assert server.seen == []


def test_the_hub_has_to_answer(server: HubServer, cache: Path) -> None:
    """One line, which names the way without it."""
    server.faults.append(Fault("api", 503))
    result = run("verify", "mine")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the hub has a problem (503)" in result.stderr and result.stderr.count("\n") == 1
    assert result.stderr.endswith("--offline checks only what is here\n")
    assert run("verify", "--offline", "mine").exit_code == 0


def test_single_files(server: HubServer, cache: Path) -> None:
    """What `pull` takes, `verify` takes."""
    assert run("verify", "hf:a/b/x.Q8_0.gguf").exit_code == 0
    assert run("verify", "nonsense").exit_code == 1
