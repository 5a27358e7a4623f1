"""The interactive chat: reads messages and commands, streams answers.

`interactive` serves a terminal, with an editor or with plain lines; `from_lines` serves a pipe.
Answers go to standard output, everything else to standard error. The room does not find or load
models itself: `Setup` brings the functions that do.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import TYPE_CHECKING

from edgesppo.errors import OutputError
from edgesppo.repl import piped
from edgesppo.repl.interactive import TerminalLoop, wants_plain
from edgesppo.repl.loop import LoadFailed, PipeLoop
from edgesppo.repl.model_slot import ModelSource
from edgesppo.repl.state import ReplState, Setup
from edgesppo.system.signals import Terminated, raise_on_termination
from edgesppo.terminal.format import saving_line
from edgesppo.terminal.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ModelSource", "Setup", "from_lines", "interactive"]

KEYS = "Alt-Enter: new line | Ctrl-C: stop the answer | Ctrl-D: quit | /help: commands"
PLAIN_KEYS = "Ctrl-C stops an answer, Ctrl-D quits, /help lists the commands."


def interactive(setup: Setup, *, plain: bool = False) -> None:
    """Chat on a terminal until the user quits. Raises what loading the model raised.

    `plain` redraws nothing: no colours, no progress line, no status line; a terminal that cannot
    do more is served the same way. NO_COLOR turns off colours and Markdown rendering. Exits with
    1 if the chat could not be saved, and with 128 plus its number after a signal.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # only the message with such bytes fails
    plain = plain or wants_plain()
    screen = Screen(redraws=not plain, styled=not plain and not os.environ.get("NO_COLOR"))
    state = ReplState(setup)
    saved, code = True, 0
    try:
        with raise_on_termination():
            loop = TerminalLoop(state, screen, rich=not plain)
            screen.note(PLAIN_KEYS if plain else KEYS)
            try:
                loop.run()
            except LoadFailed as failed:
                raise failed.error from None
            finally:
                saved = _leave(state, screen)
    except Terminated as ended:
        code = int(ended.code or 0)
    except KeyboardInterrupt:
        if not state.model.abandoned:
            raise
        code = 128 + signal.SIGINT
    code = code or int(not saved)
    if state.model.abandoned:
        _end_now(code)
    if code:
        sys.exit(code)


def _end_now(code: int) -> None:
    """Exit without Python's cleanup, which would free memory that a native thread still uses."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _close(state: ReplState, screen: Screen) -> bool:
    """Save the chat and free the model; say so and return False if saving failed."""
    try:
        state.close(lambda n_bytes: screen.note(saving_line(n_bytes)))
    except OutputError as error:
        screen.say(f"edgesppo: the last changes to this chat were not saved: {error}")
        return False
    return True


def _leave(state: ReplState, screen: Screen) -> bool:
    """Close as `_close`, and say under which name the chat was saved."""
    command = state.resume_command() if state.ready else ""
    saved, session = _close(state, screen), state.session
    has_turns = session is not None and session.transcript is not None and session.transcript.turns
    if saved and command and has_turns:
        screen.note(f"Saved as {state.name}. To continue this chat: {command}")
    return saved


def from_lines(setup: Setup, lines: Iterable[str]) -> bool:
    """Answer every line as one message, for pipes and scripts; return False if one failed.

    Several lines between triple quotes are one message; one with bytes that are not UTF-8 fails.
    Raises what loading the model and `piped.messages` raise. KeyboardInterrupt, and what
    `raise_on_termination` raises on a signal, stop the loop; the answer so far is kept.
    """
    state = ReplState(setup)
    screen = Screen(redraws=False, styled=False)
    loop = PipeLoop(state, screen)
    succeeded = True
    with raise_on_termination():
        try:
            state.load_now(lambda _stage, _share: None)
            for line in state.notices:
                loop.note(line)
            for message in piped.messages(lines):
                if message.fault is None:
                    succeeded &= loop.turn(message.text)
                else:
                    loop.say(f"error: {message.fault}")
                    succeeded = False
                if loop.leaving:
                    break
        finally:
            succeeded &= _close(state, screen)
    return succeeded
