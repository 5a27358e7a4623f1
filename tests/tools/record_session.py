"""Record the chat with the demo that edgesppo/help/chat.md shows, on a pseudo-terminal.

python -m tests.tools.record_session
"""

from __future__ import annotations

import sys
import tempfile
from textwrap import indent

from tests.support.pty_terminal import Terminal

COLUMNS, LINES = 80, 24


def record() -> str:
    """Chat with the demo; return the lines of the final screen."""
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
        )
        while not _is_drawn(chat.display.display):
            chat.wait_for_more(1)
        lines = [line.rstrip() for line in chat.display.display]
        chat.process.terminate()
        chat.close()
        return "".join(f"{line}\n" for line in lines if line)


def _chat(home: str, *options: str) -> Terminal:
    command = [sys.executable, "-m", "edgesppo", "chat", *options]
    chat = Terminal(command, columns=COLUMNS, lines=LINES, EDGESPPO_HOME=home)
    chat.expect("| loaded")
    return chat


def _converse(chat: Terminal, *lines: tuple[str, str]) -> None:
    for keys, answer in lines:
        chat.type(keys)
        chat.expect(answer)


def _is_drawn(lines: list[str]) -> bool:
    """Whether the last command offered is there, and the line of the chat's state."""
    return any("  /save " in line for line in lines) and lines[-1].rstrip().endswith("| rome")


if __name__ == "__main__":
    print(indent(record(), " " * 4), end="")
