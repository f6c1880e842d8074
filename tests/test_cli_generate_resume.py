"""`eftlocal generate` that was stopped goes on, and never mixes what does not belong together."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import eftlocal
from eftlocal.cli.generate_output import LineFile, open_output
from eftlocal.evaluate.systems import FAMILY

from .cli_generate import CHILE, THREADS, chat, generate, read, write
from .cli_helpers import command, environment


def test_conversations_for_fine_tuning(tmp_path: Path) -> None:
    """Each line is the conversation with its reply; errors stand in a file of their own."""
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text(f"{CHILE}\r\n\nWho wrote Hamlet?\n", encoding="utf-8")
    generate(source, output, "--format", "messages", "-s", "Be kind.", "--max-tokens", "9")
    first, second = (one["messages"] for one in read(output))
    assert [message["role"] for message in first] == ["system", "user", "assistant"]
    assert first[0]["content"] == "Be kind." and first[1]["content"] == CHILE
    assert second[2]["content"]
    lines = [{"prompt": "raw"}, chat(CHILE), b"{", chat("Who wrote Hamlet?")]
    source, other = write(tmp_path / "in.jsonl", lines), tmp_path / "other.jsonl"
    more = ("--format", "messages", "--max-tokens", "9")
    generate(source, other, *more, code=1)
    errors = tmp_path / "other.jsonl.errors.jsonl"
    assert [one["messages"][0]["content"] for one in read(other)] == [CHILE, "Who wrote Hamlet?"]
    assert [one["index"] for one in read(errors)] == [0, 2]
    whole = other.read_bytes(), errors.read_bytes()
    # As if it had been stopped after the third line.
    other.write_bytes(whole[0].splitlines(keepends=True)[0] + b'{"mess')
    generate(source, other, *more, code=1)
    assert (other.read_bytes(), errors.read_bytes()) == whole


def test_a_cut_file_is_completed_to_the_same_bytes(tmp_path: Path) -> None:
    """Wherever it was cut, the same command completes it, and needs no model where it is whole."""
    lines = [chat(CHILE, temperature=1.0, n=2), {"prompt": "One"}, b"{", chat("Hi!")]
    source, output = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    more = ("--max-tokens", "8", "--parallel", "3")
    generate(source, output, *more, code=1)
    whole = output.read_bytes()
    for size in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        output.write_bytes(whole[:size])
        generate(source, output, *more, code=1)
        assert output.read_bytes() == whole
    # The number of sequences is nothing that a text depends on.
    output.write_bytes(whole[: len(whole) // 3])
    generate(source, output, "--max-tokens", "8", "--parallel", "1", code=1)
    assert output.read_bytes() == whole
    before = source.read_bytes()
    source.write_bytes(before[:-1])
    assert "was made of another input" in generate(source, output, *more, code=2)
    source.write_bytes(before + b'{"prompt": "Two"}')
    assert "5 were there already" in generate(source, output, *more, code=1)
    assert output.read_bytes().startswith(whole) and len(read(output)) == 6
    source.write_bytes(before + b'{"prompt": "Two and a half"}')
    assert "was made of another input" in generate(source, output, *more, code=2)
    source.write_bytes(before + b'{"prompt": "Two"}\n{"prompt": "Three"}')
    assert "6 were there already" in generate(source, output, *more, code=1)


def test_other_settings_or_another_input_are_refused(tmp_path: Path) -> None:
    """Nothing is mixed and nothing lost; --overwrite begins anew."""
    source, output = write(tmp_path / "in.jsonl", [chat(CHILE)]), tmp_path / "out.jsonl"
    generate(source, output, "--max-tokens", "4")
    whole = output.read_bytes()
    told = generate(source, output, "--max-tokens", "5", code=2)
    assert "was made with max_tokens = 4, now it is 5" in told and "--overwrite" in told
    for more in (("--seed", "1"), ("-n", "2"), ("--format", "messages"), ("--alpha", "0")):
        assert "was made with" in generate(source, output, "--max-tokens", "4", *more, code=2)
    write(source, [chat("Who wrote Hamlet?")])
    assert "was made of another input" in generate(source, output, "--max-tokens", "4", code=2)
    assert output.read_bytes() == whole
    assert not (tmp_path / "out.jsonl.errors.jsonl").exists()
    generate(source, output, "--max-tokens", "5", "--overwrite")
    assert output.read_bytes() != whole and len(read(output)) == 1
    other = tmp_path / "notes.txt"
    other.write_text("my notes\n")
    told = generate(source, other, code=2)
    assert "no notes.txt.settings.json says what it was made of" in told
    assert other.read_text() == "my notes\n"


def model_file(path: Path, folder: Path, **more: Any) -> Path:
    """A models.toml with one entry, made of copies of the embedded family's files."""
    folder.mkdir(exist_ok=True)
    for name in ("large", "small-chat", "small"):
        if not (folder / f"{name}.gguf").exists():
            shutil.copy(FAMILY / f"{name}.gguf", folder)
    files = {"base": "large", "tuned": "small-chat", "reference": "small"}
    lines = ["[models.mine]"]
    lines += [f'{role} = {{ path = "{folder / name}.gguf" }}' for role, name in files.items()]
    lines += [f"{name} = {json.dumps(value)}" for name, value in more.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_other_models_or_prompts_are_refused(tmp_path: Path) -> None:
    """Files are known by what they hold, and entries by all that a prompt's tokens depend on."""
    source, output = write(tmp_path / "in.jsonl", [chat(CHILE)]), tmp_path / "out.jsonl"
    models, folder = tmp_path / "models.toml", tmp_path / "files"
    more = ("--models", str(models), "-m", "mine", "--max-tokens", "4")
    model_file(models, folder, prompt="shared")
    generate(source, output, *more)
    assert "were there already" in generate(source, output, *more)
    style = tmp_path / "style.jinja"
    style.write_text("{{ messages[-1].content }}")
    for change, name in (
        ({"prompt": "tuned-only"}, "prompt"),
        ({"prompt": "shared", "neutral": "control"}, "prompt"),
        ({"prompt": "shared", "templates.base.path": str(style)}, "prompt"),
    ):
        model_file(models, folder, **change)
        assert f"was made with {name} = " in generate(source, output, *more, code=2), change
    # The same name and size, but other weights.
    model_file(models, folder, prompt="shared")
    data = bytearray((folder / "small.gguf").read_bytes())
    data[-64] ^= 1
    (folder / "small.gguf").write_bytes(data)
    assert "was made with files = " in generate(source, output, *more, code=2)
    assert len(read(output)) == 1


def test_other_versions_are_refused(tmp_path: Path) -> None:
    """What another version has begun is not gone on with."""
    source, output = write(tmp_path / "in.jsonl", [chat(CHILE)]), tmp_path / "out.jsonl"
    generate(source, output, "--max-tokens", "4")
    beside = tmp_path / "out.jsonl.settings.json"
    beside.write_text(beside.read_text().replace(f'"{eftlocal.__version__}"', '"0.0.0"'))
    told = generate(source, output, "--max-tokens", "4", code=2)
    assert 'was made with versions = ["0.0.0"' in told


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    """With default options: twice, with other numbers at once, and from any place on."""
    asked = FAMILY / "questions.jsonl"
    lines = [chat(json.loads(line)["question"]) for line in asked.read_text().splitlines()[::10]]
    source, whole, other = (tmp_path / name for name in ("in.jsonl", "whole", "other"))
    write(source, lines)
    generate(source, whole, "--temperature", "1")
    expected = whole.read_bytes()
    generate(source, other, "--temperature", "1")
    assert other.read_bytes() == expected
    other.write_bytes(expected[: len(expected) // 3])
    generate(source, other, "--temperature", "1", "--parallel", "5")
    assert other.read_bytes() == expected


def test_what_the_user_or_the_entry_says_about_drafts_counts(tmp_path: Path) -> None:
    """The defaults of this command give way to both."""
    source, output = write(tmp_path / "in.jsonl", [chat(CHILE)]), tmp_path / "out.jsonl"

    def kept(*more: str) -> tuple[object, object]:
        generate(source, output, "--max-tokens", "2", "--overwrite", *more)
        settings = json.loads((tmp_path / "out.jsonl.settings.json").read_text())["settings"]
        return settings["draft"], settings["kv_unified"]

    assert kept() == ("off", "off")
    assert kept("--draft", "auto", "--kv-unified", "auto") == ("auto", "auto")
    models = tmp_path / "models.toml"
    model_file(models, tmp_path / "files", draft=3, kv_unified="on")
    entry = ("--models", str(models), "-m", "mine")
    assert kept(*entry) == (3, "on")
    assert kept(*entry, "--draft", "off", "--kv-unified", "off") == ("off", "off")


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    """The second one says so, where the system can tell."""
    pytest.importorskip("fcntl")
    source, output = write(tmp_path / "in.jsonl", [chat(CHILE)]), tmp_path / "out.jsonl"
    held = LineFile(output)
    held.lock()
    assert "another eftlocal generate is writing" in generate(source, output, code=2)
    held.close()
    generate(source, output, "--max-tokens", "2")


def test_a_torn_line_is_cut_off_before_more_is_written(tmp_path: Path) -> None:
    """Only whole lines count, and a new line begins on its own."""
    path = tmp_path / "out"
    settings = {"a": 1}
    with open_output(str(path), b"in", settings, overwrite=False, own_errors=False) as output:
        output.write('{"text": "error"}', False)
        output.write('{"error": {"message": "x"}}', True)
    with path.open("ab") as file:
        file.write(b'{"text": "to')
    with open_output(str(path), b"in", settings, overwrite=False, own_errors=False) as output:
        assert (output.done, output.failed) == (2, 1)
        output.write("{}", False)
    assert path.read_bytes() == b'{"text": "error"}\n{"error": {"message": "x"}}\n{}\n'


def questions(path: Path, count: int) -> Path:
    """An input of many kinds of lines."""
    lines: list[Any] = [
        chat(f"What is {i} plus {i}?", temperature=float(i % 2), max_tokens=5 + 7 * (i % 5))
        for i in range(count)
    ]
    lines[3] = b"{"
    lines[5] = {"prompt": "word " * 9000}
    return write(path, lines)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_runs_end_in_the_same_file(number: signal.Signals, tmp_path: Path) -> None:
    """Stopped after any number of lines, five times, the file becomes what one run writes."""
    source, whole, cut = (tmp_path / name for name in ("in.jsonl", "whole", "cut"))
    questions(source, 40)
    generate(source, whole, "--parallel", "2", code=1)
    total = whole.read_bytes().count(b"\n")
    chosen = random.Random(4)
    args = command("generate", "-i", str(source), "-o", str(cut), *THREADS, "--parallel", "2")
    seen = 0
    for _ in range(5):
        goal = seen + chosen.randint(1, 5)
        process = subprocess.Popen(args, env=environment(tmp_path), stderr=subprocess.PIPE)
        watch = threading.Timer(120, process.kill)
        watch.start()
        while process.poll() is None:
            seen = cut.read_bytes().count(b"\n") if cut.exists() else 0
            if seen >= goal:
                process.send_signal(number)
                break
            time.sleep(0.005)
        told = process.communicate()[1].decode()
        watch.cancel()
        seen = cut.read_bytes().count(b"\n")
        if number == signal.SIGINT and process.returncode == 130:
            assert f"stopped with {seen} of {total} lines written" in told
            assert "Traceback" not in told
    generate(source, cut, code=1)
    assert cut.read_bytes() == whole.read_bytes()
