"""`eftlocal chat PROMPT`: one answer, as transcripts on random models and on atlas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import eftlocal
from eftlocal.cli.session import reply_seed
from eftlocal.cli.state import last_chat

from .cli_helpers import ENDLESS, ROOT, environment, files, process, run
from .conftest import Trio

ATLAS = ROOT / "eftlocal" / "families" / "atlas"
needs_atlas = pytest.mark.skipif(not list(ATLAS.glob("*.gguf")), reason="no atlas files")
SEEDED = ("--max-tokens", "12", "--seed", "5")


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's conversations out of the tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("EFTLOCAL_THREADS", "1")


def message(role: str, content: str) -> dict[str, str]:
    """One message of a conversation."""
    return {"role": role, "content": content}


def expected(trio: Trio, *messages: dict[str, str], **options: object) -> eftlocal.Completion:
    """What the Python API answers."""
    with eftlocal.load(**trio._asdict(), threads=1) as model:
        return model.chat(messages, **({"max_tokens": 12, "seed": 5} | options))


def test_answers_once(trio: Trio) -> None:
    """The reply alone goes to stdout: no leading blanks, one line end, no control codes."""
    result = run("chat", *files(trio), *SEEDED, "Hello")
    assert (result.exit_code, result.stderr) == (0, "")
    text = expected(trio, message("user", "Hello")).text
    assert result.stdout == text.lstrip() + "\n"
    assert "\x1b" not in result.stdout


def test_json_is_that_of_complete(trio: Trio) -> None:
    """`--json` prints the exact reply with its tokens."""
    content = json.loads(run("chat", *files(trio), "--json", *SEEDED, "Hello").stdout)
    same = expected(trio, message("user", "Hello"))
    assert content["text"] == same.text
    assert content["tokens"] == list(same.tokens)
    assert content["prompt_tokens"] == list(same.prompt_tokens)


@pytest.mark.parametrize(
    ("args", "piped", "question"),
    [
        (["Hello"], "", "Hello"),
        (["Hello"], "some notes\n", "some notes\n\nHello"),
        ([], "some notes\n", "some notes"),
        (["-"], "some notes\n", "some notes"),
        (["Hello"], "\n", "Hello"),
    ],
    ids=["prompt", "both", "piped", "dash", "blank"],
)
def test_piped_text_goes_before_the_prompt(
    trio: Trio, args: list[str], piped: str, question: str
) -> None:
    """Piped text and prompt make one message."""
    result = run("chat", *files(trio), "--json", *SEEDED, *args, text=piped)
    same = expected(trio, message("user", question))
    assert json.loads(result.stdout)["prompt_tokens"] == list(same.prompt_tokens)


def test_system_prompt_from_option_and_file(trio: Trio, tmp_path: Path) -> None:
    """-s and --system-prompt-file give the same conversation."""
    file = tmp_path / "system.txt"
    file.write_text("Be curt.\n")
    same = expected(trio, message("system", "Be curt."), message("user", "Hello"))
    for args in (["-s", "Be curt."], ["--system-prompt-file", str(file)]):
        content = json.loads(run("chat", *files(trio), "--json", *SEEDED, *args, "Hello").stdout)
        assert content["prompt_tokens"] == list(same.prompt_tokens)


CHAT_ERRORS = {
    "nothing": ([], b"", 2, "nothing to ask"),
    "bytes": ([], b"\xff", 2, "not UTF-8"),
    "system file": (["--system-prompt-file", "/no/such", "hi"], b"", 2, "cannot read /no/such"),
    "two systems": (["-s", "a", "--system-prompt-file", "b", "hi"], b"", 2, "not both"),
    "no last": (["-c", "hi"], b"", 2, "no conversation to continue"),
    "too long": (["--ctx", "256", "word " * 300], b"", 1, "256"),
}


@pytest.mark.parametrize(
    ("args", "text", "code", "expected_text"), CHAT_ERRORS.values(), ids=CHAT_ERRORS
)
def test_errors_are_one_line(
    trio: Trio, args: list[str], text: bytes, code: int, expected_text: str
) -> None:
    """What cannot be answered is said in one line."""
    result = run("chat", *files(trio), *args, text=text)
    assert (result.exit_code, result.stdout) == (code, "")
    assert expected_text in result.stderr
    assert result.stderr.count("\n") == 1


def test_model_without_a_chat_template(trio: Trio) -> None:
    """A tuned model that has no template is named, with what to do."""
    result = run("chat", *files(trio._replace(tuned=trio.reference)), "hi")
    assert result.exit_code == 1
    assert "chat template" in result.stderr
    assert result.stderr.count("\n") == 1


def test_full_context_is_said(trio: Trio) -> None:
    """A reply that the context cut off is printed, with a line about it on stderr."""
    result = run("chat", *files(trio), "--ctx", "256", *ENDLESS, "--temperature", "0", "Hello")
    assert result.exit_code == 0
    assert len(result.stdout) > 100
    assert "the context is full (256 of 256 tokens)" in result.stderr


def test_continue_goes_on_with_the_last_conversation(trio: Trio) -> None:
    """-c restores messages, options and model; the turn is part of the seed."""
    chat = ["chat", *files(trio), "--no-history", "--json"]
    assert run(*chat, "Hello").exit_code == 0
    assert last_chat() is None
    save_one_turn(trio, "Hello")
    result = run("chat", "--json", "-c", "And then?")
    assert result.exit_code == 0, result.stderr
    first = expected(trio, message("user", "Hello"))
    same = expected(
        trio,
        message("user", "Hello"),
        message("assistant", first.text),
        message("user", "And then?"),
        seed=reply_seed(5, 1, 0),
    )
    content = json.loads(result.stdout)
    assert content["prompt_tokens"] == list(same.prompt_tokens)
    assert content["tokens"] == list(same.tokens)
    path = last_chat()
    assert path is not None
    saved = json.loads(path.read_text())
    assert [item["role"] for item in saved["messages"]] == ["user", "assistant"] * 2
    assert saved["options"]["seed"] == 5


def save_one_turn(trio: Trio, question: str) -> None:
    """Hold a conversation of one turn, as an interactive chat would."""
    from eftlocal.cli.options import Arguments
    from eftlocal.cli.session import Session
    from eftlocal.cli.state import autosave_file

    paths = {role: str(path) for role, path in trio._asdict().items()}
    arguments = Arguments(None, None, paths, {"threads": 1}, {}, 0, "off")
    with arguments.load() as model:
        session = Session(arguments, Arguments.load, model, autosave=autosave_file())
        session.options = {"max_tokens": 12, "seed": 5}

        def deliver(start: object) -> eftlocal.Completion:
            stream = start(None)  # type: ignore[operator]
            list(stream)
            completion = stream.completion
            assert isinstance(completion, eftlocal.Completion)
            return completion

        session.ask(question, deliver)


def test_one_shot_imports_no_terminal_libraries(trio: Trio, tmp_path: Path) -> None:
    """What only a conversation needs would delay the first token."""
    code = (
        "import sys\nfrom eftlocal.cli.main import cli\n"
        f"try:\n cli.main(['chat', *{files(trio)}, '--max-tokens', '2', 'Hello'])\n"
        "except SystemExit:\n pass\n"
        "print([name for name in ('rich', 'prompt_toolkit') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_conversation_needs_a_terminal(tmp_path: Path) -> None:
    """Without a terminal and without a question there is nothing to do."""
    done = process(tmp_path, "chat")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@needs_atlas
def test_atlas_knows_a_capital() -> None:
    """The shipped family answers with the base's knowledge in the tuned model's manner."""
    result = run("chat", "What is the capital of France?")
    assert result.exit_code == 0, result.stderr
    assert "Paris" in result.stdout
