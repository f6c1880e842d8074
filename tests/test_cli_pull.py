"""`eftlocal pull`, and everything around it as users meet it, against a stand-in hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .cli_helpers import command, environment, run
from .conftest import SMALL, Trio
from .gguf_models import ModelShape, write_gguf
from .hub_client import hub_at, hub_settings, in_cache, stored_bytes
from .hub_data import Fault, sha256
from .hub_server import HubServer

ENTRY = """
# My own comment.
[models."qwen2.5-7b"]
base = { hf = "mradermacher/Qwen2.5-7B-GGUF", file = "Qwen2.5-7B.Q4_K_M.gguf" }
tuned = { hf = "mradermacher/Qwen2.5-0.5B-Instruct-GGUF", file = "Qwen2.5-0.5B-Instruct.Q8_0.gguf" }
reference = { hf = "mradermacher/Qwen2.5-0.5B-GGUF", file = "Qwen2.5-0.5B.Q8_0.gguf" }
ctx = 256
[models."qwen2.5-7b".sampling]
temperature = 0
max_tokens = 8
"""
NAMES = {
    "base": "mradermacher/Qwen2.5-7B-GGUF/Qwen2.5-7B.Q4_K_M.gguf",
    "tuned": "mradermacher/Qwen2.5-0.5B-Instruct-GGUF/Qwen2.5-0.5B-Instruct.Q8_0.gguf",
    "reference": "mradermacher/Qwen2.5-0.5B-GGUF/Qwen2.5-0.5B.Q8_0.gguf",
}


def publish(server: HubServer, role: str, path: Path) -> None:
    """Put a GGUF on the hub under the name of a real one."""
    repository, file = NAMES[role].rsplit("/", 1)
    server.add(repository, {file: path.read_bytes()})


@pytest.fixture
def server(trio: Trio) -> Iterator[HubServer]:
    """A stand-in with small random models under the names of a real family."""
    with HubServer() as running:
        for role, path in trio._asdict().items():
            publish(running, role, path)
        yield running


@pytest.fixture
def home(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the cache, with the entry in the user's file."""
    file = tmp_path / "models.toml"
    file.write_text(ENTRY)
    monkeypatch.setenv("EFTLOCAL_MODELS", str(file))
    monkeypatch.setenv("EFTLOCAL_THREADS", "1")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with hub_at(server, tmp_path / "home", monkeypatch):
        yield tmp_path / "home"


def size(trio: Trio) -> int:
    """Bytes of a trio's files."""
    return sum(path.stat().st_size for path in trio)


def test_it_downloads_all_files_of_an_entry(server: HubServer, home: Path, trio: Trio) -> None:
    """One line per file and one at the end; a second time nothing is fetched."""
    result = run("pull", "qwen2.5-7b")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [list(item) for item in NAMES.items()]
    assert lines[3].startswith("qwen2.5-7b is complete: ")
    assert lines[3].endswith("fetched; try: eftlocal chat -m qwen2.5-7b")
    sent = server.sent()
    again = run("pull", "qwen2.5-7b")
    assert "nothing had to be fetched" in again.stdout and server.sent() == sent


def test_json(server: HubServer, home: Path, trio: Trio) -> None:
    """What there is to know of every file."""
    content = json.loads(run("pull", "--dry-run", "--json", "qwen2.5-7b").stdout)
    assert (content["size"], content["missing"]) == (size(trio), size(trio))
    assert content["free"] > 0 and not (home / "hub").exists()
    content = json.loads(run("pull", "--json", "qwen2.5-7b").stdout)
    assert (content["name"], content["fetched"]) == ("qwen2.5-7b", size(trio))
    for file, path in zip(content["files"], trio, strict=True):
        assert f"{file['repository']}/{file['file']}" == NAMES[file["role"]]
        assert file["sha256"] == sha256(path.read_bytes())
        assert Path(file["path"]).read_bytes() == path.read_bytes()
        assert file["revision"] == server.repositories[file["repository"]].commit
    text = run("pull", "--dry-run", "qwen2.5-7b").stdout
    assert text.count("is there") == 3 and "0 bytes of" in text


def test_single_models_of_the_hub(server: HubServer, home: Path, trio: Trio) -> None:
    """By quantization, by file name, at a commit."""
    repository = NAMES["base"].rsplit("/", 1)[0]
    for name in (f"hf:{repository}:q4_k_m", f"hf:{repository}", f"hf:{NAMES['base']}"):
        result = run("pull", name)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.splitlines()[-1].startswith(f"{name} is complete: ")
    assert server.sent() == trio.base.stat().st_size
    commit = server.repositories[repository].commit
    assert run("pull", "--revision", commit, f"hf:{repository}").exit_code == 0


def test_nothing_to_download(home: Path) -> None:
    """Entries whose files come with eftlocal need no hub."""
    result = run("pull", "atlas")
    assert result.stdout == "atlas: nothing to download, its files are on this machine\n"
    assert result.exit_code == 0


MISTAKES = {
    "unknown": (["qwen2.5-7x"], 1, "did you mean qwen2.5-7b"),
    "no name": ([], 2, "Missing argument"),
    "no prefix": (["user/repo"], 2, "a repository of the hub is hf:user/repo"),
    "malformed": (["hf:repo"], 2, "hf:user/repo"),
    "revision": (["--revision", "x", "qwen2.5-7b"], 2, "--revision goes with hf:"),
    "retries": (["--retries", "-1", "qwen2.5-7b"], 2, "-1 is not in the range"),
}


@pytest.mark.parametrize(("args", "code", "says"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(home: Path, args: list[str], code: int, says: str) -> None:
    """One line each."""
    result = run("pull", *args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("api", 429, {"Retry-After": "9"}), "try again in 9 seconds"),
        (Fault("resolve", 403, {"X-Error-Code": "GatedRepo"}), "is gated: accept its terms at"),
        (Fault("storage", 503), "the hub has a problem (503)"),
        (Fault("storage", cut_after=9), "what was fetched is kept"),
        (Fault("storage", flip=True, match="0.5B"), "not a GGUF"),
    ],
    ids=["429", "gated", "503", "cut", "flipped"],
)
def test_failures_are_one_line(server: HubServer, home: Path, fault: Fault, says: str) -> None:
    """Exit code 1, and nothing on stdout."""
    server.faults.append(fault)
    result = run("pull", "--retries", "0", "qwen2.5-7b")
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_no_space_is_said_before_the_first_byte(server: HubServer, home: Path) -> None:
    """What is needed and what is free."""
    repository, file = NAMES["base"].rsplit("/", 1)
    server.repositories[repository].claimed[file] = 9 * 10**15
    result = run("pull", "qwen2.5-7b")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "not enough space: 9,000,000 GB are to be fetched" in result.stderr
    assert server.sent() == 0 and not (home / "hub").exists()


def test_vocabularies_have_to_agree(server: HubServer, home: Path, tmp_path: Path) -> None:
    """Of models that do not fit together only the headers are read."""
    other = ModelShape(n_vocab=SMALL.n_vocab + 3)
    publish(server, "reference", write_gguf(tmp_path / "odd.gguf", other, seed=3))
    result = run("pull", "qwen2.5-7b")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert f"token {SMALL.n_vocab}" in result.stderr
    assert in_cache(home / "hub") == {}


def test_lists_ask_nothing_of_the_hub(server: HubServer, home: Path) -> None:
    """Only what downloads, or is told to look there, goes to the hub."""
    listed = run("models")
    assert listed.exit_code == 0 and "qwen2.5-7b" in listed.stdout
    assert run("models", "show", "qwen2.5-7b").exit_code == 0
    assert server.seen == [] and not (home / "hub").exists()


def test_chat_says_how_to_get_what_is_missing(server: HubServer, home: Path) -> None:
    """Without a terminal nobody can be asked: one line, and nothing is asked of the hub."""
    for name in ("chat", "complete"):
        result = run(name, "-m", "qwen2.5-7b", "Hello", text="piped")
        assert (result.exit_code, result.stdout) == (1, "")
        line = "qwen2.5-7b is not downloaded yet; get it with: eftlocal pull qwen2.5-7b (or --pull)"
        assert result.stderr == f"eftlocal: {line}\n"
    assert server.seen == []


def test_chat_downloads_when_told_to(server: HubServer, home: Path, trio: Trio) -> None:
    """One command from nothing to an answer; the next one needs no hub."""
    result = run("chat", "-m", "qwen2.5-7b", "--pull", "Hello")
    assert (result.exit_code, result.stderr) == (0, "")
    asked = len(server.seen)
    assert run("chat", "-m", "qwen2.5-7b", "Hello").stdout == result.stdout
    assert len(server.seen) == asked


def at_terminal(server: HubServer, folder: Path, answer: str) -> tuple[str, int]:
    """Start a chat at a terminal, answer its question, ask once; what was shown, exit code."""
    pexpect = pytest.importorskip("pexpect")

    variables = environment(folder / "state", EFTLOCAL_MODELS=str(folder / "models.toml"))
    variables |= hub_settings(server, folder / "home")
    args = command("chat", "-m", "qwen2.5-7b")
    child = pexpect.spawn(args[0], args[1:], env=variables, encoding="utf-8", timeout=60)
    child.expect(r"not downloaded yet\. Fetch .* from the Hugging Face hub now\? \[Y/n\]")
    child.sendline(answer)
    if answer != "n":
        child.expect(">>> ")
        child.sendline("Hello")
        child.expect(">>> ")
        child.sendline("/exit")
    child.expect(pexpect.EOF)
    child.close()
    return str(child.before), child.exitstatus


@pytest.mark.skipif(sys.platform == "win32", reason="pexpect needs a POSIX terminal")
def test_chat_asks_at_a_terminal(server: HubServer, home: Path, trio: Trio) -> None:
    """One command and Enter; no is one line."""
    shown, code = at_terminal(server, home.parent, "n")
    assert code == 1 and "whenever you want it: eftlocal pull qwen2.5-7b" in shown
    assert server.sent() == 0
    _, code = at_terminal(server, home.parent, "")
    assert code == 0
    stored = in_cache(home / "hub")
    assert {path.read_bytes() for path in trio} <= set(stored.values())


def whole(args: Sequence[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """One command line as a process of its own."""
    return subprocess.run(
        command(*args),
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_whole_session(server: HubServer, tmp_path: Path, trio: Trio) -> None:
    """Add, pull, kill, resume, verify, one wrong byte, verify, repair, chat."""
    variables = environment(tmp_path / "state", XDG_CONFIG_HOME=str(tmp_path / "config"))
    variables |= hub_settings(server, tmp_path / "home")
    roles = [part for role, name in NAMES.items() for part in (f"--{role}", f"hf:{name}")]
    added = whole(["models", "add", "qwen2.5-7b", *roles], variables)
    assert added.returncode == 0, added.stderr
    server.seen.clear()
    server.rate = size(trio) / 6
    pull = subprocess.Popen(command("pull", "qwen2.5-7b"), env=variables)
    while stored_bytes(tmp_path / "home" / "hub") < size(trio) / 2:
        assert pull.poll() is None
        time.sleep(0.01)
    pull.kill()
    pull.wait()
    server.rate = 0
    before = server.sent()
    resumed = whole(["pull", "--json", "qwen2.5-7b"], variables)
    assert resumed.returncode == 0, resumed.stderr
    content = json.loads(resumed.stdout)
    assert content["fetched"] < 0.9 * size(trio) and before > 0
    assert whole(["verify", "qwen2.5-7b"], variables).returncode == 0
    base = Path(content["files"][0]["path"])
    with base.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        last = file.read(1)
        file.seek(-100, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    broken = whole(["verify", "--offline", "qwen2.5-7b"], variables)
    assert broken.returncode == 1
    assert broken.stdout.count("wrong ") == 1 and NAMES["base"] in broken.stdout
    assert broken.stderr == "eftlocal: 1 of 3 files is not right, see above\n"
    assert whole(["pull", "--repair", "qwen2.5-7b"], variables).returncode == 0
    assert base.read_bytes() == trio.base.read_bytes()
    assert whole(["verify", "qwen2.5-7b"], variables).returncode == 0
    chat = ["chat", "-m", "qwen2.5-7b", "--temperature", "0", "--max-tokens", "8", "Hello"]
    answer = whole(chat, variables | {"HF_HUB_OFFLINE": "1"})
    files = [part for role, path in trio._asdict().items() for part in (f"--{role}", str(path))]
    assert answer.returncode == 0, answer.stderr
    same = whole(["chat", *files, *chat[3:]], variables)
    assert answer.stdout == same.stdout
