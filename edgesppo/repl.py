"""Owns the chat on a terminal: reading messages, streaming answers, a few commands.

Thin over `Chat`; knows nothing of how a model is found or loaded. Answers go to standard output,
all else to standard error.
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


class _Leave(Exception):
    """The person wants to leave."""


def interactive(chat: Chat, record: Callable[[], None] | None = None) -> None:
    """Read messages from the terminal until Ctrl-D or /exit; errors never end the chat.

    `record()` is called after whatever may have changed the chat, to put it on the disk.
    """
    from prompt_toolkit import PromptSession

    _say("Ctrl-D leaves, Ctrl-C stops an answer, /help lists the commands.")
    session: PromptSession[str] = PromptSession()
    while True:
        try:
            _turn(chat, session.prompt(PROMPT), printable, record)
        except KeyboardInterrupt:
            _say("(Ctrl-D or /exit leaves)")
        except (EOFError, _Leave):
            return


def from_lines(chat: Chat, lines: Iterable[str], record: Callable[[], None] | None = None) -> bool:
    """Take every line as one message, for pipes and scripts; False if one of them failed."""
    good = True
    for line in lines:
        try:
            good &= _turn(chat, line.rstrip("\n"), str, record)
        except _Leave:
            break
    return good


def _turn(
    chat: Chat, line: str, clean: Callable[[str], str], record: Callable[[], None] | None
) -> bool:
    """One message or command, recorded; says so, and gives False, when it failed."""
    text = line.strip()
    try:
        if text.startswith("/"):
            _command(chat, text, clean)
        elif text:
            _show(chat, chat.stream(line), clean)
        if text and record is not None:
            record()
    except EdgesppoError as error:
        _say(f"error: {error}")
        return False
    return True


def _command(chat: Chat, text: str, clean: Callable[[str], str]) -> None:
    commands: dict[str, Callable[[], None]] = {
        "/help": lambda: _say(HELP),
        "/exit": _leave,
        "/clear": lambda: _clear(chat),
        "/undo": lambda: _say(f"(took back: {printable(chat.undo())})"),
        "/regen": lambda: _show(chat, chat.regenerate(), clean),
    }
    command = commands.get(text)
    if command is None:
        raise EdgesppoError(f"unknown command {text!r}; /help lists them")
    command()


def _leave() -> None:
    raise _Leave


def _clear(chat: Chat) -> None:
    chat.clear()
    _say("(the chat is forgotten)")


def _show(chat: Chat, chunks: Iterable[Chunk], clean: Callable[[str], str]) -> None:
    """Print an answer as it comes; Ctrl-C stops it and keeps what came."""
    before = chat.last if chat.answered else None
    try:
        for chunk in chunks:
            print(clean(chunk.text), end="", flush=True)
    except KeyboardInterrupt:
        print(" (stopped)", end="")
        _close(chunks)
    print(flush=True)
    if chat.answered and chat.last is not before:
        _say(speed_line(chat.last))


def _close(chunks: Iterable[Chunk]) -> None:
    """Where Ctrl-C came between two chunks, the answer does not know of it yet."""
    close = getattr(chunks, "close", None)
    if close is not None:
        close()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
