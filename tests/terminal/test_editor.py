"""The user's editor is started as $EDITOR says, and what it saves is taken."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.terminal import editor

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (r'"C:\Program Files\Np\np.exe" -w', [r"C:\Program Files\Np\np.exe", "-w"]),
        (r"C:\tools\vim.exe --nofork", [r"C:\tools\vim.exe", "--nofork"]),
    ],
)
def test_on_windows_backslashes_stay_and_quotes_keep_blanks(command: str, words: list[str]) -> None:
    assert editor._words(command, posix=False) == words


def test_a_byte_order_mark_is_no_part_of_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "notepad.py"
    program.write_text(
        "import sys, pathlib; pathlib.Path(sys.argv[1]).write_bytes(b'\\xef\\xbb\\xbfHi')"
    )
    monkeypatch.setenv("VISUAL", f'"{sys.executable}" "{program}"')
    assert editor.edit("") == "Hi"
