"""The chat loop: handles one message or command at a time and saves the chat after each.

An error in a turn is reported and does not end the chat. `PipeLoop` serves pipes; the loop for a
terminal is `interactive.TerminalLoop`.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from edgesppo.chat import template
from edgesppo.chat.dialogue import dialogue
from edgesppo.chat.messages import Message
from edgesppo.errors import ContextOverflow, EdgesppoError, OutputError
from edgesppo.interior import interior
from edgesppo.repl import status
from edgesppo.repl.attachments import still_attached
from edgesppo.repl.commands import info, registry
from edgesppo.repl.commands import turns as turn_commands
from edgesppo.repl.quotes import unquoted
from edgesppo.repl.stats import SessionStats
from edgesppo.system import notices
from edgesppo.terminal import ctrl_c
from edgesppo.terminal.columns import format_columns
from edgesppo.terminal.format import oldest_turns, one_line, speed_line
from edgesppo.terminal.output import is_broken_pipe
from edgesppo.terminal.raw_mode import Keyboard
from edgesppo.terminal.stream import PlainText, StyledText

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from contextlib import AbstractContextManager

    from edgesppo.chat.result import Chunk, Result
    from edgesppo.repl.attachments import Attachment
    from edgesppo.repl.state import ReplState
    from edgesppo.terminal.screen import Screen
    from edgesppo.terminal.stream import Renderer

_REPORT_STEP = 0.25  # share of progress between two lines where nothing is redrawn


class LoadFailed(Exception):
    """The model could not be loaded; `error` says why."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Loop:
    """One chat. Provides what commands may use; see `CommandContext`."""

    rich = False  # whether messages are read with a line editor
    interactive = False  # whether a user can be asked
    shows_progress = False  # whether the progress of a long prompt is shown
    newline_if_empty = False  # whether an empty answer is written as an empty line

    def __init__(self, state: ReplState, screen: Screen) -> None:
        self.state = state
        self.screen = screen
        self.stats = SessionStats()
        self.attached: list[Attachment] = []
        self.leaving = False
        self.interrupted = False  # whether Ctrl-C stopped the last answer
        self.ctrl_c = ctrl_c.CtrlC()
        self.keyboard = Keyboard(raw=self.rich)
        self._left_out = 0
        self._reported: tuple[str, float] = ("", 0.0)  # the last stage and share written

    def turn(self, line: str) -> bool:
        """Handle one message or command and save the chat; report a failure and return False."""
        text = line.strip()
        if not text and not self.attached:
            return True
        try:
            if registry.is_command(line):
                registry.run(self, text)
            else:
                self.wait_for_model()
                self._ask(line)
            return self._record()
        except EdgesppoError as error:
            self._say_error(" ".join(str(error).split()))
        except LoadFailed:
            raise
        except Exception as error:
            self._report_failure(error)
        return False

    def _record(self) -> bool:
        """Save the chat; if that fails, say so and return False."""
        if self.state.ready:
            try:
                self.state.record()
            except OutputError as error:
                self.say(f"(not saved: {error})")
                return False
        return True

    def _report_failure(self, error: Exception) -> None:
        """Say what the system or we did wrong; raises the error where nobody would read it."""
        if is_broken_pipe(error):
            raise error
        if isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            self._say_error(f"{where}{error.strerror or error}")
            return
        if os.environ.get("EDGESPPO_DEBUG"):
            raise error
        self._say_error(
            f"unexpected {type(error).__name__}: {' '.join(str(error).split())} "
            "(a bug in edgesppo; set EDGESPPO_DEBUG=1 to see where)"
        )

    def _ask(self, line: str) -> None:
        chat = self.state.chat
        asked, turns = turn_commands.message(self, unquoted(line)), len(chat.messages)
        if unanswered := self.state.asked:
            self.say(f"(left without an answer: {one_line(unanswered)})")
        try:
            with self.state.asking(asked):
                self.show(chat.stream(asked), asked)
        except ContextOverflow:
            self._say_long_system_text()
            raise
        finally:
            if len(chat.messages) > turns:
                self.attached.clear()
            elif self.interactive and (line := still_attached(self.attached)):
                self.say(line)

    def _say_long_system_text(self) -> None:
        """Beside the message it takes room, too."""
        if system := self.state.chat.system:
            size, n = self.state.size(system)
            if n > self.state.loaded.n_ctx // 2:
                self.say(f"(the system text alone has {size}; {info.WITHOUT_SYSTEM})")

    def _say_error(self, text: str) -> None:
        """Say what is wrong; on a terminal cut so that the beginning stays on the screen."""
        self.say(self.screen.shortened(f"error: {text}"))

    def say(self, text: str) -> None:
        """Write a message to standard error."""
        self.screen.say(text)

    def note(self, text: str) -> None:
        """Write a message to standard error that --quiet leaves out."""
        self.screen.note(text)

    def say_list(self, items: Sequence[Sequence[str]]) -> None:
        """Write a list in aligned columns to standard error; the last column is wrapped."""
        for row in format_columns(items, self.screen.message_columns):
            self.say(row)

    def recall(self) -> None:
        """Show the last turn of the chat; not needed in a pipe."""

    def write(self, text: str) -> None:
        """Write to standard output unchanged; not for untrusted text."""
        self.screen.write(text)

    def confirm(self, _question: str) -> bool:
        """Ask a yes-or-no question; in a pipe the answer is yes."""
        return True

    def put_back(self, text: str) -> None:
        """Offer a text that got no answer under the Up key; a pipe has none."""

    def release_keyboard(self) -> AbstractContextManager[None]:
        """Restore the keyboard settings in the block; a pipe has none."""
        return contextlib.nullcontext()

    def wait_for_model(self) -> None:
        """Wait for the model; in a pipe it is loaded before the first message."""

    def report(self, stage: str, share: float) -> None:
        """Show progress (share from 0 to 1): as a transient line, else now and then as a line."""
        if self.screen.redraws:
            self.screen.show_transient(f"{share:4.0%} {stage}" if stage else "")
        elif stage and (stage != self._reported[0] or share >= self._reported[1] + _REPORT_STEP):
            self._reported = (stage, share)
            self.note(f"{stage} {share:.0%}" if share else stage)

    def show(self, chunks: Generator[Chunk, None, None], question: str) -> None:
        """Stream an answer to the screen; Ctrl-C stops it and keeps the text so far."""
        chat = self.state.chat
        before = chat.last if chat.answered else None
        renderer: Renderer = (StyledText if self.screen.styled else PlainText)(self.screen)
        rate = self.stats.prefill_tps
        prefill = status.Prefill(self.screen, rate, shows_progress=self.shows_progress)
        self.interrupted = failed = False
        try:
            with self.keyboard.hold(), prefill, self.ctrl_c.stopping():
                prefill.expect(*self._prompt_size(question))
                for chunk in chunks:
                    with self.ctrl_c.deferred():
                        prefill.update(chunk)
                        renderer.feed(chunk.text)
        except KeyboardInterrupt:
            self.interrupted = True
        except EdgesppoError:
            failed = True
            raise
        finally:
            # After a Ctrl-C between two chunks the generator is still open.
            chunks.close()
            if renderer.started or (self.newline_if_empty and not failed):
                renderer.finish()
        new = chat.last if chat.answered and chat.last is not before else None
        if new is not None:
            self.stats.add(new)
        for line in notices.take():
            self.say(f"({line})")
        self._report_outcome(new, stopped=self.interrupted)

    def _prompt_size(self, question: str) -> tuple[int, int]:
        """(tokens of the prompt, those in the KV cache), to estimate the time; (0, 0): unknown."""
        if not self.shows_progress or not question:
            return 0, 0
        with contextlib.suppress(EdgesppoError):
            chat, engine = self.state.chat, interior(self.state.loaded).engine
            if template.fewest_tokens(engine.model, [question]) >= engine.n_ctx:
                return 0, 0  # it does not fit, and counting its tokens would take long
            ids = dialogue(chat).encode([Message("user", question)], left_out=chat.left_out)
            return len(ids), engine.count_cached(ids)
        return 0, 0

    def _report_outcome(self, new: Result | None, *, stopped: bool) -> None:
        """Say whether the answer was stopped or cut off, and how many old turns were left out."""
        reason = new.finish_reason if new is not None else ""
        if stopped or reason == "cancelled":
            has_text = new is not None and new.text
            way = "; /continue resumes the answer" if has_text else " before the first word"
            self.note(f"(stopped{way})")
        elif reason == "length":
            self.note(self._cut_off())
        left_out = self.state.chat.left_out
        if left_out > self._left_out:
            self.note(f"(left out of the prompt to make room: {oldest_turns(left_out)})")
        self._left_out = left_out

    def _cut_off(self) -> str:
        """What to do about an answer that a limit has ended."""
        if dialogue(self.state.chat).can_continue():
            return "(cut off at the limit; /continue resumes the answer)"
        return (
            f"(cut off: the turn fills the context of {self.state.loaded.n_ctx:,} tokens"
            f"{self.state.larger}; a shorter message, sent with /edit, leaves more room)"
        )


class PipeLoop(Loop):
    """A chat through a pipe: every line is one message, and Ctrl-C ends the chat."""

    newline_if_empty = True

    def turn(self, line: str) -> bool:
        """Handle one line. A blank one is no message, also while files are attached."""
        return super().turn(line) if line.strip() else True

    def show(self, chunks: Generator[Chunk, None, None], question: str) -> None:
        """Stream an answer, then write its token counts and speed to standard error."""
        super().show(chunks, question)
        if self.state.chat.answered:
            self.note(speed_line(self.state.chat.last))
        if self.interrupted:
            raise KeyboardInterrupt

    def _ask(self, line: str) -> None:
        try:
            super()._ask(line)
        finally:
            self.attached.clear()
