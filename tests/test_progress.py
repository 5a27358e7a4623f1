"""How a conversion looks while it runs."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.cli.progress import Meter

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


def test_away_from_a_terminal_it_is_one_plain_line(
    drawn: Callable[[int, io.StringIO], list[str]],
) -> None:
    lines = drawn(80, io.StringIO())
    assert lines == ["Converting a-model-with-quite-a-long-name to Q4_K_M (once): 5,800.0 MB ...\n"]
