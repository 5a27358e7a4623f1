"""Owns one turn of the chat: a message or a command is done, and on the disk before the next.

Errors in a turn never end it. Knows nothing of how a model is found or loaded, and nothing of
where messages come from; a pipe's are here, a person's in person.py.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from edgesppo.chat.template import Message
from edgesppo.errors import ContextOverflow, EdgesppoError
from edgesppo.repl import status
from edgesppo.repl.commands import registry
from edgesppo.repl.commands import turns as asking
from edgesppo.repl.stats import SessionStats
from edgesppo.system.signals import shielded
from edgesppo.terminal import ctrl_c
from edgesppo.terminal.columns import listed
from edgesppo.terminal.format import n_turns, speed_line
from edgesppo.terminal.raw_mode import Keys
from edgesppo.terminal.stream import PlainText, StyledText

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from contextlib import AbstractContextManager

    from edgesppo.chat.generation import Chunk, Result
    from edgesppo.repl.attachments import Attached
    from edgesppo.repl.state import ReplState
    from edgesppo.terminal.screen import Screen
    from edgesppo.terminal.stream import Renderer

_SAID_EVERY = 0.25  # of a load, where nothing is drawn over


class LoadFailed(Exception):
    """There is no model to talk to: `error` says why."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Loop:
    """One person's chat. `read` gives messages until EOFError; None: they come from a pipe."""

    edits = False
    asks = False
    tells = False  # whether somebody waits for a long prompt
    ends_empty = False  # whether an answer without a word is an empty line

    def __init__(self, talk: ReplState, screen: Screen) -> None:
        self.talk = talk
        self.screen = screen
        self.totals = SessionStats()
        self.attached: list[Attached] = []
        self.leaving = False
        self.interrupted = False  # the last answer
        self.ctrl_c = ctrl_c.CtrlC()
        self.keys = Keys(raw=self.edits)
        self._left_out = 0
        self._said: tuple[str, float] = ("", 0.0)

    def turn(self, line: str) -> bool:
        """One message or command, recorded; says so, and gives False, when it failed."""
        text = line.strip()
        if not text and not self.attached:
            return True
        try:
            if registry.is_command(line):
                registry.run(self, text)
            else:
                self.wait_for_model()
                self._ask(line)
            if self.talk.ready:
                with shielded():
                    self.talk.record()
        except EdgesppoError as error:
            self.say(f"error: {' '.join(str(error).split())}")
            return False
        except (BrokenPipeError, LoadFailed):
            raise  # nobody reads any more; there is nothing to talk to
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            self.say(f"error: {where}{error.strerror or error}")
            return False
        except Exception as error:
            if os.environ.get("EDGESPPO_DEBUG"):
                raise
            self.say(
                f"error: unexpected {type(error).__name__}: {' '.join(str(error).split())} "
                "(a defect of edgesppo; EDGESPPO_DEBUG=1 shows where)"
            )
            return False
        return True

    def _ask(self, line: str) -> None:
        chat = self.talk.chat
        asked, turns = asking.message(self, line), len(chat.messages)
        try:
            self.show(chat.stream(asked), asked)
        except ContextOverflow:
            if self.attached:
                self.say(f"({self.attached[-1].name} waits still; /undo takes it back)")
            raise
        if len(chat.messages) > turns:
            self.attached.clear()

    def say(self, text: str) -> None:
        """A line beside the answers."""
        self.screen.say(text)

    def say_list(self, items: Sequence[Sequence[str]]) -> None:
        """Items in columns."""
        for row in listed(items, self.screen.said_columns):
            self.say(row)

    def recall(self) -> None:
        """A script knows where it was."""

    def write(self, text: str) -> None:
        """Straight to standard output."""
        self.screen.write(text)

    def confirm(self, _question: str) -> bool:
        """A script said yes by asking."""
        return True

    def free_keys(self) -> AbstractContextManager[None]:
        """A pipe has no keys."""
        return contextlib.nullcontext()

    def wait_for_model(self) -> None:
        """Nothing to wait for: it was loaded before."""

    def report(self, stage: str, share: float) -> None:
        """How far something long is: a line that passes, or now and then one that stays."""
        if self.screen.moves:
            self.screen.pass_by(f"{share:4.0%} {stage}" if stage else "")
        elif stage and (stage != self._said[0] or share >= self._said[1] + _SAID_EVERY):
            self._said = (stage, share)
            self.say(f"{stage} {share:.0%}" if share else stage)

    def show(self, chunks: Generator[Chunk, None, None], question: str) -> None:
        """Print an answer as it comes; Ctrl-C stops it and keeps what came."""
        chat = self.talk.chat
        before = chat.last if chat.answered else None
        renderer: Renderer = (StyledText if self.screen.styled else PlainText)(self.screen)
        size, rate = self._prompt_size(question), self.totals.prefill_tps
        prefill = status.Prefill(self.screen, *size, rate, tells=self.tells)
        self.interrupted = failed = False
        try:
            with self.keys.held(), prefill, self.ctrl_c.stopping():
                for chunk in chunks:
                    with self.ctrl_c.held():
                        prefill.heard(chunk)
                        renderer.feed(chunk.text)
        except KeyboardInterrupt:
            self.interrupted = True
        except EdgesppoError:
            failed = True
            raise
        finally:
            # Where Ctrl-C came between two chunks, the answer does not know of it yet.
            chunks.close()
            if renderer.begun or (self.ends_empty and not failed):
                renderer.finish()
        new = chat.last if chat.answered and chat.last is not before else None
        if new is not None:
            self.totals.add(new)
        self._mark(new, stopped=self.interrupted)

    def _prompt_size(self, question: str) -> tuple[int, int]:
        """Tokens of the prompt, and how many of them are held: for the estimate only."""
        if not self.tells or not question:
            return 0, 0
        with contextlib.suppress(EdgesppoError):
            chat = self.talk.chat
            if self.talk.loaded.model.fewest_tokens(question) >= self.talk.loaded.engine.n_ctx:
                return 0, 0  # it will not fit, and counting it would take its time
            ids = chat.encode([Message("user", question)], left_out=chat.left_out)
            return len(ids), self.talk.loaded.engine.count_cached(ids)
        return 0, 0

    def _mark(self, new: Result | None, *, stopped: bool) -> None:
        """Say what the answer itself does not show."""
        reason = new.finish_reason if new is not None else ""
        if stopped or reason == "cancelled":
            came = new is not None and new.text
            self.say("(stopped; /continue goes on)" if came else "(stopped before the first word)")
        elif reason == "length":
            self.say("(cut at the limit; /continue goes on)")
        left_out = self.talk.chat.left_out
        if left_out > self._left_out:
            self.say(f"(the oldest {n_turns(left_out)} no longer fit the context)")
        self._left_out = left_out


class PipeLoop(Loop):
    """Every line of a pipe is one message. Ctrl-C ends them all."""

    ends_empty = True

    def show(self, chunks: Generator[Chunk, None, None], question: str) -> None:
        """The answer, and its figures beside it."""
        super().show(chunks, question)
        if self.talk.chat.answered:
            self.say(speed_line(self.talk.chat.last))
        if self.interrupted:
            raise KeyboardInterrupt

    def _ask(self, line: str) -> None:
        try:
            super()._ask(line)
        finally:
            self.attached.clear()
