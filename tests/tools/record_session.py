"""Record a chat with the demo on a pseudo-terminal as an SVG picture of its screen.

python -m tests.tools.record_session edgesppo/demo/session.svg
"""

from __future__ import annotations

import re
import sys
import tempfile
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.pty_terminal import Terminal

if TYPE_CHECKING:
    import pyte

COLUMNS, LINES = 80, 24
_CELL_W, _CELL_H, _MARGIN = 8.4, 18, 14
_PAPER, _INK = "#1c1f24", "#e4e6ea"
_FILLED = {"brightblack": "#5c626c"}
_COLOURS = {"green": "#7fd08a", "magenta": "#d79be8", "red": "#f08a80"}


def record() -> str:
    """Chat with the demo; return the final screen as SVG."""
    with tempfile.TemporaryDirectory() as home:
        before = _chat(home, "demo", "--session", "rome", "--temperature", "0")
        told = [("My name is Ada.\r", "t/s | rome"), ("Who are you?\r", "t/s | rome")]
        _converse(before, *told, ("\x04", "Saved as"))
        before.close()
        chat = _chat(home, "--resume")
        _converse(
            chat,
            ("What is my name?\r", "t/s | rome"),
            ("/context\r", "in the KV cache"),
            ("/s", "list the saved chats"),
            ("", "rome"),
        )
        found = picture(chat.display)
        chat.process.terminate()
        chat.close()
        return found


def _chat(home: str, *options: str) -> Terminal:
    command = [sys.executable, "-m", "edgesppo", "chat", *options]
    chat = Terminal(command, columns=COLUMNS, lines=LINES, EDGESPPO_HOME=home)
    chat.expect("| loaded")
    return chat


def _converse(chat: Terminal, *lines: tuple[str, str]) -> None:
    for keys, answer in lines:
        chat.type(keys)
        chat.expect(answer)


def picture(screen: pyte.Screen) -> str:
    """The screen as SVG with real text."""
    width = COLUMNS * _CELL_W + 2 * _MARGIN
    height = LINES * _CELL_H + 2 * _MARGIN
    rows = "\n".join(_row(screen, y) for y in range(LINES))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14">\n'
        f'<rect width="100%" height="100%" rx="8" fill="{_PAPER}"/>\n{rows}\n</svg>\n'
    )


def _row(screen: pyte.Screen, y: int) -> str:
    cells = [(x, screen.buffer[y][x]) for x in range(COLUMNS)]
    runs = groupby(cells, key=lambda cell: cell[1]._replace(data=""))
    return "".join(_run(style, [*run], y) for style, run in runs)


def _run(style: pyte.screens.Char, run: list[tuple[int, pyte.screens.Char]], y: int) -> str:
    text = "".join(char.data for _, char in run)
    x, top = _MARGIN + run[0][0] * _CELL_W, _MARGIN + y * _CELL_H
    ink, paper = _COLOURS.get(style.fg, _INK), _PAPER
    found = ""
    if style.reverse:
        ink, paper = paper, ink
    paper = _FILLED.get(style.bg, paper)
    if paper != _PAPER:
        wide, high = len(run) * _CELL_W, _CELL_H + 0.5  # overlaps the next row: no seam
        found = f'<rect x="{x:.1f}" y="{top}" width="{wide:.1f}" height="{high}" fill="{paper}"/>'
    weight = ' font-weight="bold"' if style.bold else ""
    return found + "".join(
        f'<text x="{x + word.start() * _CELL_W:.1f}" y="{top + 13}" fill="{ink}"{weight} '
        f'textLength="{len(word[0]) * _CELL_W:.1f}">{escape(word[0])}</text>'
        for word in re.finditer(r"\S+", text)  # each word in its column, whatever the font
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(record(), encoding="utf-8")
