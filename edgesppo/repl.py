"""Owns the chat on a terminal: reading messages, streaming answers, a few commands.

Thin over `Chat`; knows nothing of how a model is found or loaded.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgesppo.errors import EdgesppoError
from edgesppo.terminal import printable, speed_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgesppo.chat import Chat
    from edgesppo.generate import Chunk

PROMPT = ">>> "
HELP = """\
  /help    this list             /exit    leave (or Ctrl-D)
  /clear   forget the chat       /undo    take back the last turn
  /regen   answer again          Ctrl-C   stop an answer; what came is kept"""


def interactive(chat: Chat) -> None:
    """Read messages from the terminal until Ctrl-D or /exit; errors never end the chat."""
    from prompt_toolkit import PromptSession

    print("Ctrl-D leaves, Ctrl-C stops an answer, /help lists the commands.")
    session: PromptSession[str] = PromptSession()
    while True:
        try:
            line = session.prompt(PROMPT)
        except KeyboardInterrupt:
            print("(Ctrl-D or /exit leaves)")
            continue
        except EOFError:
            return
        if not _turn(chat, line):
            return


def from_lines(chat: Chat, lines: Iterable[str]) -> None:
    """Take every line as one message; for pipes and scripts."""
    for line in lines:
        if not _turn(chat, line.rstrip("\n")):
            return


def _turn(chat: Chat, line: str) -> bool:
    """One message or command; False to leave."""
    text = line.strip()
    if text == "/exit":
        return False
    try:
        if text.startswith("/"):
            _command(chat, text)
        elif text:
            show(chat, chat.stream(line))
    except EdgesppoError as error:
        print(f"error: {error}", file=sys.stderr)
    return True


def _command(chat: Chat, text: str) -> None:
    commands: dict[str, Callable[[], None]] = {
        "/help": lambda: print(HELP),
        "/clear": lambda: _clear(chat),
        "/undo": lambda: print(f"(took back: {chat.undo()})"),
        "/regen": lambda: show(chat, chat.regenerate()),
    }
    command = commands.get(text)
    if command is None:
        print(f"unknown command {text!r}; /help lists them", file=sys.stderr)
    else:
        command()


def _clear(chat: Chat) -> None:
    chat.clear()
    print("(the chat is forgotten)")


def show(chat: Chat, chunks: Iterable[Chunk]) -> None:
    """Print an answer as it comes; Ctrl-C stops it and keeps what came."""
    try:
        for chunk in chunks:
            print(printable(chunk.text), end="", flush=True)
    except KeyboardInterrupt:
        print(" (stopped)", end="")
    print(flush=True)
    if chat.answered:
        print(speed_line(chat.last), file=sys.stderr, flush=True)
