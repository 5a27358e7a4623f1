"""Progress bars, and the line that announces a retry."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import DownloadError
from edgesppo.hub.retry import ATTEMPTS, RetryPolicy
from edgesppo.terminal.output import StatusLine
from edgesppo.terminal.progress import Meter, conversion_progress, retry_notices
from edgesppo_convert import Progress

if TYPE_CHECKING:
    from collections.abc import Callable


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, io.StringIO], list[str]]:
    def draw(columns: int, stream: io.StringIO) -> list[str]:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))
        meter = Meter("Converting a-model-with-quite-a-long-name to Q4_K_M (once)")
        for done in range(0, 5_800_000_001, 58_000_000):
            meter.update(done, 5_800_000_000)
        meter.close()
        return stream.getvalue().split("\r")

    return draw


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_the_bar_never_reaches_the_terminals_last_column(
    drawn: Callable[[int, io.StringIO], list[str]], columns: int
) -> None:
    lines = drawn(columns, _Terminal())
    assert max(len(line.rstrip("\n")) for line in lines) < columns
    if columns >= 120:
        assert "100%" in lines[-1]
        assert "#" in lines[-1]


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((120, 24)))
    return clock


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    """Replace standard error; call it within the test, since pytest replaces it, too."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def last_line(terminal: _Terminal) -> str:
    return terminal.getvalue().rpartition("\r")[2].rstrip()


def test_resumed_progress_does_not_count_as_speed(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = a_terminal(monkeypatch)
    meter = Meter("Converting")
    meter.update(5_000_000_000, 5_750_000_000)
    assert "left" not in last_line(terminal)
    clock.now += 1
    meter.update(5_020_000_000, 5_750_000_000)
    assert last_line(terminal).endswith(" 5,020.0/5,750.0 MB 36 s left")


def test_a_line_is_as_wide_as_the_terminal_whatever_its_letters(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clock
    terminal = a_terminal(monkeypatch)
    StatusLine().flash("模型" * 40)  # two columns each
    assert terminal.getvalue() == "\r" + "模型" * 29 + "模 " + "\r"


def test_the_time_of_another_meter_does_not_count(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = a_terminal(monkeypatch)
    meter, other = Meter("Converting"), Meter("Fetching")
    meter.update(0, 100e6)
    for _ in range(2):
        other.update(1, 2)
        clock.now += 500
        other.update(2, 2)
        meter.update(0, 100e6)
        clock.now += 1
        meter.update(20e6, 100e6)
    assert last_line(terminal).endswith(" 20.0/100.0 MB 8 s left")


def test_stages_before_and_after_are_shown_only_if_they_take_long(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = a_terminal(monkeypatch)
    with conversion_progress("Converting") as report:
        for stage in ("checking", "converting", "reading back"):
            for done in range(4):
                report(Progress("", done * 10**8, 3 * 10**8, stage))
                clock.now += 0.4 if stage == "checking" else 2
    lines = terminal.getvalue()
    assert "Verifying the output" in lines
    assert "Checking the interrupted" in lines
    assert lines.index("Checking") < lines.index("Converting") < lines.index("Verifying")
    before = len(lines)
    with conversion_progress("Converting") as report:
        report(Progress("", 0, 10, "reading back"))
        clock.now += 0.9
        report(Progress("", 10, 10, "reading back"))
    assert len(terminal.getvalue()) == before


def test_without_a_terminal_progress_is_one_plain_line(
    drawn: Callable[[int, io.StringIO], list[str]],
) -> None:
    lines = drawn(80, io.StringIO())
    assert lines == ["Converting a-model-with-quite-a-long-name to Q4_K_M (once): 5,800.0 MB ...\n"]


def fail(patience: RetryPolicy, times: int) -> int:
    failures = 0
    for _ in range(times):
        error = ConnectionError(errno.ECONNRESET, "gone\x1b[2J")
        failures = patience.failed("a.json of O/N", error, None, failures)
    return failures


def test_a_retry_line_is_erased_when_data_arrives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = a_terminal(monkeypatch)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 24)))
    with retry_notices():
        patience = RetryPolicy("http://hub", lambda _: None)
        failures = fail(patience, 3)
        lines = terminal.getvalue().split("\r")
        assert [line.rstrip() for line in lines if line.strip()] == [
            f"Trying again in {wait} s (attempt {attempt} of 6): gone\\x1b[2J: a.json of O/N"[:59]
            for attempt, wait in ((2, 1), (3, 2), (4, 4))
        ]
        assert patience.succeeded(failures) == 0
        assert terminal.getvalue().endswith("\r" + " " * 59 + "\r")
        shown = terminal.getvalue()
    assert terminal.getvalue() == shown
    assert "\n" not in shown
    assert max(map(len, lines)) < 60


def test_the_last_failure_erases_the_retry_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = a_terminal(monkeypatch)
    with pytest.raises(DownloadError, match="6 times"), retry_notices():
        fail(RetryPolicy("http://hub", lambda _: None), ATTEMPTS)
    assert terminal.getvalue().split("\r")[-2].strip() == ""
    fail(RetryPolicy("http://hub", lambda _: None), 1)  # outside of the block nothing is shown
    assert terminal.getvalue().count("Trying again") == ATTEMPTS - 1
