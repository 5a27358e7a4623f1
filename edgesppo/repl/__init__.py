"""The chat on a terminal, and for pipes: messages, commands, answers as they come.

Thin over `Chat` and the saved chats; knows nothing of how a model is found or loaded. Answers go
to standard output, all else to standard error. Owns who sits at the other end: a person with a
terminal that can be drawn on, one who wants plain lines, or a pipe.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import TYPE_CHECKING

from edgesppo.errors import OutputError
from edgesppo.repl.input import is_open, unquoted
from edgesppo.repl.interactive import TerminalLoop, wants_plain
from edgesppo.repl.loop import LoadFailed, PipeLoop
from edgesppo.repl.state import ReplState, Setup
from edgesppo.system.signals import Terminated, raise_on_termination, shielded
from edgesppo.terminal.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Setup", "from_lines", "interactive"]

KEYS = "Alt-Enter: new line | Ctrl-C: stop an answer | Ctrl-D: leave | /help: the rest"
PLAIN_KEYS = "Ctrl-C stops an answer, Ctrl-D leaves, /help lists the commands."


def interactive(setup: Setup, *, plain: bool = False) -> None:
    """Chat with a person until they leave. Raises what loading the model raised.

    `plain` draws nothing twice: no colours, no line that changes, no status. A terminal that can
    do no more gets the same. NO_COLOR leaves the Markdown as it is written, too. What could not
    be saved in the end is said; exits with 1 then, and with 128 and its number after a signal.
    """
    _take_any_bytes(sys.stdin)
    plain = plain or wants_plain()
    screen = Screen(moves=not plain, styled=not plain and not os.environ.get("NO_COLOR"))
    talk = ReplState(setup)
    saved, code = True, 0
    try:
        with raise_on_termination():
            person = TerminalLoop(talk, screen, edits=not plain)
            screen.say(PLAIN_KEYS if plain else KEYS)
            try:
                person.run()
            except LoadFailed as failed:
                raise failed.error from None
            finally:
                with shielded():
                    saved = _close(talk, screen)
    except Terminated as ended:
        code = int(ended.code or 0)
    except KeyboardInterrupt:
        if not talk.abandoned:
            raise
        code = 128 + signal.SIGINT
    code = code or int(not saved)
    if talk.abandoned:
        _end_now(code)
    if code:
        sys.exit(code)


def _end_now(code: int) -> None:
    """Without Python's own end, which would free what a thread still computes with."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _close(talk: ReplState, screen: Screen) -> bool:
    """Put everything on the disk, and say where it is."""
    talked = talk.ready
    try:
        talk.close()
    except OutputError as error:
        screen.say(f"edgesppo: the end of this chat is not saved: {error}")
        return False
    session = talk.session
    if (
        talked
        and session is not None
        and session.transcript is not None
        and session.transcript.turns
    ):
        screen.say(f"Saved as {talk.name}; edgesppo chat --resume goes on with it.")
    return True


def from_lines(setup: Setup, lines: Iterable[str]) -> bool:
    """Take every line as one message, for pipes and scripts; False if one of them failed.

    Between triple quotes, several lines are one. KeyboardInterrupt, and what `ending` raises, end
    them; what came is kept.
    """
    _take_any_bytes(lines)
    talk = ReplState(setup)
    loop = PipeLoop(talk, Screen(moves=False, styled=False))
    good = True
    with raise_on_termination():
        try:
            talk.load_now(lambda _stage, _share: None)
            for line in talk.news:
                loop.say(line)
            for message in _messages(lines):
                good &= loop.turn(message)
                if loop.leaving:
                    break
        finally:
            with shielded():
                try:
                    talk.close()
                except OutputError as error:
                    loop.say(f"edgesppo: the end of this chat is not saved: {error}")
                    good = False
    return good


def _take_any_bytes(lines: object) -> None:
    """Let a byte that is no text be a fault of the message that it is in, and of no other."""
    if isinstance(lines, io.TextIOWrapper):
        lines.reconfigure(errors="surrogateescape")


def _messages(lines: Iterable[str]) -> Iterable[str]:
    held: list[str] = []
    for line in lines:
        held.append(line.rstrip("\n"))
        text = "\n".join(held)
        if not is_open(text):
            yield unquoted(text)
            held = []
    if held:
        yield unquoted("\n".join(held))
