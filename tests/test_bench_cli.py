"""`eftlocal bench` on the command line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from eftlocal.bench import SECTIONS

from .cli_helpers import files, run
from .conftest import Trio

ONE_THREAD = {"EFTLOCAL_THREADS": "1", "EFTLOCAL_CTX": "256"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--only", "floors,speed"), "there is no section 'speed'; use load, floors"),
        (("--only", ""), "there is no section ''"),
        (("--shape", "huge"), "there is no shape 'huge'; use small,"),
        (("--shape", "small", "-m", "atlas"), "give --shape, or a model, not both"),
        (("-m", "nobody"), "nobody"),
        (("--html", "no/such/folder.html"), "there is no folder no/such"),
    ],
)
def test_wrong_use_is_one_line(args: tuple[str, ...], said: str) -> None:
    """Before anything is loaded or written."""
    result = run("bench", *args)
    assert result.exit_code != 0 and result.stdout == ""
    assert said in result.stderr and result.stderr.count("\n") == 1


def test_help_lists_sections_and_shapes() -> None:
    """What can be measured is in the help."""
    text = run("bench", "--help").stdout
    assert all(name in text for name in (*SECTIONS, "qwen2.5-7b+0.5b", "large=WIDTHxLAYERS"))


def test_json_and_a_page(trio: Trio, tmp_path: Path) -> None:
    """Only the sections that were asked for, in their own order, and the page beside."""
    target = tmp_path / "bench.html"
    args = ("--quick", "--only", "prefill,floors", "--json", "--html", str(target))
    result = run("bench", *files(trio), *args, env=ONE_THREAD)
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert list(content["sections"]) == ["floors", "prefill"]
    assert content["facts"]["model"] == "base.gguf"
    roles = [row["role"] for row in content["sections"]["floors"][0]["rows"]]
    assert roles[:3] == ["base", "tuned", "reference"]
    assert "<svg" in target.read_text(encoding="utf-8")


def test_a_shape_is_measured_and_its_files_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table names the shape, and the temporary folder is empty again."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shape = "large=256x2,small=256x1,vocab=1000"
    result = run("bench", "--quick", "--only", "decoding", "--shape", shape, env=ONE_THREAD)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split(maxsplit=1) == ["model", shape]
    (floor,) = (line for line in lines if line.split()[:1] == ["floor"])
    assert floor.endswith("-")
    assert not list(tmp_path.iterdir())


def test_options_of_generation_count(trio: Trio) -> None:
    """A filter given on the command line belongs to the model's own settings; wrong ones fail."""
    result = run("bench", *files(trio), "--top-p", "7", "--only", "decoding", env=ONE_THREAD)
    assert result.exit_code != 0 and "top_p = 7" in result.stderr
