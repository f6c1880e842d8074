"""The progress line of downloads: when it is shown, and what it says."""

from __future__ import annotations

import io
import sys
import time

import pytest

from eftlocal.cli.downloads import ByteBar


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands at its only item, and a terminal of 100 columns."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    return now


def lines(screen: io.StringIO) -> list[str]:
    """What was drawn, one line after the other."""
    return screen.getvalue().split("\r\x1b[K")[1:]


def test_share_rate_and_time_left(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is that of the last seconds, and of what came over the network alone."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = ByteBar("mine")
    for second in range(9):
        clock[0] = 100.0 + second
        # Half of it was there; for the last five seconds it goes twice as fast.
        moved = 10_000_000 * (second if second < 4 else 2 * second - 3)
        bar.draw(500_000_000 + moved, 1_000_000_000, moved)
    assert lines(screen)[0] == "mine [############............] 50% of 1.00 GB"
    assert lines(screen)[2].endswith("52% of 1.00 GB, 10.0 MB/s, 0:48 left")
    assert lines(screen)[8].endswith("63% of 1.00 GB, 20.0 MB/s, 0:18 left")
    clock[0] += 1
    bar.draw(640_000_000, 1_000_000_000, 140_000_000, "trying again (503)")
    assert lines(screen)[9].endswith("64% of 1.00 GB, trying again (503)")
    bar.clear()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_long_waits_are_hours(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """And a line never gets longer than the terminal is wide."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = ByteBar("mine")
    bar.draw(0, 40_000_000_000, 0)
    clock[0] += 1
    bar.draw(5_000_000, 40_000_000_000, 5_000_000)
    assert lines(screen)[1].endswith("0% of 40.0 GB, 5.00 MB/s, 2:13:19 left")
    monkeypatch.setenv("COLUMNS", "20")
    clock[0] += 1
    bar.draw(10_000_000, 40_000_000_000, 10_000_000)
    assert len(lines(screen)[2]) == 19


def test_ten_times_a_second_at_most(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Terminals are slow."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = ByteBar("mine")
    for _ in range(100):
        clock[0] += 0.01
        bar.draw(1, 2, 1)
    assert 9 <= len(lines(screen)) <= 11


@pytest.mark.parametrize("setting", ["1", "true"])
def test_it_can_be_turned_off(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """With the variable that other programs read; and pipes never see it."""
    piped = io.StringIO()
    monkeypatch.setattr(sys, "stderr", piped)
    bar = ByteBar("mine")
    bar.draw(1, 2, 1)
    bar.clear()
    assert piped.getvalue() == ""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", setting)
    bar = ByteBar("mine")
    bar.draw(1, 2, 1)
    bar.clear()
    assert screen.getvalue() == ""
