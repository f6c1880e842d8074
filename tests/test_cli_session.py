"""A chat's session on random models: turns, what stops and cuts them, files and models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import eftlocal
from eftlocal.cli.controller import Chat
from eftlocal.cli.conversation import Conversation
from eftlocal.cli.session import reply_seed
from eftlocal.cli.state import (
    KEPT_CHATS,
    SavedChat,
    autosave_file,
    last_chat,
    read_chat,
    remove_old_chats,
    write_chat,
)

from .cli_chat import CTX, OPTIONS, arguments_for, face, new_chat, replies, roles, say
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


def test_turns_are_those_of_the_python_api(chat: Chat) -> None:
    """Each reply answers the whole conversation, with the documented seed, reusing the cache."""
    say(chat, "Hello", "And then?")
    first, second = replies(chat)
    model = chat.session.model
    assert model.chat([{"role": "user", "content": "Hello"}], **OPTIONS).text == first
    messages = chat.session.conversation.messages()[:-1]
    again = model.chat(messages, **{**OPTIONS, "seed": reply_seed(5, 1, 0)})
    assert again.text == second
    assert chat.session.last is not None
    assert chat.session.last.timings.cached_tokens > 8
    used = len(chat.session.last.prompt_tokens) + len(chat.session.last.tokens)
    assert chat.session.conversation.context_tokens == used


def test_replies_share_no_seed() -> None:
    """Turns and regenerations have seeds of their own."""
    seeds = {reply_seed(0, turn, again) for turn in range(100) for again in range(100)}
    assert len(seeds) == 10_000


def test_regen_varies_and_repeats(chat: Chat) -> None:
    """/regen gives other texts, and the same steps give the same texts."""
    say(chat, "Hello", "/regen")
    say(chat, "/regen")
    third = replies(chat)[0]
    assert chat.session.conversation.turns[0].regenerations == 2
    say(chat, "/undo", "Hello")
    first = replies(chat)[0]
    say(chat, "/regen")
    second = replies(chat)[0]
    assert len({first, second, third}) == 3
    say(chat, "/regen")
    assert replies(chat) == [third]


def test_regen_says_when_it_cannot_vary(chat: Chat) -> None:
    """At temperature 0 the text stays, and the chat says why."""
    say(chat, "/set parameter temperature 0", "Hello")
    before = replies(chat)
    assert "temperature is 0" in say(chat, "/regen")
    assert replies(chat) == before


def test_stopped_reply_stays(chat: Chat) -> None:
    """Ctrl-C keeps the partial reply, marked as stopped, and the chat goes on."""
    face(chat).stop_after = 3
    assert "[stopped]" in say(chat, "Hello")
    turn = chat.session.conversation.turns[0]
    assert turn.stopped
    face(chat).stop_after = None
    say(chat, "And then?")
    assert [turn.stopped for turn in chat.session.conversation.turns] == [True, False]
    whole = chat.session.model.chat([{"role": "user", "content": "Hello"}], **OPTIONS).text
    assert whole.startswith(turn.reply)
    assert len(turn.reply) < len(whole)


def test_stop_before_the_reply_gives_the_message_back(chat: Chat) -> None:
    """Nothing is lost if the user stops while the prompt is read, in /regen neither."""
    face(chat).stop_after = 0
    say(chat, "Hello")
    assert (chat.draft, roles(chat)) == ("Hello", [])
    face(chat).stop_after = None
    say(chat, "Hello")
    before = roles(chat)
    face(chat).stop_after = 0
    say(chat, "/regen")
    assert roles(chat) == before


def test_prompt_that_does_not_fit_is_offered_again(chat: Chat) -> None:
    """A message that is too long stays out of the conversation and comes back for editing."""
    say(chat, "Hello")
    before = roles(chat)
    text = "word " * CTX
    shown = say(chat, text)
    assert str(CTX) in shown
    assert "/undo" in shown
    assert (chat.draft, roles(chat)) == (text.strip(), before)


def test_full_context_says_what_to_do(chat: Chat) -> None:
    """A reply that the context cut off stays, and the chat names the ways out."""
    shown = say(chat, "/set max_tokens 0", "Hello")
    assert f"the context is full ({CTX} of {CTX} tokens)" in shown
    assert "/undo" in shown
    assert "--ctx" in shown
    assert len(replies(chat)) == 1
    assert "/undo" in say(chat, "And then?")
    assert chat.draft == "And then?"
    say(chat, "/undo", "/set max_tokens 5", "Hello")
    assert len(replies(chat)) == 1


def test_reply_cut_by_max_tokens_is_marked(chat: Chat) -> None:
    """The user sees that a reply ended because of an option."""
    assert "max_tokens = 10" in say(chat, "Hello")


def test_save_and_load(chat: Chat, tmp_path: Path) -> None:
    """A saved conversation comes back with its messages, marks and options."""
    face(chat).stop_after = 3
    say(chat, "/system Be curt.", "Hello", "/regen", "/set temperature 0.5")
    before = (roles(chat), dict(chat.session.options))
    file = tmp_path / "chat.json"
    assert str(file) in say(chat, f"/save {file}")
    face(chat).agrees = False
    assert "not saved" in say(chat, "/clear", "/undo", f"/save {file}")
    assert json.loads(file.read_text())["messages"][-1]["stopped"] is True
    say(chat, "/set temperature default", "/system none", f"/load {file}")
    assert (roles(chat), chat.session.options) == before
    turn = chat.session.conversation.turns[0]
    assert (turn.stopped, turn.regenerations) == (True, 1)
    face(chat).agrees = True
    say(chat, "/undo", f"/save {file}")
    assert len(json.loads(file.read_text())["messages"]) == 1


def test_load_takes_messages_of_others(chat: Chat, tmp_path: Path) -> None:
    """Plain {"messages": [...]} loads; an unanswered question comes into the prompt."""
    file = tmp_path / "chat.json"
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    file.write_text(json.dumps({"messages": messages}))
    say(chat, f"/load {file}")
    assert roles(chat) == [("user", "a"), ("assistant", "b")]
    assert chat.draft == "c"


BAD_FILES = {
    "text": "hello",
    "list": "[]",
    "deep": "[" * 100_000,
    "no messages": "{}",
    "other format": '{"format": "other", "messages": []}',
    "newer": '{"version": 2, "messages": []}',
    "bad message": '{"messages": [{"role": "user"}]}',
    "order": '{"messages": [{"role": "assistant", "content": "x"}]}',
    "bad options": '{"messages": [], "options": {"top_p": 3}}',
    "unknown option": '{"messages": [], "options": {"warmth": 3}}',
    "options": '{"messages": [], "options": [1]}',
    "bias": '{"messages": [], "options": {"logit_bias": {"x": 1}}}',
    "model": '{"messages": [], "model": 3}',
    "files": '{"messages": [], "files": {"base": "x"}}',
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES)
def test_load_refuses_bad_files(chat: Chat, tmp_path: Path, content: str) -> None:
    """A file that is no conversation is refused in one line that names it."""
    say(chat, "Hello")
    before = roles(chat)
    file = tmp_path / "chat.json"
    file.write_text(content)
    shown = say(chat, f"/load {file}")
    assert len(face(chat).warnings) == 1
    assert str(file) in shown
    assert "\n" not in shown
    assert roles(chat) == before


def test_load_asks_before_it_drops_an_unsaved_conversation(chat: Chat, tmp_path: Path) -> None:
    """Without autosaves the present conversation is not dropped silently."""
    chat.session.autosave = None
    file = tmp_path / "chat.json"
    write_chat(file, SavedChat(Conversation("Be curt.")))
    say(chat, "Hello")
    face(chat).agrees = False
    say(chat, f"/load {file}")
    assert len(replies(chat)) == 1
    face(chat).agrees = True
    say(chat, f"/load {file}")
    assert roles(chat) == [("system", "Be curt.")]


def test_every_turn_is_saved_for_continue(chat: Chat) -> None:
    """The autosave holds the conversation after each turn; a full disk only warns."""
    say(chat, "Hello", "And then?")
    path = last_chat()
    assert path == chat.session.autosave
    assert path is not None
    assert len(read_chat(path).conversation.turns) == 2
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    chat.session.autosave = Path("/proc/no/such/place.json")
    assert "no longer saved" in say(chat, "More")
    assert len(replies(chat)) == 3
    assert face(chat).warnings
    say(chat, "More")
    assert not face(chat).warnings


def test_old_autosaves_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state directory does not grow for ever."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for _ in range(KEPT_CHATS + 3):
        write_chat(autosave_file(), SavedChat(Conversation("x")))
    remove_old_chats()
    assert len(list((tmp_path / "eftlocal" / "chats").iterdir())) == KEPT_CHATS


def test_model_lists_and_switches(chat: Chat, trio: Trio, tmp_path: Path) -> None:
    """/model lists entries, and a switch keeps conversation and settings."""
    text = "\n".join(f'{role} = {{ path = "{path}" }}' for role, path in trio._asdict().items())
    other = text.replace("base.gguf", "gone.gguf")
    registry = tmp_path / "models.toml"
    registry.write_text(f"[models.mine]\n{text}\n[models.broken]\n{other}\n")
    chat.session.arguments = replace(arguments_for(trio), models=registry)
    chat.session.model = chat.session.arguments.load()
    say(chat, "Hello")
    listed = say(chat, "/model")
    assert "mine" in listed
    assert "base.gguf (from files)" in listed
    assert "gone.gguf" in say(chat, "/model broken")
    say(chat, "And then?")
    assert len(replies(chat)) == 2
    assert say(chat, "/model mine").startswith("[mine: alpha 1.0")
    say(chat, "More")
    assert len(replies(chat)) == 3
    assert chat.session.options == OPTIONS
    assert chat.session.model.n_ctx == CTX
    assert "* mine" in say(chat, "/model")
    chat.session.model.close()
