"""`eftlocal models`: list, show, add, remove and path, and hf: wherever a file can stand."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eftlocal.registry import Source, load_registry, read_entries

from .adapters import write_adapter
from .cli_helpers import ENDLESS, files, process, run
from .conftest import SMALL, Trio
from .gguf_models import write_gguf
from .hub_client import hub_at
from .hub_server import HubServer

REPOSITORIES = {"base": "user/Big-GGUF", "tuned": "user/Chat-GGUF", "reference": "user/Small-GGUF"}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's conversations and settings out of the tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("EFTLOCAL_THREADS", "1")


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    """The user's models.toml, which is not there yet."""
    return tmp_path / "config" / "eftlocal" / "models.toml"


@pytest.fixture
def server(trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A stand-in hub with the trio, and a cache of its own."""
    with HubServer() as running, hub_at(running, tmp_path / "home", monkeypatch):
        for role, name in REPOSITORIES.items():
            file = f"{name.split('/')[1].removesuffix('-GGUF')}.Q4_K_M.gguf"
            running.add(name, {file: getattr(trio, role).read_bytes()})
        yield running


def listed(*args: str) -> dict[str, dict[str, Any]]:
    """What `eftlocal models --json` says, by name."""
    done = run("models", "--json", *args)
    assert done.exit_code == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)["models"]}


def refused(*args: str, code: int = 1) -> str:
    """The one line of a command that fails."""
    done = run(*args)
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("eftlocal: ")
    return line


def test_the_list_says_what_is_there(trio: Trio) -> None:
    """One line per entry; atlas is here and fits, the hub's families are not downloaded."""
    rows = listed()
    assert list(rows) == list(load_registry().entries)
    atlas = rows["atlas"]
    assert (atlas["fits"], atlas["downloaded"], atlas["files"], atlas["own"]) == (True, 3, 3, False)
    entry = load_registry().find("atlas")
    paths = [source.path for _, source in entry.sources()]
    assert atlas["size"] == sum(path.stat().st_size for path in paths if path)
    assert (rows["qwen2.5-7b"]["downloaded"], rows["qwen2.5-7b"]["size"]) == (0, 5_742_000_000)
    assert rows["falcon-40b"]["size_is_complete"] is False
    lines = run("models").stdout.splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "FITS", "DOWNLOADED", "SUITS"]
    assert [line.split()[0] for line in lines[1:]] == list(rows)
    assert lines[1].split()[1:5] == ["3.97", "MB", "yes", "yes"]
    assert max(map(len, lines)) <= 100


def test_the_list_is_light() -> None:
    """Neither llama.cpp nor anything of the network is imported for it."""
    code = (
        "import sys\nfrom eftlocal.cli.main import cli\n"
        "try:\n cli.main(['models'])\nexcept SystemExit:\n pass\n"
        "heavy = ('llama_cpp', 'jinja2', 'prompt_toolkit', 'httpx', 'requests', 'ssl')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_show_says_everything_of_one_entry() -> None:
    """Files with evidence, licence, the reason of the prompt style, options, the next step."""
    shown = run("models", "show", "qwen3-8b").stdout
    entry = load_registry().find("qwen3-8b")
    wanted = [entry.licence, entry.hardware, entry.why, entry.description, "temperature 0.6"]
    wanted += [str(source) for _, source in entry.sources()]
    wanted += ["seen, not downloaded", "eftlocal pull qwen3-8b", "shipped", "RAM"]
    assert [text for text in wanted if text not in shown] == []
    content = json.loads(run("models", "show", "--json", "qwen3-8b").stdout)
    files = content["files"]
    assert files["reference"]["sha256"] == entry.experts[0].reference.sha256
    assert files["base"] == {
        "source": str(entry.base), "location": None, "size": 5_020_000_000, "evidence": "seen",
        "sha256": None, "scale": None,
    }  # fmt: skip
    atlas = json.loads(run("models", "show", "--json", "atlas").stdout)
    assert atlas["fits"] is True and atlas["options"]["threads"] == 1
    assert sum(atlas["memory_parts"].values()) == atlas["memory"]
    assert "no model entry is called 'atls'; did you mean atlas" in refused(
        "models", "show", "atls"
    )


def test_an_entry_can_be_added_used_and_removed(trio: Trio, user_file: Path) -> None:
    """From three files to a reply and back; the paths of the file are absolute."""
    assert run("models", "path").stdout == f"{user_file}\n"
    done = run(
        "models", "add", "mine", *files(trio), "--description", "my own", "--ctx", "512",
        "--alias", "m", "--prompt", "tuned-only",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"added mine to {user_file}\ntalk to it with: eftlocal chat -m mine\n"
    entry = read_entries(user_file)["mine"]
    assert entry.base.path == trio.base.absolute()
    assert (entry.description, entry.prompt, entry.neutral) == ("my own", "tuned-only", "control")
    assert (entry.runtime, entry.aliases) == ({"ctx": 512}, ("m",))
    row = listed()["mine"]
    assert (row["own"], row["downloaded"], row["fits"]) == (True, 3, True)
    reply = run("complete", "-m", "m", "--json", "--max-tokens", "2", "hi")
    assert reply.exit_code == 0, reply.stderr
    assert "already; give --force" in refused("models", "add", "mine", *files(trio))
    assert run("models", "add", "mine", "--force", *files(trio)).exit_code == 0
    assert read_entries(user_file)["mine"].description == ""
    assert run("models", "remove", "mine").stdout == f"removed mine from {user_file}\n"
    assert read_entries(user_file) == {}
    assert "there is no entry 'mine'" in refused("models", "remove", "mine")
    assert "atlas comes with eftlocal" in refused("models", "remove", "atlas")


def test_a_mismatch_is_refused_before_anything_is_written(
    trio: Trio, user_file: Path, tmp_path: Path
) -> None:
    """The first token that differs is named; so is a file that is missing."""
    other = write_gguf(tmp_path / "other.gguf", replace(SMALL, n_vocab=900), seed=4)
    line = refused("models", "add", "mine", *files(trio._replace(reference=other)))
    assert "token " in line and "must share one vocabulary" in line
    assert "no such file" in refused("models", "add", "mine", *files(trio._replace(base=Path("x"))))
    assert not user_file.exists()
    skipped = files(trio._replace(base=Path("x")))
    assert run("models", "add", "mine", "--no-check", *skipped).exit_code == 0
    assert read_entries(user_file)["mine"].base.path == Path.cwd() / "x"


def test_experts_and_adapters_can_be_added(trio: Trio, user_file: Path, tmp_path: Path) -> None:
    """Several tuned files with one reference are several experts; an adapter may be one."""
    adapter = write_adapter(tmp_path / "poet.gguf", trio.reference)
    args = [*files(trio), "--tuned", str(adapter)]
    assert run("models", "add", "two", *args).exit_code == 0
    entry = read_entries(user_file)["two"]
    assert [expert.name for expert in entry.experts] == ["tuned", "poet"]
    assert entry.experts[0].reference == entry.experts[1].reference
    done = run("complete", "-m", "two", "--weight", "poet=1", "--max-tokens", "1", "hi")
    assert done.exit_code == 0, done.stderr


def test_a_tuned_model_without_a_template_is_noted(trio: Trio) -> None:
    """Chat will need one; the others' templates do not matter."""
    done = run("models", "add", "mute", *files(trio._replace(tuned=trio.reference)))
    assert done.exit_code == 0
    assert f"{trio.reference} has no chat template" in done.stderr
    assert run("models", "add", "mine", *files(trio)).stderr == ""


def test_files_of_the_hub_are_found_and_pinned(
    server: HubServer, trio: Trio, user_file: Path
) -> None:
    """Names, sizes, hashes and the commit are those of the hub; only headers were fetched."""
    base, tuned, reference = REPOSITORIES.values()
    small = f"hf:{reference}/Small.Q4_K_M.gguf"
    args = ["--base", f"hf:{base}:q4_k_m", "--tuned", f"hf:{tuned}", "--reference", small]
    done = run("models", "add", "far", *args)
    assert done.exit_code == 0, done.stderr
    assert "fetch it with: eftlocal pull far" in done.stdout
    entry = read_entries(user_file)["far"]
    repository = server.repositories[base]
    assert (entry.base.hf, entry.base.file, entry.base.quant) == (base, "Big.Q4_K_M.gguf", None)
    assert entry.base.size == trio.base.stat().st_size
    assert entry.base.revision == repository.commit
    assert entry.experts[0].tuned.sha256 is not None
    row = listed()["far"]
    assert (row["downloaded"], row["size"]) == (0, sum(path.stat().st_size for path in trio))
    line = refused("models", "add", "lost", *args[:-1], "hf:user/Nothing-GGUF")
    assert "user/Nothing-GGUF" in line
    assert "lost" not in read_entries(user_file)


def test_hf_names_a_whole_model_in_three(server: HubServer, trio: Trio, user_file: Path) -> None:
    """-hf goes to base, tuned and reference in this order, or to the role that is left."""
    hf = [part for name in REPOSITORIES.values() for part in ("-hf", f"{name}:Q4_K_M")]
    assert run("models", "add", "three", *hf).exit_code == 0
    entry = read_entries(user_file)["three"]
    assert [source.hf for _, source in entry.sources()] == list(REPOSITORIES.values())
    assert run("pull", "three").exit_code == 0
    one = ["complete", "--max-tokens", "3", "--temperature", "0", "--json", "hi"]
    wanted = json.loads(run(*one, *files(trio)).stdout)["tokens"]
    for args in (
        hf,
        ["-m", "three"],
        ["--base", str(trio.base), *hf[2:]],
        ["--tuned", "hf:user/Chat-GGUF", "-hf", "user/Big-GGUF", "-hf", "user/Small-GGUF"],
    ):
        done = run(*one, *args)
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["tokens"] == wanted
    assert "--tuned and --reference missing" in refused(*one, "-hf", "u/r", code=2)
    assert "-hf is given 4 times" in refused(*one, *hf, "-hf", "u/r", code=2)
    assert "hf:user/repository" in refused(*one, "-hf", "no-user", *hf[2:], code=2)
    assert "not both" in refused(*one, "-m", "atlas", *hf, code=2)


@pytest.mark.parametrize("how", ["flag", "flag before", "variable"])
def test_another_file_can_be_named(trio: Trio, tmp_path: Path, how: str) -> None:
    """--models, before or after the command, and EFTLOCAL_MODELS."""
    file = tmp_path / "other" / "mine.toml"
    env = {"EFTLOCAL_MODELS": str(file)} if how == "variable" else {}
    before = ["--models", str(file)] if how == "flag before" else []
    after = ["--models", str(file)] if how == "flag" else []
    done = run("models", *before, "add", "mine", *after, *files(trio), env=env)
    assert done.exit_code == 0, done.stderr
    assert list(tomllib.loads(file.read_text())["models"]) == ["mine"]
    assert run("models", *before, "path", *after, env=env).stdout == f"{file}\n"
    shown = run("models", *before, "show", *after, "mine", env=env)
    assert str(trio.base) in shown.stdout and str(file) in shown.stdout
    assert run("models", *before, "remove", *after, "mine", env=env).exit_code == 0


def test_the_nearest_setting_counts(trio: Trio, tmp_path: Path, user_file: Path) -> None:
    """Flag > environment > own file > shipped file > default, for entries and for options."""
    assert run("models", "add", "atlas", *files(trio)).exit_code == 0
    user_file.write_text(user_file.read_text() + "max_tokens = 2\n")
    named = tmp_path / "named.toml"
    named.write_text(user_file.read_text().replace("max_tokens = 2", "max_tokens = 3"))

    def count(*args: str, **env: str) -> int:
        done = run("complete", *ENDLESS, *args, "--json", "hi", env=env)
        assert done.exit_code == 0, done.stderr
        return len(json.loads(done.stdout)["tokens"])

    assert count() == 2
    assert count(EFTLOCAL_MODELS=str(named)) == 3
    assert count("--models", str(named), EFTLOCAL_MODELS=str(user_file)) == 3
    assert count(EFTLOCAL_MAX_TOKENS="4") == 4
    assert count("--max-tokens", "5", EFTLOCAL_MAX_TOKENS="4") == 5


def test_wrong_options_are_one_line(trio: Trio, user_file: Path) -> None:
    """Names and files that cannot be meant."""
    add = ["models", "add"]
    assert "use a name without blanks" in refused(*add, "a b", *files(trio), code=2)
    assert "--tuned and --reference missing" in refused(*add, "x", "--base", "b", code=2)
    assert "is not hf:user/repository" in refused(
        *add, "x", "-hf", "user", "-hf", "u/r", "-hf", "u/r", code=2
    )
    assert "No such command 'shwo'" in refused("models", "shwo", code=2)
    user_file.parent.mkdir(parents=True)
    user_file.write_text("[models.x]\nctx = 1\n")
    assert "line 1: models.x.base: missing" in refused("models")
    assert "line 1: models.x.base: missing" in refused(*add, "y", *files(trio))
    assert run("models", "remove", "x").exit_code == 0


def test_shells_complete_names_of_entries(tmp_path: Path, trio: Trio, user_file: Path) -> None:
    """For `show` and `remove` too, the user's own entries included."""
    run("models", "add", "mine", *files(trio))

    def complete(words: str, position: int) -> str:
        return process(
            tmp_path / "state", _EFTLOCAL_COMPLETE="bash_complete", COMP_WORDS=words,
            COMP_CWORD=str(position), XDG_CONFIG_HOME=str(tmp_path / "config"),
        ).stdout  # fmt: skip

    assert "plain,mine" in complete("eftlocal models remove m", 3)
    assert "plain,qwen2.5-7b" in complete("eftlocal models show qwen", 3)
    assert "plain,show" in complete("eftlocal models s", 2)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:u/r:q8_0", Source(hf="u/r", quant="q8_0")),
        ("hf:u/r", Source(hf="u/r", quant="Q4_K_M")),
        ("hf:u/r-GGUF/sub/f.Q8_0.gguf", Source(hf="u/r-GGUF", file="sub/f.Q8_0.gguf")),
        ("u/r", Source(path=Path("u/r"))),
        ("~/f.gguf", Source(path=Path.home() / "f.gguf")),
    ],
)
def test_what_a_file_can_be(text: str, source: Source) -> None:
    """Paths stay paths; hf: is the hub."""
    assert Source.parse(text) == source
