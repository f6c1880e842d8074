"""Several experts in a chat: weights and lambda, what is shown, completed and kept in files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

import eftlocal
from eftlocal.cli.completer import SlashCompleter
from eftlocal.cli.controller import Chat
from eftlocal.cli.options import Arguments, Files
from eftlocal.cli.session import Session
from eftlocal.cli.state import last_chat, read_chat
from eftlocal.errors import UsageError

from .cli_chat import CTX, OPTIONS, ScriptedFace, face, replies, say
from .cli_helpers import run
from .conftest import SMALL, Trio
from .gguf_models import CHAT_TEMPLATE, write_gguf


@pytest.fixture(scope="module")
def arguments(trio: Trio, tmp_path_factory: pytest.TempPathFactory) -> Arguments:
    """The command line that names two experts over one reference."""
    folder = tmp_path_factory.mktemp("experts")
    tuned = [
        str(write_gguf(folder / f"{name}.gguf", SMALL, seed=seed, chat_template=CHAT_TEMPLATE))
        for name, seed in (("math", 11), ("code", 12))
    ]
    files: Files = {"base": str(trio.base), "tuned": tuned, "reference": str(trio.reference)}
    return Arguments(None, None, files, {"threads": 1, "ctx": CTX}, {}, 0, "off")


@pytest.fixture(scope="module")
def model(arguments: Arguments) -> Iterator[eftlocal.FusedModel]:
    """The models, loaded once."""
    with arguments.load() as loaded:
        yield loaded


@pytest.fixture
def chat(
    arguments: Arguments,
    model: eftlocal.FusedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Chat:
    """A chat that has said nothing yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    session = Session(arguments, Arguments.load, model)
    session.options = dict(OPTIONS)
    return Chat(session, ScriptedFace())


def alphas(chat: Chat) -> tuple[float, ...]:
    """What the deltas were multiplied with in the last reply."""
    assert chat.session.last is not None
    return chat.session.last.alphas[-1]


def test_weights_are_set_and_shown(chat: Chat) -> None:
    """A reply uses the weights that were set last; weight and lambda replace each other."""
    say(chat, "Hello")
    assert alphas(chat) == (0.5, 0.5)
    assert say(chat, "/set weight code=2") == "[weight = code=2.0]"
    say(chat, "Hello")
    assert alphas(chat) == (0.0, 2.0)
    assert say(chat, "/set parameter lambda 0.25") == "[lambda = 0.25]"
    shown = say(chat, "Hello", "/show")
    assert alphas(chat) == (0.25, 0.75)
    assert "lambda              0.25  (set here)" in shown
    assert "weight              none\n" in shown
    say(chat, "/set weight math=1 code=-1", "Hello")
    assert alphas(chat) == (1.0, -1.0)
    say(chat, "/set weight default", "Hello")
    assert alphas(chat) == (0.5, 0.5)


def test_show_names_every_file(chat: Chat) -> None:
    """Files stand under their experts' names, in columns that fit the longest."""
    lines = say(chat, "/show").splitlines()
    for role, path in chat.session.model.files.items():
        assert any(line.split() == [*role.split(), path] for line in lines)
    assert "  math reference" in "\n".join(lines)
    assert len({line.index("/") for line in lines[1:6]}) == 1


def test_wrong_weights_change_nothing(chat: Chat) -> None:
    """One line says which experts there are."""
    say(chat, "/set lambda 0.25")
    for text in ("/set weight maths=1", "/set weight math=x"):
        say(chat, text)
        assert len(face(chat).warnings) == 1
        assert "math" in face(chat).warnings[0]
        assert chat.session.options["lambda_"] == 0.25


def test_saved_chats_keep_how_models_are_mixed(chat: Chat, tmp_path: Path) -> None:
    """Files of several experts, words for alpha, weights and lambda come back."""
    file = tmp_path / "chat.json"
    sets = ("alpha grid", "alpha_every 3", "upscale_top_p 0.9", "weight math=0.5 code=-1")
    for setting in (sets, (*sets[:3], "lambda 0.3")):
        say(chat, *(f"/set {text}" for text in setting), "Hello", f"/save {file}")
        before = dict(chat.session.options)
        say(chat, *(f"/set {text.split()[0]} default" for text in setting))
        assert chat.session.options == OPTIONS
        assert "[continuing" in say(chat, f"/load {file}")
        assert chat.session.options == before
    saved = json.loads(file.read_text())
    assert saved["options"]["lambda"] == 0.3
    assert list(saved["files"]) == ["base", "tuned", "reference"]
    assert [Path(path).stem for path in saved["files"]["tuned"]] == ["math", "code"]
    assert replace(chat.session.arguments, files=read_chat(file).files).label == "base.gguf"


def test_a_chat_for_other_experts_is_not_loaded(chat: Chat, tmp_path: Path) -> None:
    """The line names the file and the experts; the chat stays as it is."""
    file = tmp_path / "chat.json"
    file.write_text('{"messages": [], "options": {"weight": {"law": 1}}}')
    assert f"{file}: weight = law=1 is not allowed" in say(chat, f"/load {file}")
    assert chat.session.options == OPTIONS


@pytest.mark.parametrize(
    "files",
    [
        {"base": ["b"], "tuned": "t", "reference": "r"},
        {"base": "b", "tuned": [], "reference": "r"},
        {"base": "b", "tuned": ["t", 1], "reference": "r"},
        {"base": "b", "tuned": {"t": 1}, "reference": "r"},
    ],
    ids=["two bases", "none", "number", "table"],
)
def test_saved_files_are_checked(tmp_path: Path, files: dict[str, object]) -> None:
    """What are not the files of a model is refused in one line."""
    file = tmp_path / "chat.json"
    file.write_text(json.dumps({"messages": [], "files": files}))
    with pytest.raises(UsageError, match=r"chat\.json: files are not [^\n]+$"):
        read_chat(file)


def test_switching_needs_options_that_fit(arguments: Arguments, trio: Trio, tmp_path: Path) -> None:
    """Weights of other experts keep /model from switching, until they are reset."""
    lines = "\n".join(f'{role} = {{ path = "{path}" }}' for role, path in trio._asdict().items())
    registry = tmp_path / "models.toml"
    registry.write_text(f"[models.one]\n{lines}\n")
    wanted = replace(arguments, models=registry)
    session = Session(wanted, Arguments.load, wanted.load(), options=dict(OPTIONS))
    chat = Chat(session, ScriptedFace())
    say(chat, "/set lambda 0.3", "Hello")
    before = session.model
    assert "use it with two experts, not 1" in say(chat, "/model one")
    assert session.model is before
    say(chat, "And then?")
    assert len(replies(chat)) == 2
    say(chat, "/set lambda default")
    assert say(chat, "/model one").startswith("[one: alpha 1.0")
    say(chat, "More")
    assert len(replies(chat)) == 3
    session.model.close()


def completions(chat: Chat, text: str) -> list[str]:
    """What the prompt offers after a text."""
    found = SlashCompleter(chat.session).get_completions(Document(text), CompleteEvent())
    return [completion.text for completion in found]


def test_values_are_completed(chat: Chat) -> None:
    """Names of options, words for alpha, names of experts."""
    assert "lambda" in completions(chat, "/set parameter ")
    assert "lambda_" not in completions(chat, "/set parameter l")
    assert completions(chat, "/set parameter alpha_") == ["alpha_low", "alpha_high", "alpha_every"]
    assert completions(chat, "/set parameter alpha d") == ["dynamic", "default"]
    assert completions(chat, "/set parameter draft ") == ["auto", "off", "default"]
    assert completions(chat, "/set parameter weight ") == ["math=", "code="]
    assert completions(chat, "/set parameter weight math=1 c") == ["code="]
    assert completions(chat, "/set parameter nonsense ") == []


def test_continue_takes_the_files_of_all_experts(
    arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`chat --continue` loads the same models, also after the working directory has changed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("EFTLOCAL_THREADS", "1")
    session = Session(arguments, Arguments.load, arguments.load(), options=dict(OPTIONS))
    session.autosave = tmp_path / "state" / "eftlocal" / "chats" / "1.json"
    session.autosave.parent.mkdir(parents=True)
    chat = Chat(session, ScriptedFace())
    say(chat, "/set lambda 0.25", "Hello")
    session.model.close()
    assert last_chat() == session.autosave
    done = run("chat", "--continue", "--json", "--max-tokens", "2", "And then?")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["alphas"] == [[0.25, 0.75]] * 2
    saved = read_chat(session.autosave)
    assert len(saved.conversation.turns) == 2
    assert saved.options["lambda_"] == 0.25
    wrong = run("chat", "--continue", "--weight", "law=1", "And then?")
    assert (wrong.exit_code, wrong.stderr.count("\n")) == (2, 1)
