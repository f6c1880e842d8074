"""Entries are written into the user's models.toml and taken out again; the rest stays as it is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eftlocal.errors import RegistryError, UsageError
from eftlocal.registry import (
    NEUTRAL,
    PROMPTS,
    THINK,
    Entry,
    Expert,
    Source,
    parse_entries,
    read_entries,
)
from eftlocal.registry.editing import add_entry, check_name, remove_entry
from eftlocal.registry.writing import format_entry, format_value

LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
NAME = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="="),
    min_size=1,
    max_size=8,
).filter(lambda name: not name.startswith("-") and not any(map(str.isspace, name)))
REPOSITORY = st.from_regex(r"\A[A-Za-z0-9_.-]{1,8}/[A-Za-z0-9_.-]{1,8}\Z")
COUNT = st.none() | st.integers(1, 10**15)
DIGEST = st.none() | st.from_regex(r"\A[0-9a-f]{64}\Z")
PATHS = LINE.map(lambda text: Path("/models") / text.replace("\x00", "").lstrip("/"))

local_files = st.builds(Source, path=PATHS, sha256=DIGEST)
hub_files = st.builds(
    Source,
    hf=REPOSITORY,
    file=st.from_regex(r"\A[A-Za-z0-9_-]{1,9}(\.Q8_0)?\.gguf\Z"),
    evidence=st.sampled_from((None, "seen", "inferred")),
    sha256=DIGEST,
    size=COUNT,
    revision=st.none() | st.just("refs/pr-1"),
)
quants = st.builds(Source, hf=REPOSITORY, quant=st.sampled_from(("Q4_K_M", "iq3_m")))
sources = local_files | hub_files | quants
tuned = sources | st.builds(replace, sources, scale=st.floats(-1000, 1000))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """An entry with any of the keys that models.toml knows."""
    names = draw(st.just(["tuned"]) | st.lists(NAME, min_size=1, max_size=3, unique=True))
    experts = tuple(Expert(name, draw(tuned), draw(sources)) for name in names)
    name = draw(NAME)
    styles = st.sampled_from(("plain", "template")) | PATHS
    sampling: dict[str, Any] = {
        "temperature": draw(st.floats(0, 100)),
        "stop": draw(st.lists(LINE, max_size=2)),
        "logit_bias": draw(st.dictionaries(st.integers(0, 9), st.floats(-9, 9), max_size=2)),
        "weight": draw(st.dictionaries(st.sampled_from(names), st.floats(-9, 9), max_size=2)),
        "alpha": draw(st.sampled_from(("dynamic", 0.5, 1))),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(sampling))))
    return Entry(
        name,
        base=draw(sources),
        experts=experts,
        description=draw(st.just("") | LINE),
        prompt=draw(st.sampled_from(PROMPTS)),
        neutral=draw(st.sampled_from(NEUTRAL)),
        runtime=draw(st.fixed_dictionaries({}, optional={"ctx": st.integers(0, 9)})),
        options={key: sampling[key] for key in sorted(chosen)},
        aliases=tuple(draw(st.lists(NAME.filter(lambda a: a != name), max_size=2, unique=True))),
        licence=draw(st.just("") | LINE),
        hardware=draw(st.just("") | LINE),
        memory=draw(COUNT),
        why=draw(st.just("") | LINE),
        templates=draw(st.dictionaries(st.sampled_from(("base", "tuned")), styles, max_size=2)),
        idle_timeout=draw(st.floats(0, 1e9)),
        think=draw(st.sampled_from(THINK)),
    )


@given(entries())
def test_what_is_written_is_read_again(entry: Entry) -> None:
    """An entry as TOML text is the same entry, through tomllib and the strict reader."""
    text = format_entry(entry)
    assert parse_entries(text, Path("/anywhere/models.toml")) == {entry.name: entry}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_can_be_a_value(text: str) -> None:
    """Quotes, backslashes and control characters are escaped."""
    assert tomllib.loads(f"key = {format_value(text)}") == {"key": text}


DOCUMENT = """\
# first comment
[models]  # the table of all entries

# about a
[models.a]  # beside a
base = { path = "b" }  # the base of a
# inside a
tuned = { path = "t" }
reference = { path = "r" }

# before b

[models."b.c"]
base = { path = "b" }
experts = [
    # one expert
    { name = "n", tuned = { path = "t" }, reference = { path = "r" } },
]
[models."b.c".sampling]
top_k = 1  # one

# after b
# last comment
"""
INSIDE = {"a": ("# beside a", "# the base of a", "# inside a"), "b.c": ("# one expert", "# one")}


def entry(name: str, **more: Any) -> Entry:
    """An entry with files of the hub."""
    pair = Expert("tuned", Source(hf="u/t", file="t.gguf"), Source(path=Path("/r.gguf")))
    return Entry(name, Source(hf="u/b", quant="Q4_K_M"), (pair,), **more)


def comments(text: str) -> list[str]:
    """All comments of a text, in which # stands nowhere else."""
    return [line[line.index("#") :] for line in text.split("\n") if "#" in line]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A user's file with two entries and many comments."""
    path = tmp_path / "models.toml"
    path.write_bytes(DOCUMENT.encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("name", ["a", "b.c"])
def test_comments_survive_a_removal(file: Path, name: str, end: str) -> None:
    """Only comments inside the entry go with it; all values of others are as before."""
    file.write_bytes(DOCUMENT.replace("\n", end).encode())
    before = read_entries(file)
    remove_entry(file, name)
    text = file.read_bytes().decode()
    kept = [text for text in comments(DOCUMENT) if not text.startswith(INSIDE[name])]
    assert [text.strip() for text in comments(text)] == kept
    assert read_entries(file) == {key: value for key, value in before.items() if key != name}
    assert text.count(end) == text.count("\n")


def test_the_last_entry_can_be_removed_and_others_added(file: Path) -> None:
    """A file without entries is still one that is understood."""
    for name in ("a", "b.c"):
        remove_entry(file, name)
    assert read_entries(file) == {} and file.read_text().endswith("\n")
    file.write_text("# mine\n\n[models.x]\nbase = 1\n# rest\n")
    remove_entry(file, "x")
    assert read_entries(file) == {} and file.read_text().endswith("# rest\n")
    assert comments(file.read_text()) == ["# mine", "# rest"]
    add_entry(file, entry("new"))
    assert read_entries(file) == {"new": entry("new")}
    assert comments(file.read_text()) == ["# mine", "# rest"]


@given(entries())
def test_adding_and_removing_leaves_the_text_as_it_was(added: Entry) -> None:
    """Whatever the entry, the user's own text comes back to the byte."""
    if added.name in ("a", "b.c"):
        added = replace(added, name=f"{added.name}1")
    aliases = tuple(alias for alias in added.aliases if alias not in ("a", "b.c", added.name))
    added = replace(added, aliases=aliases)
    file = Path(os.environ["PYTEST_FOLDER"]) / "models.toml"
    for text in (DOCUMENT, DOCUMENT.replace("\n", "\r\n"), DOCUMENT.split("[models]")[0]):
        file.write_bytes(text.encode())
        add_entry(file, added)
        now = file.read_bytes().decode()
        assert now.startswith(text.rstrip("\r\n"))
        assert read_entries(file)[added.name] == added
        remove_entry(file, added.name)
        if "[models]" in text:
            assert file.read_bytes().decode() == text
        assert added.name not in read_entries(file)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for tests that run many times."""
    monkeypatch.setenv("PYTEST_FOLDER", str(tmp_path))


def test_a_file_is_made_with_its_folders(tmp_path: Path) -> None:
    """The first entry makes the file; a second one of its name has to be forced, in its place."""
    file = tmp_path / "config" / "eftlocal" / "models.toml"
    add_entry(file, entry("x"))
    add_entry(file, entry("y"))
    assert list(read_entries(file)) == ["x", "y"]
    assert file.read_text().startswith("# ")
    before = file.read_bytes()
    with pytest.raises(RegistryError, match="there is an entry x already; give --force"):
        add_entry(file, entry("x"))
    with pytest.raises(RegistryError, match="there is an entry x already"):
        check_name(file, "x")
    assert file.read_bytes() == before
    add_entry(file, entry("x", description="new"), replace=True)
    assert read_entries(file) == {"x": entry("x", description="new"), "y": entry("y")}
    assert list(read_entries(file)) == ["x", "y"]


@pytest.mark.parametrize("name", ["", "a b", "-x", "a\n"])
def test_names_that_could_not_be_used_are_refused(tmp_path: Path, name: str) -> None:
    """Blanks and a leading dash would not get through a command line."""
    with pytest.raises(UsageError, match="use a name without blanks"):
        check_name(tmp_path / "models.toml", name)


@pytest.mark.parametrize(
    "text",
    [
        'models = { x = { base = { path = "b" } } }\n',
        "x = = 1\n",
        '[models.x]\nbase = { path = "b" }\nctx = -1\n',
    ],
    ids=["inline", "no TOML", "an entry that is wrong"],
)
def test_a_file_that_cannot_be_edited_stays_as_it_is(tmp_path: Path, text: str) -> None:
    """Nothing is written where the result would not be understood."""
    file = tmp_path / "models.toml"
    file.write_text(text)
    with pytest.raises(RegistryError) as caught:
        add_entry(file, entry("y"))
    assert str(caught.value).startswith(f"{file}: ")
    assert file.read_text() == text
    assert os.listdir(tmp_path) == ["models.toml"]


def test_other_forms_of_entries_can_be_removed(tmp_path: Path) -> None:
    """Dotted keys, tables in pieces and entries that are wrong are all removed by their lines."""
    file = tmp_path / "models.toml"
    text = (
        '[models]\nx.base.path = "b"  # gone\n# kept\ny = { base = 1 }\nx.ctx = 1\n'
        "[models.z]\nctx = 1\n[models.x.sampling]\ntop_k = 1\n[models.z.sampling]\ntop_k = 2\n"
    )
    file.write_text(text)
    wanted = tomllib.loads(text)["models"]
    for name in ("x", "y", "z"):
        remove_entry(file, name)
        del wanted[name]
        assert tomllib.loads(file.read_text())["models"] == wanted
        assert comments(file.read_text()) == ["# kept"]
    with pytest.raises(RegistryError, match="there is no entry 'x'"):
        remove_entry(file, "x")


def test_a_link_and_the_mode_of_a_file_are_kept(file: Path, tmp_path: Path) -> None:
    """Files that are linked from elsewhere are changed where they lie."""
    link = tmp_path / "linked" / "models.toml"
    link.parent.mkdir()
    link.symlink_to(file)
    file.chmod(0o600)
    add_entry(link, entry("new"))
    assert link.is_symlink()
    assert "new" in read_entries(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["linked", "models.toml"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A file where a folder should be."""
    (tmp_path / "config").write_text("")
    with pytest.raises(RegistryError, match=r"cannot write .*models\.toml: .*nothing was changed"):
        add_entry(tmp_path / "config" / "models.toml", entry("x"))


ADD = """
import sys
from pathlib import Path
from eftlocal.registry import Entry
from eftlocal.registry.editing import add_entry
for number in range(20):
    name = f"{sys.argv[2]}-{number}"
    entry = Entry.from_files("b.gguf", ["t.gguf"], ["r.gguf"])
    add_entry(Path(sys.argv[1]), Entry(name, entry.base, entry.experts))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")
def test_entries_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    """Three processes, twenty entries each; none is lost."""
    file = tmp_path / "folder" / "models.toml"
    commands = [[sys.executable, "-c", ADD, str(file), name] for name in "abc"]
    running = [subprocess.Popen(command) for command in commands]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    assert len(read_entries(file)) == 60
    assert os.listdir(file.parent) == ["models.toml"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from eftlocal.errors import RegistryError
from eftlocal.registry.editing import remove_entry
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    remove_entry(Path(sys.argv[1]), "a")
except RegistryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_write_that_breaks_off_leaves_the_old_file(file: Path, tmp_path: Path) -> None:
    """As on a full disk: here no file may grow beyond 100 bytes."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(file)], capture_output=True, text=True, check=True
    )
    assert "cannot write" in done.stdout and "nothing was changed" in done.stdout
    assert file.read_text() == DOCUMENT
    assert os.listdir(tmp_path) == ["models.toml"]
