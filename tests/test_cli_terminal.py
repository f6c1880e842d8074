"""`eftlocal chat` at a real pseudo-terminal: keys, Ctrl-C, pasting, history."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eftlocal.cli.state import SavedChat, read_chat

from .cli_helpers import ENDLESS, command, environment, files
from .conftest import Trio

pexpect = pytest.importorskip("pexpect")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

SHORT = ("--max-tokens", "8", *ENDLESS)
LONG = ("--ctx", "8192", *ENDLESS)
END_OF_REPLY = "max_tokens = 8]"
CTRL_C, CTRL_D, CTRL_G = "\x03", "\x04", "\x07"
COLOURS = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")


class Person:
    """Somebody at a terminal in which `eftlocal chat` runs."""

    def __init__(self, state: Path, args: list[str], **more: str) -> None:
        self.state = state
        line = command("chat", *args)
        self.child = pexpect.spawn(
            line[0],
            line[1:],
            env=environment(state, **more),
            encoding="utf-8",
            timeout=60,
            dimensions=(40, 200),
        )

    def sees(self, text: str) -> str:
        """Wait for a text and return what came before it."""
        self.child.expect(re.escape(text))
        before = self.child.before
        assert isinstance(before, str)
        return before

    def types(self, *keys: str) -> None:
        """Type at the prompt, with the pause of a person after each part."""
        for part in keys:
            time.sleep(0.2)
            self.child.send(part)

    def asks(self, text: str, answer: str = END_OF_REPLY) -> None:
        """Enter a line, wait for what ends its answer, and then for the next prompt.

        The editor draws a prompt several times, so only one that follows an answer is new.
        """
        self.types(text, "\r")
        self.sees(answer)
        self.sees(">>>")

    def leaves(self) -> None:
        """Leave with Ctrl-D and see that the process ends well."""
        self.types(CTRL_D)
        self.child.expect(pexpect.EOF)
        self.child.close()
        assert self.child.exitstatus == 0

    def saved(self) -> SavedChat:
        """The conversation as it was saved for --continue."""
        (path,) = (self.state / "eftlocal" / "chats").glob("*.json")
        return read_chat(path)

    def said(self) -> list[str]:
        """The messages of the user in the saved conversation."""
        return [turn.user for turn in self.saved().conversation.turns]


Start = Callable[..., Person]


@pytest.fixture
def start(trio: Trio, tmp_path: Path) -> Iterator[Start]:
    """Starts a chat with random models; ends it after the test."""
    started: list[Person] = []

    def spawn(*args: str, model: bool = True, **more: str) -> Person:
        named = files(trio) if model else []
        started.append(Person(tmp_path / "state", [*named, *args], **more))
        return started[-1]

    yield spawn
    for person in started:
        person.child.close(force=True)


def test_a_conversation(start: Start) -> None:
    """Two turns stream, commands answer, Ctrl-D leaves, and everything is kept."""
    person = start(*SHORT)
    person.sees("base.gguf: alpha 1.0")
    person.sees(">>>")
    person.asks("Hello")
    person.asks("And then?")
    assert person.said() == ["Hello", "And then?"]
    person.asks("/show", "of 512 tokens used")
    person.leaves()
    history = (person.state / "eftlocal" / "history").read_text()
    assert "+Hello\n" in history
    assert "+/show\n" in history


def test_ctrl_c_stops_a_reply_and_keeps_the_session(start: Start) -> None:
    """The partial reply stays, marked as stopped; what was typed meanwhile is not shown in it."""
    person = start(*LONG)
    person.sees(">>>")
    person.types("Hello", "\r")
    time.sleep(0.7)
    person.child.send("XYZZY")
    time.sleep(0.3)
    person.child.send(CTRL_C)
    before = person.sees("[stopped]")
    assert "XYZZY" not in before
    assert "^C" not in before
    person.sees(">>>")
    (turn,) = person.saved().conversation.turns
    assert turn.stopped
    assert len(turn.reply) > 20
    person.asks("/set max_tokens 3", "[max_tokens = 3]")
    person.asks("More", "max_tokens = 3]")
    assert [turn.stopped for turn in person.saved().conversation.turns] == [True, False]
    person.leaves()


def test_ctrl_c_at_the_prompt(start: Start) -> None:
    """On an empty line it says how to leave, on another it clears the line."""
    person = start(*SHORT)
    person.sees(">>>")
    person.types(CTRL_C)
    person.sees("Ctrl-D or /exit leaves")
    person.types("this is dropped", CTRL_C)
    person.asks("Hello")
    assert person.said() == ["Hello"]
    person.leaves()


def test_messages_of_several_lines(start: Start) -> None:
    """Pasted line ends do not send; triple quotes and Alt-Enter hold several lines."""
    person = start(*SHORT)
    person.sees(">>>")
    person.asks("\x1b[200~one\r\ntwo\nthree\x1b[201~")
    person.types('"""four', "\r", "five", "\r")
    person.asks('"""')
    person.types("six", "\x1b\r")
    person.asks("seven")
    assert person.said() == ["one\ntwo\nthree", "four\nfive", "six\nseven"]
    person.leaves()


@pytest.fixture
def editor(tmp_path: Path) -> str:
    """An editor that appends a word."""
    script = tmp_path / "editor.sh"
    script.write_text('#!/bin/sh\nprintf "%s changed" "$(cat "$1")" > "$1.new"\nmv "$1.new" "$1"\n')
    script.chmod(0o755)
    return str(script)


def test_editor(start: Start, editor: str) -> None:
    """Ctrl-G edits what is typed, /edit the last message."""
    person = start(*SHORT, EDITOR=editor, VISUAL="")
    person.sees(">>>")
    person.types("Hello", CTRL_G)
    person.sees("changed")
    person.asks("")
    person.asks("/edit")
    assert person.said() == ["Hello changed changed"]
    person.leaves()


def test_edit_without_an_editor(start: Start) -> None:
    """/edit without $EDITOR puts the last message into the prompt."""
    person = start(*SHORT, EDITOR="", VISUAL="")
    person.sees(">>>")
    person.asks("Hello")
    person.asks("/edit", "back in the prompt")
    person.asks(" again")
    assert person.said() == ["Hello again"]
    person.leaves()


def test_completion(start: Start, tmp_path: Path) -> None:
    """Tab completes commands, parameters and files; the menu shows what they do."""
    (tmp_path / "a file of notes.txt").write_text("notes")
    person = start(*SHORT)
    person.sees(">>>")
    person.types("/st")
    person.sees("timings of the last reply")
    person.types("\t")
    person.asks("", "no reply yet")
    person.types("/set parameter temp", "\t")
    person.asks(" 0.5", "[temperature = 0.5]")
    person.types(f"/read {tmp_path}/a f", "\t")
    person.asks("", "goes with the next message]")
    person.leaves()


def test_continue_and_no_history(start: Start) -> None:
    """-c shows how the last conversation ended; --no-history leaves no trace."""
    person = start("--no-history", *SHORT)
    person.sees(">>>")
    person.asks("Hello")
    person.leaves()
    assert list(person.state.rglob("*")) == []
    person = start(*SHORT)
    person.sees(">>>")
    person.asks("Hello there")
    person.leaves()
    person = start("-c", model=False)
    person.sees("continuing a conversation of 1 turn")
    person.sees("Hello there")
    person.sees(">>>")
    person.asks("/undo", "[removed: 'Hello there' and its reply]")
    person.leaves()
    assert person.said() == []


def test_prompt_too_long_comes_back(start: Start) -> None:
    """A message that does not fit is in the prompt again, to be shortened."""
    person = start("--ctx", "256", *SHORT)
    person.sees(">>>")
    person.asks("word " * 100, "/undo or /clear makes room")
    person.sees("word word")
    person.types(CTRL_C)
    person.asks("Hello")
    assert person.said() == ["Hello"]
    person.leaves()


def test_a_home_that_cannot_be_written(start: Start) -> None:
    """Without a place for history and autosaves the chat says so and works."""
    person = start(*SHORT, XDG_STATE_HOME="/proc/no/such/place")
    person.sees("what you type is not kept")
    person.sees("not kept for --continue")
    person.sees(">>>")
    person.asks("Hello")
    person.leaves()


@pytest.mark.parametrize(
    ("args", "env", "colours"),
    [
        ([], {}, True),
        (["--color", "off"], {}, False),
        ([], {"NO_COLOR": "1"}, False),
        (["--color", "on"], {"NO_COLOR": "1"}, True),
    ],
    ids=["auto", "off", "no-color", "on"],
)
def test_colours(start: Start, args: list[str], env: dict[str, str], colours: bool) -> None:
    """Colours follow --color, and else NO_COLOR."""
    person = start(*args, *SHORT, **env)
    seen = person.sees(">>>")
    person.types("/nonsense", "\r")
    seen += person.sees("lists all")
    assert bool(COLOURS.search(seen)) == colours
    person.sees(">>>")
    person.leaves()


def test_one_shot_at_a_terminal(start: Start) -> None:
    """One answer, no prompt, and the conversation can be continued."""
    person = start(*SHORT, "--json", "Hello")
    person.child.expect(pexpect.EOF)
    content = json.loads(person.child.before)
    assert person.saved().conversation.turns[0].reply == content["text"]
