"""`--think`: <think> blocks on random models whose vocabulary has the markers."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

import eftlocal
from eftlocal.cli.commands import handle
from eftlocal.cli.completer import SlashCompleter
from eftlocal.cli.controller import Chat
from eftlocal.cli.conversation import Conversation
from eftlocal.cli.session import reply_seed
from eftlocal.cli.state import last_chat, read_chat
from eftlocal.cli.thinking import ThinkingWriter, think_style

from .cli_chat import face, new_chat, say
from .cli_helpers import command, environment, run
from .gguf_models import CHAT_TEMPLATE
from .thinkers import BLOCK, CLOSED, OPEN, OPTIONS, QUESTION, Thinker, message, thinker, write


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thinker]:
    """A model that writes both markers."""
    trio = write(tmp_path_factory.mktemp("plain"), CHAT_TEMPLATE)
    with eftlocal.load(**trio._asdict(), threads=1) as model:
        yield thinker(trio, model, BLOCK)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thinker]:
    """A model whose template opens the block."""
    template = CHAT_TEMPLATE.replace("<|assistant|>", "<|assistant|><think>\n")
    trio = write(tmp_path_factory.mktemp("opened"), template)
    with eftlocal.load(**trio._asdict(), threads=1) as model:
        yield thinker(trio, model, CLOSED)


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep saved conversations apart."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def one_shot(model: Thinker, *more: str, env: Mapping[str, str] | None = None) -> str:
    """What `eftlocal chat` prints into a pipe."""
    result = run("chat", *model.args, *more, QUESTION, env=env)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_python_keeps_the_text_whole(plain: Thinker, opened: Thinker) -> None:
    """`text` has the markers as they came, `thinking` and `answer` its two parts."""
    for model, shape in ((plain, BLOCK), (opened, CLOSED)):
        reply = model.reply
        match = shape.match(reply.text)
        assert match is not None
        assert reply.thinking == match[1]
        assert reply.answer == reply.text[match.start(2) :]
        assert reply.thinking_opened is (model is opened)


@pytest.mark.parametrize("name", ["plain", "opened"])
def test_pipes_get_the_answer_alone(name: str, request: pytest.FixtureRequest) -> None:
    """Unless show is asked for; then a block has both markers, whoever wrote the first."""
    model = request.getfixturevalue(name)
    reply = model.reply
    for args in ((), ("--think", "hide"), ("--think", "dim"), ("--color", "on")):
        assert one_shot(model, *args) == reply.answer + "\n"
    whole = f"<think>\n{reply.thinking}\n</think>\n\n{reply.answer}\n"
    assert one_shot(model, "--think", "show") == whole
    assert one_shot(model, env={"EFTLOCAL_THINK": "show"}) == whole


def test_json_has_thinking_beside_the_text(plain: Thinker) -> None:
    """Only where there is a block; `complete` knows no blocks."""
    reply = plain.reply
    content = json.loads(one_shot(plain, "--json"))
    assert list(content)[:2] == ["text", "thinking"]
    assert (content["text"], content["thinking"]) == (reply.answer, reply.thinking)
    assert content["tokens"] == list(reply.tokens)
    ids = ",".join(map(str, reply.prompt_tokens))
    raw = json.loads(run("complete", *plain.args, "--json", "--tokens", ids).stdout)
    assert raw["text"] == reply.text
    assert "thinking" not in raw
    no_block = json.loads(one_shot(plain, "--json", "--logit-bias", f"{OPEN}=-1000"))
    assert "thinking" not in no_block


def test_a_block_without_an_answer_is_said(opened: Thinker) -> None:
    """An empty standard output would be a riddle."""
    result = run("chat", *opened.args, "--max-tokens", "2", QUESTION)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == "eftlocal: the reply is a <think> block alone; max_tokens cut it\n"


def chat_with(model: Thinker) -> Chat:
    """A chat whose first reply is the model's."""
    chat = new_chat(model.trio, model.model)
    chat.session.options = {**OPTIONS, "seed": model.seed}
    return chat


@pytest.mark.parametrize("name", ["plain", "opened"])
def test_later_prompts_have_the_answers_alone(name: str, request: pytest.FixtureRequest) -> None:
    """The second turn is that of a conversation without thinking, and reuses the first prompt."""
    model = request.getfixturevalue(name)
    chat = chat_with(model)
    first = model.reply
    say(chat, QUESTION, "And then?")
    turn = chat.session.conversation.turns[0]
    assert (turn.thinking, turn.reply) == (first.thinking, first.answer)
    second = chat.session.last
    assert second is not None
    # The same up to where the block began: in the prompt, or after it.
    pairs = zip(second.prompt_tokens, first.prompt_tokens, strict=False)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    assert shared == len(first.prompt_tokens) if name == "plain" else shared > 5
    assert second.timings.cached_tokens == shared
    rest = [{"role": "assistant", "content": first.answer}, *message("And then?")]
    messages = [*message(QUESTION), *rest]
    fresh = {**OPTIONS, "seed": reply_seed(model.seed, 1, 0)}
    with eftlocal.load(**model.trio._asdict(), threads=1) as other:
        again = other.chat(messages, **fresh)
    assert (again.text, again.prompt_tokens) == (second.text, second.prompt_tokens)


def test_the_api_drops_blocks_of_earlier_replies_too(plain: Thinker) -> None:
    """Whole texts as history give the prompt of answers alone, unless they are to be kept."""
    first = plain.reply
    assert first.answer != first.text

    def prompt(reply: str, **more: Any) -> tuple[int, ...]:
        answer = {"role": "assistant", "content": reply}
        messages = [*message(QUESTION), answer, *message("And then?")]
        return plain.model.chat(messages, max_tokens=1, **more).prompt_tokens

    assert prompt(first.text) == prompt(first.answer)
    kept = prompt(first.text, keep_thinking=True)
    assert OPEN in kept
    assert OPEN not in prompt(first.text)
    assert prompt(first.answer, keep_thinking=True) == prompt(first.answer)


def test_saved_conversations_keep_the_thinking_apart(plain: Thinker, tmp_path: Path) -> None:
    """As `thinking` beside the content; loading gives the same turns."""
    chat = chat_with(plain)
    say(chat, QUESTION, f"/save {tmp_path / 'chat.json'}")
    first = plain.reply
    saved = json.loads((tmp_path / "chat.json").read_text())
    assert saved["messages"][1]["content"] == first.answer
    assert saved["messages"][1]["thinking"] == first.thinking
    path = last_chat()
    assert path is not None
    (turn,) = read_chat(path).conversation.turns
    assert (turn.reply, turn.thinking) == (first.answer, first.thinking)
    say(chat, "/clear", f"/load {tmp_path / 'chat.json'}")
    assert first.answer in "\n".join(face(chat).shown)
    assert first.thinking not in "\n".join(face(chat).shown).replace(first.answer, "")
    loaded = chat.session.conversation.turns[0]
    assert (loaded.reply, loaded.thinking) == (turn.reply, turn.thinking)
    odd = {**saved, "messages": [message("a")[0], {**saved["messages"][1], "thinking": 3}]}
    assert Conversation.from_json(odd)[0].turns[0].thinking == ""


def test_think_is_set_in_a_chat(plain: Thinker) -> None:
    """/set parameter think takes what the option takes; /show says what holds."""
    chat = chat_with(plain)
    assert re.search(r"^think +dim$", say(chat, "/show"), re.MULTILINE)
    assert say(chat, "/set parameter think hide") == "[think = hide]"
    assert chat.session.think == "hide"
    assert re.search(r"^think +hide  \(set here\)$", say(chat, "/show"), re.MULTILINE)
    assert "use show, dim, hide or default" in say(chat, "/set parameter think loud")
    assert say(chat, "/set think") == "[think = hide]"
    assert say(chat, "/set parameter think default") == "[think = dim]"
    assert chat.session.think is None


def test_a_reply_that_only_thinks_is_remarked(opened: Thinker) -> None:
    """Beside the remark that it was cut."""
    chat = chat_with(opened)
    chat.session.options["max_tokens"] = 2
    handle(chat, QUESTION)
    shown = face(chat).shown
    assert shown == [
        "[cut at max_tokens = 2]",
        "[the reply is a <think> block alone; max_tokens cut it]",
    ]


def test_parameters_are_completed(plain: Thinker) -> None:
    """Tab knows the name and its values."""
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    completer = SlashCompleter(chat_with(plain).session)

    def choices(text: str) -> list[str]:
        return [item.text for item in completer.get_completions(Document(text), CompleteEvent())]

    assert choices("/set parameter thi") == ["think"]
    assert choices("/set parameter think ") == ["show", "dim", "hide", "default"]


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """A terminal."""
        return True


@pytest.mark.parametrize(
    ("style", "color", "shown"),
    [
        ("dim", True, "\x1b[2mWell\x1b[0m\x1b[2m, yes\x1b[0m\n\nPa</think>ris\n"),
        ("dim", False, "<think>\nWell, yes\n</think>\n\nPa</think>ris\n"),
        ("show", True, "<think>\nWell, yes\n</think>\n\nPa</think>ris\n"),
        ("hide", True, "Pa</think>ris\n"),
    ],
)
def test_what_a_terminal_shows(style: str, color: bool, shown: str) -> None:
    """Dimmed text needs no markers; without colours only they tell where it ends."""
    for opened, marker in ((False, ["<thi", "nk>"]), (True, [])):
        out = Screen()
        writer = ThinkingWriter(out, style, color)
        writer.begin(opened)
        for piece in (
            *marker,
            "\n",
            "Well",
            ", yes",
            "\n</thi",
            "nk>\n",
            "\n",
            "Pa",
            "</think>",
            "ris",
        ):
            writer.write(piece)
        writer.finish()
        assert out.getvalue() == shown


def test_hidden_thinking_shows_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line on stderr counts tokens, and is erased before the answer."""
    out, errors = Screen(), Screen()
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setattr("eftlocal.cli.thinking._DELAY", 0.0)
    writer = ThinkingWriter(out, "hide", True)
    for piece in ("<think>", "a", "b"):
        writer.write(piece)
    assert "thinking: 1 tokens" in errors.getvalue()
    writer.write("</think>c")
    writer.finish()
    assert errors.getvalue().endswith("\r\x1b[K")
    assert out.getvalue() == "c\n"


def test_entries_say_what_terminals_do(plain: Thinker, tmp_path: Path) -> None:
    """An entry's `think` is the default at a terminal; what the user asks for comes first."""
    roles = [f'{role} = {{ path = "{path}" }}' for role, path in plain.trio._asdict().items()]
    user_file = tmp_path / "models.toml"
    user_file.write_text("\n".join(["[models.x]", *roles, 'think = "hide"', ""]))
    with eftlocal.load("x", models=user_file, threads=1) as model:
        assert model.think == "hide"
        assert think_style(None, model, Screen()) == "hide"
        assert think_style("show", model, Screen()) == "show"
        assert think_style("show", model, io.StringIO()) == "show"
        assert think_style("dim", model, io.StringIO()) == "hide"
    assert think_style(None, plain.model, Screen()) == "dim"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_real_terminal_dims_the_block(plain: Thinker, tmp_path: Path) -> None:
    """Thinking dimmed, then the answer as usual; after /set no thinking at all."""
    pexpect = pytest.importorskip("pexpect")
    reply = plain.reply
    line = command("chat", *plain.args, "--color", "on")
    child = pexpect.spawn(
        line[0], line[1:], env=environment(tmp_path), encoding="utf-8", timeout=60,
        dimensions=(40, 200),
    )  # fmt: skip
    child.expect(">>> ")
    child.send(QUESTION + "\r")
    child.expect(re.escape("[cut at max_tokens = 12]"))
    dimmed = "".join(re.findall("\x1b\\[2m([ab]+)\x1b\\[0m", child.before))
    assert dimmed == reply.thinking
    assert f"\n\n{reply.answer}\n" in child.before.replace("\r", "")
    child.expect(">>> ")
    child.send("/set parameter think hide\r")
    child.expect(re.escape("[think = hide]"))
    child.send("/clear\r")
    child.expect("a new conversation")
    child.send(QUESTION + "\r")
    child.expect(re.escape("[cut at max_tokens = 12]"))
    (shown,) = re.findall(r"\x1b\[\?2004l([^\x1b]*)\x1b\[2m$", child.before.replace("\r", ""))
    assert shown == reply.answer + "\n"
    child.close(force=True)
