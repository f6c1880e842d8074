"""Slash commands on random models: what they change and what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import eftlocal
from eftlocal.cli.commands import COMMANDS, PARAMETERS
from eftlocal.cli.controller import Chat
from eftlocal.cli.conversation import Conversation
from eftlocal.cli.state import read_chat

from .cli_chat import CTX, arguments_for, face, new_chat, replies, roles, say
from .conftest import Trio


@pytest.fixture(scope="module")
def model(trio: Trio) -> Iterator[eftlocal.FusedModel]:
    """Three random models; loaded once, because each test has a session of its own."""
    with arguments_for(trio).load() as loaded:
        yield loaded


@pytest.fixture
def chat(
    trio: Trio, model: eftlocal.FusedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Chat:
    """A chat with models that never end a reply by themselves."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return new_chat(trio, model)


def test_clear_keeps_the_system_prompt(chat: Chat) -> None:
    """/clear begins anew under the same system prompt, and the old conversation stays saved."""
    say(chat, "/system Be curt.", "Hello")
    before = chat.session.autosave
    say(chat, "/clear")
    assert roles(chat) == [("system", "Be curt.")]
    say(chat, "Hi")
    assert before is not None
    assert chat.session.autosave != before
    assert read_chat(before).conversation.turns[0].user == "Hello"


def test_undo_removes_turns_one_by_one(chat: Chat) -> None:
    """/undo takes back a turn at a time, and says when there is none."""
    say(chat, "Hello", "And then?")
    assert "And then?" in say(chat, "/undo")
    assert len(replies(chat)) == 1
    say(chat, "/undo")
    assert "empty" in say(chat, "/undo")
    assert "empty" in say(chat, "/regen")
    assert "empty" in say(chat, "/edit")
    assert "no reply yet" in say(chat, "/stats") or replies(chat) == []


def test_edit_in_the_editor_asks_again(chat: Chat) -> None:
    """/edit replaces the last message and its reply by an edited one."""
    say(chat, "Hello")
    face(chat).editor = lambda text: text + ", world"
    say(chat, "/edit")
    assert [turn.user for turn in chat.session.conversation.turns] == ["Hello, world"]
    face(chat).editor = lambda text: text
    assert "nothing changed" in say(chat, "/edit")
    face(chat).editor = lambda text: ""
    assert "nothing changed" in say(chat, "/edit")
    assert len(replies(chat)) == 1


def test_edit_without_an_editor_fills_the_prompt(chat: Chat) -> None:
    """/edit without $EDITOR puts the message back into the prompt."""
    say(chat, "Hello", "/edit")
    assert (chat.draft, roles(chat)) == ("Hello", [])


def test_system_prompt(chat: Chat) -> None:
    """/system and /set system set, show and remove the system prompt."""
    assert "no system prompt" in say(chat, "/system")
    say(chat, '/system """\nBe curt.\nBe kind.\n"""')
    assert chat.session.conversation.system == "Be curt.\nBe kind."
    assert "Be kind." in say(chat, "/system")
    say(chat, '/set system "Be slow."')
    assert roles(chat) == [("system", "Be slow.")]
    say(chat, "/system none")
    assert roles(chat) == []


SETTINGS = {
    "number": ("temperature 0.5", "temperature", 0.5),
    "count": ("top_k 40", "top_k", 40),
    "dashes": ("max-tokens 7", "max_tokens", 7),
    "word": ("draft off", "draft", "off"),
    "draft": ("draft 4", "draft", 4),
    "negative": ("presence_penalty -1", "presence_penalty", -1.0),
    "stop text": ("stop END OF IT", "stop", ("END OF IT",)),
    "stop json": (r'stop ["\n", "END"]', "stop", ("\n", "END")),
    "bias": ("logit_bias 3=-1.5 4=2", "logit_bias", {3: -1.5, 4: 2.0}),
    "no bias": ("logit_bias none", "logit_bias", {}),
    "alpha": ("alpha 0.5", "alpha", 0.5),
    "alpha word": ("alpha dynamic", "alpha", "dynamic"),
    "alpha range": ("alpha-low -1", "alpha_low", -1.0),
    "every": ("alpha_every 0", "alpha_every", 0),
    "weight": ("weight tuned=0.5", "weight", {"tuned": 0.5}),
    "no weight": ("weight none", "weight", {}),
    "filter": ("upscale_top_p 0.9", "upscale_top_p", 0.9),
    "part": ("part tuned", "part", "tuned"),
}


@pytest.mark.parametrize("prefix", ["/set parameter ", "/set "])
@pytest.mark.parametrize(("text", "name", "value"), SETTINGS.values(), ids=SETTINGS)
def test_set_parameter(chat: Chat, prefix: str, text: str, name: str, value: object) -> None:
    """Each kind of option can be set, is shown, and goes back to the default."""
    shown = say(chat, prefix + text)
    assert getattr(chat.session.settings, name) == value
    assert shown.startswith(f"[{name} = ")
    say(chat, f"/set parameter {name} default")
    assert getattr(chat.session.settings, name) == getattr(chat.session.model.options, name)


NONSENSE = {
    "not a number": ("/set parameter temperature warm", "temperature: 'warm'"),
    "not allowed": ("/set parameter top_p 3", "top_p = 3.0 is not allowed"),
    "unknown": ("/set parameter warmth 3", "unknown parameter 'warmth'"),
    "runtime": ("/set parameter ctx 3", "start with --ctx"),
    "nothing": ("/set", "/set parameter NAME VALUE"),
    "no parameter": ("/set parameter", "/set parameter NAME VALUE"),
    "stop json": ('/set stop ["a', "stop"),
    "stop numbers": ("/set stop [1]", "stop"),
    "bias": ("/set logit_bias 4", "logit_bias"),
    "alpha": ("/set alpha fast", "alpha: 'fast' is neither a number nor one of dynamic, grid"),
    "alpha range": ("/set alpha_high -1", "alpha_high = -1.0 is not allowed"),
    "weight": ("/set weight math=1", "weight = math=1 is not allowed; the experts are: tuned"),
    "weight form": ("/set weight tuned", "weight: 'tuned' is not an expert and a number"),
    "lambda": ("/set lambda 0.3", "lambda = 0.3 is not allowed; use it with two experts, not 1"),
    "lambda form": ("/set lambda half", "lambda: 'half' is not a valid float"),
    "filter": ("/set upscale_top_p 0", "upscale_top_p = 0.0 is not allowed"),
    "part": ("/set part floor", "'floor' is not one of 'fused', 'base', 'tuned', 'reference'"),
    "trace": ("/set trace true", "unknown parameter 'trace'"),
    "command": ("/nonsense", "unknown command /nonsense"),
    "prefix": ("/s", "/system, /set, /show, /save, /stats"),
    "slash": ("/", "/help"),
    "no file": ("/read /no/such/file", "cannot read /no/such/file"),
    "directory": ("/read /tmp", "is not a file"),
    "save": ("/save", "use /save FILE"),
    "save nowhere": ("/save /no/such/folder/x.json", "No such file or directory"),
    "load": ("/load", "use /load FILE"),
    "load nothing": ("/load /no/such.json", "cannot read"),
    "model": ("/model no-such-entry", "no-such-entry"),
}


@pytest.mark.parametrize(("text", "message"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_one_line_and_changes_nothing(chat: Chat, text: str, message: str) -> None:
    """Every wrong command is answered by one line, and the chat stays as it was."""
    say(chat, "Hello")
    before = (roles(chat), dict(chat.session.options))
    say(chat, text)
    assert len(face(chat).warnings) == 1
    assert message in face(chat).warnings[0]
    assert "\n" not in face(chat).warnings[0]
    assert (roles(chat), chat.session.options) == before
    say(chat, "And then?")
    assert len(replies(chat)) == 2


def test_quotes_and_margins_of_messages(chat: Chat) -> None:
    """Triple quotes are taken off; a message may begin with a blank and a slash."""
    say(chat, '"""one\ntwo"""', " /etc is a folder ", '"quoted"', "   ")
    users = [turn.user for turn in chat.session.conversation.turns]
    assert users == ["one\ntwo", "/etc is a folder", '"quoted"']


def test_read_puts_files_before_the_message(chat: Chat, tmp_path: Path) -> None:
    """/read adds a file's text to the next message only."""
    file = tmp_path / "my notes.txt"
    file.write_text("Some notes.\n", encoding="utf-8")
    assert "tokens" in say(chat, f'/read "{file}"')
    assert "my notes.txt" in say(chat, "/read")
    assert "my notes.txt" in say(chat, "/show")
    say(chat, "What do they say?", "And then?")
    users = [turn.user for turn in chat.session.conversation.turns]
    assert users == ["Some notes.\n\nWhat do they say?", "And then?"]
    say(chat, f"/read {file}", "/read none", "Hello")
    assert chat.session.conversation.turns[-1].user == "Hello"


def test_read_refuses_what_cannot_be_sent(chat: Chat, tmp_path: Path) -> None:
    """Binary, empty and huge files are refused in one line."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "long").write_text("word " * CTX)
    assert "not UTF-8" in say(chat, f"/read {tmp_path / 'binary'}")
    assert "is empty" in say(chat, f"/read {tmp_path / 'empty'}")
    assert f"the context only {CTX}" in say(chat, f"/read {tmp_path / 'long'}")
    assert chat.session.attachments == []


def test_attachment_stays_when_the_message_does_not_fit(chat: Chat, tmp_path: Path) -> None:
    """After a prompt that is too long the files are still attached."""
    file = tmp_path / "notes.txt"
    file.write_text("Some notes.")
    say(chat, f"/read {file}", "word " * CTX)
    assert len(chat.session.attachments) == 1


def test_show_and_stats(chat: Chat) -> None:
    """/show names files, settings and context used; /stats the last reply and the session."""
    assert "no reply yet" in say(chat, "/stats")
    say(chat, "Hello", "And then?")
    used = chat.session.conversation.context_tokens
    shown = say(chat, "/show")
    assert f"{used} of {CTX} tokens used" in shown
    assert all(name in shown for name in (*PARAMETERS, *chat.session.model.files.values()))
    assert "max_tokens          10  (set here)" in shown
    assert "lambda              none\n" in shown
    stats = say(chat, "/stats")
    assert "2 replies, 20 tokens" in stats
    assert "mean alpha  1.000" in stats


def test_verbose_reports_after_each_reply(chat: Chat) -> None:
    """Timings follow every reply; loading is reported once."""
    chat.verbose = True
    say(chat, "Hello", "And then?")
    first, second = face(chat).reports
    assert first.startswith("load ")
    assert second.startswith("prompt ")
    assert "cached" in second


def test_help_lists_every_command(chat: Chat) -> None:
    """/help and /? name all commands and keys."""
    shown = say(chat, "/help")
    assert all(name in shown for name in COMMANDS)
    assert all(key in shown for key in ("Ctrl-C", "Ctrl-D", "Ctrl-G", '"""'))
    assert say(chat, "/?") == shown


@pytest.mark.parametrize("command", ["/exit", "/bye", "/quit"])
def test_leaving(chat: Chat, command: str) -> None:
    """Every word for it leaves."""
    say(chat, command)
    assert chat.leaving


def test_unexpected_errors_end_no_chat(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a bug is one line, and the conversation goes on."""
    say(chat, "Hello")
    monkeypatch.setattr(Conversation, "messages", lambda self, user=None: 1 / 0)
    assert "internal error" in say(chat, "More")
    monkeypatch.undo()
    assert len(replies(chat)) == 1
