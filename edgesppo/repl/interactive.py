"""Owns the chat's loop with a person at a terminal, who may type before the model is there.

Knows nothing of how a model is found or loaded.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from edgesppo.errors import Cancelled, EdgesppoError
from edgesppo.repl import status
from edgesppo.repl.commands import registry
from edgesppo.repl.last_turn import recap
from edgesppo.repl.loop import LoadFailed, Loop
from edgesppo.system.sanitize import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from edgesppo.repl.input import Reader
    from edgesppo.repl.state import ReplState
    from edgesppo.terminal.screen import Screen

_LOOK_S = 0.2


class TerminalLoop(Loop):
    """A person at a terminal, who may type before the model is there."""

    asks = tells = True

    def __init__(self, talk: ReplState, screen: Screen, *, edits: bool) -> None:
        self.edits = edits
        super().__init__(talk, screen)
        self._status: Sequence[str] = ()
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
            if not registry.is_command(line) and self._n_messages() == before:
                self._draft = line

    def _n_messages(self) -> int:
        return len(self.talk.chat.messages) if self.talk.ready else 0

    def recall(self) -> None:
        """Show the last turn once more."""
        for line in self._recap():
            self.say(line)

    def _recap(self) -> list[str]:
        return recap(self.talk.chat.messages, self.screen.said_columns)

    def confirm(self, question: str) -> bool:
        """Ask; anything but a yes is a no."""
        try:
            with self.keys.free():
                return input(f"{printable(question)} [y/N] ").strip().lower() in ("y", "yes")
        except (EOFError, KeyboardInterrupt):
            self.say("")
            return False

    def wait_for_model(self) -> None:
        """Say how far it is until it is there. Raises what loading it raised."""
        loading = self.talk.loading
        assert loading is not None, "run() began to load"
        try:
            while not loading.wait(_LOOK_S):
                stage = status.stage(self.talk)
                waits = f"{stage}; your message waits (Ctrl-C takes it back)"
                room = self.screen.size.columns - len("100%  ")
                stage = status.longest((waits, stage), room) if self.edits else stage
                self.report(stage, loading.share)
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
            self.reader.announce([*self.talk.news, *self._recap()])
        elif not isinstance(failure, Cancelled):
            self.reader.fail(LoadFailed(failure))

    def _look(self) -> None:
        """Take note of what the status line shows; counting tokens takes a moment."""
        if self.edits and self.talk.ready:
            with contextlib.suppress(EdgesppoError):
                self._status = status.status_lines(self.talk, self.talk.n_tokens())

    def _toolbar(self) -> str:
        columns = self.screen.size.columns - 1
        if self._status:
            return status.longest(self._status, columns)
        loading = self.talk.loading
        share = f" {loading.share:.0%}" if loading is not None and loading.share else ""
        stage = f"{status.stage(self.talk)}{share}"
        return status.longest((f"{stage}; you may type, the message waits", stage), columns)


def wants_plain() -> bool:
    """Whether the terminal can do no more than write lines."""
    return os.environ.get("TERM", "") in ("dumb", "unknown") and sys.platform != "win32"
