"""Owns the chat's loop: a message or a command is read, done, and on the disk before the next.

Errors in a turn never end it. Knows nothing of how a model is found or loaded.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from edgesppo.errors import Cancelled, EdgesppoError
from edgesppo.prompt import Message
from edgesppo.repl import asking, commands, signals, status
from edgesppo.repl.keys import Keys
from edgesppo.repl.stream import PlainText, StyledText
from edgesppo.repl.totals import Totals
from edgesppo.terminal import speed_line

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

    from edgesppo.generate import Chunk, Result
    from edgesppo.repl.attach import Attached
    from edgesppo.repl.input import Reader
    from edgesppo.repl.screen import Screen
    from edgesppo.repl.stream import Renderer
    from edgesppo.repl.talk import Talk

_LOOK_S = 0.2
_SAID_EVERY = 0.25  # of a load, where nothing is drawn over


class Loop:
    """One person's chat. `read` gives messages until EOFError; None: they come from a pipe."""

    edits = False
    ends_empty = False  # whether an answer without a word is an empty line

    def __init__(self, talk: Talk, screen: Screen) -> None:
        self.talk = talk
        self.screen = screen
        self.totals = Totals()
        self.attached: list[Attached] = []
        self.leaving = False
        self.ctrl_c = signals.CtrlC()
        self.keys = Keys(raw=self.edits)
        self._left_out = 0
        self._said: tuple[str, float] = ("", 0.0)

    def turn(self, line: str) -> bool:
        """One message or command, recorded; says so, and gives False, when it failed."""
        text = line.strip()
        if not text and not self.attached:
            return True
        try:
            if text.startswith("/") and "\n" not in text:
                commands.run(self, text)
            else:
                self.wait_for_model()
                self._ask(line)
            if self.talk.ready:
                self.talk.record()
        except EdgesppoError as error:
            self.say(f"error: {' '.join(str(error).split())}")
            return False
        return True

    def _ask(self, line: str) -> None:
        chat = self.talk.chat
        asked, turns = asking.message(self, line), len(chat.messages)
        self.show(chat.stream(asked), asked)
        if len(chat.messages) > turns:
            self.attached.clear()

    def say(self, text: str) -> None:
        """A line beside the answers."""
        self.screen.say(text)

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
        prefill = status.Prefill(self.screen, *self._prompt_size(question), self.totals.prefill_tps)
        interrupted = failed = False
        try:
            with self.keys.held(), prefill, self.ctrl_c.stopping():
                for chunk in chunks:
                    with self.ctrl_c.held():
                        prefill.heard(chunk)
                        renderer.feed(chunk.text)
        except KeyboardInterrupt:
            interrupted = True
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
        self._mark(new, stopped=interrupted)

    def _prompt_size(self, question: str) -> tuple[int, int]:
        """Tokens of the prompt, and how many of them are held: for the estimate only."""
        if not self.screen.moves or not question:
            return 0, 0
        with contextlib.suppress(EdgesppoError):
            chat = self.talk.chat
            ids = chat.encode([Message("user", question)], left_out=chat.left_out)
            return len(ids), self.talk.loaded.engine.held(ids)
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
            self.say(f"(the oldest {left_out} turns no longer fit the context)")
        self._left_out = left_out


class Lines(Loop):
    """Every line of a pipe is one message."""

    ends_empty = True

    def show(self, chunks: Generator[Chunk, None, None], question: str) -> None:
        """The answer, and its figures beside it."""
        super().show(chunks, question)
        if self.talk.chat.answered:
            self.say(speed_line(self.talk.chat.last))

    def _ask(self, line: str) -> None:
        try:
            super()._ask(line)
        finally:
            self.attached.clear()


class Person(Loop):
    """A person at a terminal, who may type before the model is there."""

    def __init__(self, talk: Talk, screen: Screen, *, edits: bool) -> None:
        self.edits = edits
        super().__init__(talk, screen)
        self._status = ""
        self._draft = ""
        self.reader: Reader = self._rich() if edits else self._plain()

    def _plain(self) -> Reader:
        from edgesppo.repl.input import PlainReader

        return PlainReader(self.say)

    def _rich(self) -> Reader:
        from edgesppo.repl.completion import CommandCompleter
        from edgesppo.repl.input import RichReader

        return RichReader(self.say, self._toolbar, CommandCompleter(self.talk))

    def run(self) -> None:
        """Read and answer until the person leaves. Raises what loading the model raised."""
        self.talk.load(moved=self._moved, ended=self._loaded)
        if not self.edits:
            self.wait_for_model()
        # Where keys are read one by one they wait as such, whatever is done meanwhile.
        with self.keys.held() if self.edits else contextlib.nullcontext():
            while not self.leaving:
                self._next()

    def _next(self) -> None:
        try:
            self.turn(self.reader.read(self._take_draft()))
            self._look()
        except KeyboardInterrupt:
            self.ctrl_c.pressed()
            if not self.ctrl_c.leaving:
                self.say("(Ctrl-D or /exit leaves)")
        except EOFError:
            self.leaving = True
        self.leaving = self.leaving or self.ctrl_c.leaving

    def free_keys(self) -> AbstractContextManager[None]:
        """Keys as they were before us."""
        return self.keys.free()

    def turn(self, line: str) -> bool:
        """One message or command; one that was not answered at all comes back to the prompt."""
        before = self._n_messages()
        try:
            return super().turn(line)
        finally:
            if not line.lstrip().startswith("/") and self._n_messages() == before:
                self._draft = line

    def _n_messages(self) -> int:
        return len(self.talk.chat.messages) if self.talk.ready else 0

    def confirm(self, question: str) -> bool:
        """Ask; anything but a yes is a no."""
        try:
            with self.keys.free():
                return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        except (EOFError, KeyboardInterrupt):
            self.say("")
            return False

    def wait_for_model(self) -> None:
        """Say how far it is until it is there. Raises what loading it raised."""
        loading = self.talk.loading
        assert loading is not None, "run() began to load"
        try:
            while not loading.wait(_LOOK_S):
                waits = "; your message waits (Ctrl-C takes it back)" if self.edits else ""
                self.report(status.stage(self.talk) + waits, loading.share)
        finally:
            self.screen.pass_by("")
        try:
            loading.result()
        except Exception as error:
            raise LoadFailed(error) from error
        self.reader.tell()
        self._look()

    def _take_draft(self) -> str:
        draft, self._draft = self._draft, ""
        return draft

    def _moved(self) -> None:
        self.reader.refresh()

    def _loaded(self, failure: BaseException | None) -> None:
        """In the loading thread: say what runs, or let the message wait no longer."""
        if failure is None:
            self._look()
            self.reader.announce(self.talk.news)
        elif not isinstance(failure, Cancelled):
            self.reader.fail(LoadFailed(failure))

    def _look(self) -> None:
        """Take note of what the status line shows; counting tokens takes a moment."""
        if self.edits and self.talk.ready:
            with contextlib.suppress(EdgesppoError):
                self._status = status.status_line(self.talk, self.talk.n_tokens())

    def _toolbar(self) -> str:
        if self._status:
            return self._status
        loading = self.talk.loading
        share = f" {loading.share:.0%}" if loading is not None and loading.share else ""
        return f"{status.stage(self.talk)}{share}; type already, a message waits"


class LoadFailed(Exception):
    """There is no model to talk to: `error` says why."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def wants_plain() -> bool:
    """Whether the terminal can do no more than write lines."""
    return os.environ.get("TERM", "") in ("dumb", "unknown") and sys.platform != "win32"
