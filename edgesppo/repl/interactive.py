"""The loop of a chat on a terminal. The user may type while the model is still loading."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from edgesppo.errors import Cancelled, EdgesppoError
from edgesppo.interior import interior
from edgesppo.repl import status
from edgesppo.repl.commands import registry
from edgesppo.repl.last_turn import recap
from edgesppo.repl.loop import LoadFailed, Loop
from edgesppo.system.sanitize import one_line, printable
from edgesppo.terminal.output import is_quiet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from edgesppo.repl.input import Reader
    from edgesppo.repl.state import ReplState
    from edgesppo.terminal.screen import Screen

_POLL_S = 0.2  # between two checks of a loading model
_LONG = 400  # characters, from which on the status line tells the tokens of what is typed


class TerminalLoop(Loop):
    """A chat on a terminal; the model is loaded in the background."""

    interactive = shows_progress = True

    def __init__(self, state: ReplState, screen: Screen, *, rich: bool) -> None:
        self.rich = rich
        super().__init__(state, screen)
        self._status: Sequence[str] = ()
        self._typed: tuple[str, int] = ("", 0)  # a long message being typed, and its tokens
        self._unanswered = ""
        self.reader: Reader = self._rich() if rich else self._plain()

    def _plain(self) -> Reader:
        from edgesppo.repl.input import PlainReader

        return PlainReader(self.say)

    def _rich(self) -> Reader:
        from edgesppo.repl.completion import CommandCompleter
        from edgesppo.repl.input import RichReader

        return RichReader(self.say, self._toolbar, CommandCompleter(self.state))

    def run(self) -> None:
        """Read and answer until the user quits. Raises what loading the model raised."""
        self.state.load(on_progress=self._on_progress, on_done=self._on_loaded)
        if not self.rich:
            self.wait_for_model()
        # The line editor reads single keys, so those typed during an answer must not be buffered as
        # lines.
        with self.keyboard.hold() if self.rich else contextlib.nullcontext():
            if self.rich:
                self.reader.type_ahead(self.keyboard.typed_before())
            while not self.leaving:
                self._next()

    def _next(self) -> None:
        try:
            self._keep_unanswered()
            self.turn(self.reader.read())
            self._update_status()
        except KeyboardInterrupt:
            self.ctrl_c.pressed()
            if not self.ctrl_c.leaving:
                self.say("(to quit, press Ctrl-D or type /exit)")
        except EOFError:
            self.leaving = True
        self.leaving = self.leaving or self.ctrl_c.leaving

    def release_keyboard(self) -> AbstractContextManager[None]:
        """Restore the keyboard settings in the block."""
        return self.keyboard.release()

    def turn(self, line: str) -> bool:
        """Handle one message or command; a message without any answer can be brought back."""
        if hint := registry.hint(line):
            self.say(hint)
            return False
        before = self._n_messages()
        try:
            return super().turn(line)
        finally:
            is_message = line.strip() and not registry.is_command(line)
            if is_message and self._n_messages() == before:
                self.put_back(line)

    def put_back(self, text: str) -> None:
        """Say at the next prompt that the Up key brings this text back."""
        self._unanswered = text

    def _n_messages(self) -> int:
        return len(self.state.chat.messages) if self.state.ready else 0

    def recall(self) -> None:
        """Show the last turn of the chat."""
        for line in (*self._recap(), *self._offer_unanswered()):
            self.say(line)

    def _recap(self) -> list[str]:
        return recap(self.state.chat.messages, self.screen.message_columns)

    def _offer_unanswered(self) -> list[str]:
        """A line about the message that an earlier run did not get to answer, if there is one."""
        if not self.state.asked:
            return []
        start, end = "(not answered: ", "; /regen answers it)"
        columns = self.screen.message_columns or self.screen.size.columns
        room = max(20, columns - len(start + end))
        return [f"{start}{one_line(self.state.asked, room)}{end}"]

    def confirm(self, question: str) -> bool:
        """Ask a yes-or-no question; anything but y or yes is no."""
        try:
            with self.keyboard.release():
                return input(f"{printable(question)} [y/N] ").strip().lower() in ("y", "yes")
        except (EOFError, KeyboardInterrupt):
            self.say("")
            return False

    def wait_for_model(self) -> None:
        """Show the progress of loading until it is done. Raises what loading raised."""
        loading = self.state.model.loading
        assert loading is not None, "run() starts loading"
        try:
            while not loading.wait(_POLL_S):
                stage = self.state.model.stage
                queued = f"{stage}; your message will be sent then (Ctrl-C: cancel)"
                room = self.screen.size.columns - len("100%  ")
                stage = status.longest((queued, stage), room) if self.rich else stage
                self.report(stage, loading.share)
        finally:
            self.screen.show_transient("")
        try:
            loading.result()
        except Exception as error:
            raise LoadFailed(error) from error
        self.reader.flush()
        self._update_status()

    def _keep_unanswered(self) -> None:
        """Have the Up key bring back what got no answer.

        The prompt itself is empty: what is typed next is most often a command, and would follow it.
        """
        text, self._unanswered = self._unanswered, ""
        if text:
            again = "; the Up key brings it back" if self.reader.keep(text) else f": {text}"
            self.say(f"(your message got no answer{again})")

    def _on_progress(self) -> None:
        self.reader.refresh()

    def _on_loaded(self, failure: BaseException | None) -> None:
        """In the loading thread: announce the model, or make `read` raise LoadFailed."""
        if failure is None:
            self._update_status()
            notices = [] if is_quiet() else self.state.notices
            self.reader.announce([*notices, *self._recap(), *self._offer_unanswered()])
        elif not isinstance(failure, Cancelled):
            self.reader.fail(LoadFailed(failure))

    def _update_status(self) -> None:
        """Update the status line; not on every redraw, since counting tokens takes a moment."""
        if self.rich and self.state.ready:
            with contextlib.suppress(EdgesppoError):
                self._status = status.status_lines(self.state, self.state.n_tokens())

    def _count(self, typed: str) -> int:
        """The tokens of a message, which are counted once for each state of its text."""
        if self._typed[0] != typed:
            self._typed = (typed, self.state.size(typed)[1])
        return self._typed[1]

    def _toolbar(self, typed: str) -> str:
        columns = self.screen.size.columns - 1
        # A server would have to be asked at each key.
        if self._status and len(typed) >= _LONG and interior(self.state.loaded).url is None:
            with contextlib.suppress(EdgesppoError):
                n_ctx = self.state.loaded.n_ctx
                return status.longest(status.long_message(self._count(typed), n_ctx), columns)
        if self._status:
            return status.longest(self._status, columns)
        loading = self.state.model.loading
        share = f" {loading.share:.0%}" if loading is not None and loading.share else ""
        stage = f"{self.state.model.stage}{share}"
        return status.longest((f"{stage}; you can already type a message", stage), columns)


def wants_plain() -> bool:
    """Whether the terminal can only write lines, as TERM says."""
    return os.environ.get("TERM", "") in ("dumb", "unknown") and sys.platform != "win32"
