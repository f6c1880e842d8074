"""The README says what is true: its commands, its example, its list of files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import eftlocal

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code(language: str) -> list[str]:
    """The contents of all fenced blocks of a language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [content for name, content in blocks if name == language]


def listed() -> Iterator[str]:
    """The paths that the list of files names."""
    block = next(block for block in code("") if "models.toml  " in block)
    folders: list[str] = []
    for line in block.splitlines():
        name = line.split()[0]
        folders = folders[: (len(line) - len(line.lstrip())) // 2]
        yield "/".join([*(folder.rstrip("/") for folder in folders), name.rstrip("/")])
        folders.append(name)


def test_the_two_commands_are_one_line_each() -> None:
    """Each can be copied whole; the tests' one is what .ci/run looks for."""
    install = next(block for block in code("sh") if "eftlocal chat" in block)
    assert install.count("\n") == 1
    marker = "<!-- .ci/run runs exactly the next command -->\n```sh\n"
    command = README.split(marker)[1].split("```")[0]
    assert command.count("\n") == 1
    assert command.strip().endswith("&& scripts/test")
    assert "torch" not in install + command


def test_the_list_of_files_is_complete() -> None:
    """Every listed file exists, and every module of the package is listed with one comment."""
    names = list(listed())
    assert [name for name in names if not (ROOT / name).exists()] == []
    modules = {
        str(path.relative_to(ROOT)).replace("\\", "/")
        for path in (ROOT / "eftlocal").rglob("*.py")
        if path.parent.name == "eftlocal" or path.name != "__init__.py"
    }
    assert modules - set(names) == set()
    assert len(names) == len(set(names))


def test_the_python_example_uses_public_names() -> None:
    """The example is Python, about ten lines, and everything that it uses exists."""
    (example,) = code("python")
    assert len(example.strip().splitlines()) <= 10
    used = {
        node.attr
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("eftlocal", "model")
    }
    assert used == {"load", "chat", "stream_complete"}
    assert all(hasattr(eftlocal, name) or hasattr(eftlocal.FusedModel, name) for name in used)


def test_the_slash_commands_are_those_of_the_chat() -> None:
    """The table of commands lists each one once."""
    from eftlocal.cli.commands import COMMANDS

    rows = re.findall(r"^\| (`/.*?) \|", README, re.MULTILINE)
    assert sorted(re.findall(r"/\w+", " ".join(rows))) == sorted(COMMANDS)


def test_links_lead_somewhere() -> None:
    """Files and headings that the text links to exist, and nothing is left for later."""
    titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    headings = {"#" + re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        is_there = target in headings or (ROOT / target).exists()
        assert target.startswith("https://") or is_there, target
    assert "TODO" not in README
