"""What the terminal shows while models work, and Ctrl-C while they load."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import eftlocal
from eftlocal.cli import delivery
from eftlocal.cli.interrupts import Interrupts
from eftlocal.cli.output import Progress, ReplyWriter, timing_lines, wants_color

from .cli_chat import arguments_for
from .conftest import Trio


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """A terminal."""
        return True


def written(pieces: list[str], reply: bool, terminal: bool) -> str:
    """What a writer prints for some pieces."""
    out = Screen() if terminal else io.StringIO()
    writer = ReplyWriter(out, reply)
    for piece in pieces:
        writer.write(piece)
    writer.finish()
    return out.getvalue()


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([" Hello", " you"], "Hello you\n"),
        ([" ", "\n", "", "a ", " b"], "a  b\n"),
        (["a\n"], "a\n"),
        (["a\n\n"], "a\n\n"),
        ([" "], ""),
        ([], ""),
    ],
)
def test_replies_begin_without_blanks_and_end_with_a_line(pieces: list[str], text: str) -> None:
    """Leading white space is left out however it is cut; the last line is ended once."""
    assert written(pieces, reply=True, terminal=False) == text


def test_models_cannot_control_the_terminal() -> None:
    """Escape sequences of a model do not reach a terminal; pipes get the exact text."""
    pieces = ["a\x1b[31m", "b\x07\x9b2J", "c\td\r\n"]
    assert written(pieces, reply=False, terminal=True) == "a[31mb2Jc\td\n"
    assert written(pieces, reply=False, terminal=False) == "".join(pieces)


def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Make standard error a terminal; not a fixture, because pytest's capture comes after those."""
    stream = Screen()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_progress_appears_late_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is quick shows no bar; what is slow shows one line that is erased at the end."""
    shown = screen(monkeypatch)
    bar = Progress("loading atlas", 0.05)
    bar.update(0.1, 1.0)
    bar.clear()
    assert shown.getvalue() == ""
    time.sleep(0.06)
    bar.update(0.5, 1.0)
    assert "loading atlas [############............] 50%" in shown.getvalue()
    bar.clear()
    assert shown.getvalue().endswith("\r\x1b[K")


def test_progress_counts_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long prompt shows its tokens."""
    shown = screen(monkeypatch)
    bar = Progress("reading the prompt", 0.0, "tokens")
    bar.update(1000, 4000)
    assert "1,000 of 4,000 tokens" in shown.getvalue()


def test_progress_without_a_known_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no known end is counted, without a bar."""
    shown = screen(monkeypatch)
    Progress("generating", 0.0, "tokens").update(1200, 0)
    assert shown.getvalue() == "\r\x1b[Kgenerating: 1,200 tokens"


def test_progress_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that wrapped could not be erased."""
    monkeypatch.setenv("COLUMNS", "30")
    shown = screen(monkeypatch)
    Progress("reading the prompt", 0.0, "tokens").update(1000, 4000)
    assert len(shown.getvalue().removeprefix("\r\x1b[K")) == 29


def test_no_progress_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs get no bars."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    Progress("loading", 0.0).update(0.5, 1.0)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("choice", "no_color", "terminal", "color"),
    [
        ("auto", "", True, True),
        ("auto", "1", True, False),
        ("auto", "", False, False),
        ("on", "1", False, True),
        ("off", "", True, False),
    ],
)
def test_colours(
    monkeypatch: pytest.MonkeyPatch, choice: str, no_color: str, terminal: bool, color: bool
) -> None:
    """--color wins over NO_COLOR, which wins over the terminal."""
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_color(choice, Screen() if terminal else io.StringIO()) == color


def test_ctrl_c_stops_loading(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a file loads ends the load cleanly; models load again afterwards."""
    calls = []

    def press(self: Progress, done: float, total: float) -> None:
        calls.append(done)
        os.kill(os.getpid(), signal.SIGINT)

    with Interrupts() as interrupts:
        with monkeypatch.context() as patch:
            patch.setattr(Progress, "update", press)
            with pytest.raises(KeyboardInterrupt):
                delivery.load_model(arguments_for(trio), interrupts)
        assert calls[-1] < 1.0
        with delivery.load_model(arguments_for(trio), interrupts) as model:
            assert model.complete("Hello", max_tokens=2).tokens


def test_interrupts_count_wishes_not_signals() -> None:
    """The first Ctrl-C cancels; only one that comes later counts as a second."""
    before = signal.getsignal(signal.SIGINT)
    cancelled: list[int] = []
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.count == 0
        with interrupts.during():
            os.kill(os.getpid(), signal.SIGINT)
            interrupts.cancel_with(lambda: cancelled.append(1))
            assert cancelled == [1]
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupts.count == 1
            time.sleep(0.6)
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupts.count == 2
            with pytest.raises(KeyboardInterrupt):
                interrupts.check()
    assert signal.getsignal(signal.SIGINT) == before
    assert cancelled == [1, 1, 1]


def test_ctrl_c_while_a_prompt_is_read(trio: Trio, tmp_path: Path) -> None:
    """A cancelled prompt yields nothing, and the next completion is as it should be."""
    prompt = "word " * 40
    with arguments_for(trio).load() as model, Interrupts() as interrupts:

        def start(on_prefill: object) -> object:
            def press(done: int, total: int) -> None:
                os.kill(os.getpid(), signal.SIGINT)

            return model.stream_complete(prompt, on_prefill=press, max_tokens=5)

        stopped = delivery.deliver(start, None, interrupts)  # type: ignore[arg-type]
        assert stopped.finish_reason == "cancelled"
        assert stopped.tokens == ()
        after = model.complete(prompt, max_tokens=5)
    with arguments_for(trio).load() as model:
        assert model.complete(prompt, max_tokens=5).tokens == after.tokens


def test_timings_say_why_nothing_is_drafted(trio: Trio) -> None:
    """Models that cannot take tokens back are named as the reason; others show counts."""
    with eftlocal.load(**trio._asdict(), threads=1, ctx=64) as model:
        completion = model.complete([5, 6], max_tokens=6, draft=4)
        assert model.can_draft
    assert timing_lines(completion, None)[-1].startswith("draft       ")
    assert f"{completion.timings.rounds} rounds" in timing_lines(completion, None)[-1]
    assert "cannot take tokens back" in timing_lines(completion, None, can_draft=False)[-1]
