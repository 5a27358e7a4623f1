"""Reading messages from a terminal: with a line editor, or as plain lines.

A message may have several lines: Alt-Enter or Ctrl-J starts a new one, pasted lines stay together,
and a block between triple quotes is one message.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from edgesppo.errors import EdgesppoError
from edgesppo.repl import history
from edgesppo.repl.quotes import is_open
from edgesppo.terminal import editor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prompt_toolkit.completion import Completer
    from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent

PROMPT, MORE = ">>> ", "... "


class Reader(Protocol):
    """A source of messages. `read` raises EOFError on Ctrl-D, KeyboardInterrupt on Ctrl-C."""

    def read(self) -> str:
        """Read the next message."""

    def type_ahead(self, keys: str) -> None:
        """Take keys that were typed before the first prompt as if they came there."""

    def keep(self, text: str) -> bool:
        """Make the Up key bring this text back at the next prompt; returns whether it will."""

    def announce(self, lines: Iterable[str]) -> None:
        """Show lines, from any thread, even while the user is typing."""

    def flush(self) -> None:
        """Show announced lines that have not been shown yet."""

    def fail(self, error: BaseException) -> None:
        """Make the current or next `read` raise this; from any thread."""

    def refresh(self) -> None:
        """Redraw the status line; from any thread."""


class PlainReader:
    """Reads lines with `input()` (and readline, if there): nothing is redrawn."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._failure: BaseException | None = None
        self._history = history.history()
        with suppress(ImportError):
            import readline  # once imported, input() uses it

            for line in reversed([*self._history.load_history_strings()]):
                if "\n" not in line:
                    with suppress(ValueError):  # a NUL, or a character that the encoding lacks
                        readline.add_history(line)

    def read(self) -> str:
        """Read the next message."""
        if self._failure is not None:
            raise self._failure
        try:
            text = input(PROMPT)
            while is_open(text):
                text += "\n" + input(MORE)
        except (EOFError, KeyboardInterrupt, SystemExit):
            self._say("")  # the next message starts on a new line
            raise
        if text.strip():
            self._history.store_string(text)
        return text

    def type_ahead(self, keys: str) -> None:
        """Do nothing: `input()` reads what the terminal has kept."""

    def keep(self, text: str) -> bool:
        """Add the text to readline's history; a message of several lines is not there yet."""
        with suppress(ImportError, ValueError):  # as above
            import readline

            if readline.get_history_item(readline.get_current_history_length()) != text:
                readline.add_history(text)
            return True
        return False

    def announce(self, lines: Iterable[str]) -> None:
        """Show the lines at once."""
        for line in lines:
            self._say(line)

    def flush(self) -> None:
        """Do nothing: `announce` shows lines at once."""

    def fail(self, error: BaseException) -> None:
        """Make the next `read` raise this."""
        self._failure = error

    def refresh(self) -> None:
        """Do nothing: there is no status line."""


class RichReader:
    """Reads messages with prompt_toolkit: editing, history, completion, a status line.

    `status` gives that line, of what is typed so far.
    """

    def __init__(
        self, say: Callable[[str], None], status: Callable[[str], str], completer: Completer
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.application import get_app
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.styles import Style

        self._say = say
        self._pending: deque[str] = deque()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        in_command = Condition(lambda: get_app().current_buffer.text.startswith("/"))
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            history=history.history(),
            completer=completer,
            complete_while_typing=in_command,
            complete_in_thread=False,
            bottom_toolbar=lambda: status(self._session.default_buffer.text),
            # A line that is only wrapped is no new line.
            prompt_continuation=lambda _width, _line, wraps: "" if wraps else MORE,
            key_bindings=_key_bindings(say),
            enable_suspend=True,
            # Only the terminal's own colours, which are readable on any background.
            style=Style.from_dict(
                {
                    "prompt": "bold",
                    "bottom-toolbar": "noreverse",
                    "completion-menu.completion": "noinherit",
                    "completion-menu.completion.current": "noinherit reverse",
                    "completion-menu.meta.completion": "noinherit",
                    "completion-menu.meta.completion.current": "noinherit reverse",
                    "scrollbar.background": "noinherit",
                    "scrollbar.button": "noinherit bg:ansibrightblack",
                }
            ),
        )

    def read(self) -> str:
        """Read the next message."""
        self.flush()
        if self._failure is not None:
            raise self._failure
        return self._session.prompt([("class:prompt", PROMPT)])

    def type_ahead(self, keys: str) -> None:
        """Have the prompts that follow read these keys first."""
        from prompt_toolkit.input.typeahead import store_typeahead
        from prompt_toolkit.input.vt100_parser import Vt100Parser

        pressed: list[KeyPress] = []
        Vt100Parser(pressed.append).feed_and_flush(keys)
        store_typeahead(self._session.app.input, pressed)

    def keep(self, text: str) -> bool:
        """Add the text to the history unless it is the last entry."""
        history = self._session.default_buffer.history
        if text not in history.get_strings()[-1:]:
            history.append_string(text)
        return True

    def announce(self, lines: Iterable[str]) -> None:
        """Show lines above the message."""
        self._pending.extend(lines)
        self._in_app(self._flush_above)

    def fail(self, error: BaseException) -> None:
        """Make the current or next `read` raise this."""
        self._failure = error
        self._in_app(self._leave)

    def refresh(self) -> None:
        """Redraw the status line."""
        self._session.app.invalidate()

    def _in_app(self, act: Callable[[], None]) -> None:
        """Run a function in the event loop of the prompt, if there is one."""
        loop = self._session.app.loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(act)

    def _flush_above(self) -> None:
        app = self._session.app
        if app.is_running:
            app.create_background_task(self._flush_over_prompt())

    async def _flush_over_prompt(self) -> None:
        """Print above the prompt; during run_in_terminal, keys would get the wrong bindings."""
        app = self._session.app
        await app.renderer.wait_for_cpr_responses()
        if app.is_running and not app.is_done:
            app.renderer.erase()
            self.flush()
            app.renderer.reset()
            app.renderer.request_absolute_cursor_position()
            app.invalidate()

    def flush(self) -> None:
        """Show announced lines that have not been shown yet."""
        while self._pending:
            self._say(self._pending.popleft())

    def _leave(self) -> None:
        app = self._session.app
        if app.is_running and not app.is_done and self._failure is not None:
            app.erase_when_done = not app.current_buffer.text
            app.exit(exception=self._failure)


def _key_bindings(say: Callable[[str], None]) -> KeyBindings:
    from prompt_toolkit.application import run_in_terminal
    from prompt_toolkit.filters import is_searching
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("<vt100-mouse-event>")
    def _(_event: KeyPressEvent) -> None:
        """Ignore mouse events: pasted colour codes can look like one and fail to parse."""

    @keys.add("c-g", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer

        def write() -> None:
            try:
                buffer.text = editor.edit(buffer.text)
                buffer.cursor_position = len(buffer.text)
            except EdgesppoError as error:
                say(f"error: {error}")
            except OSError as error:  # a full disk
                say(f"error: {error.strerror or error}")

        run_in_terminal(write)

    return keys
