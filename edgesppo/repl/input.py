"""Owns reading a message from the person: with an editor's comforts, or as plain lines.

A message may have several lines: Alt-Enter or Ctrl-J begins a new one, a paste keeps its own, and
what stands between two triple quotes is one message. Knows nothing of what is done with it.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from edgesppo.errors import EdgesppoError
from edgesppo.repl import history
from edgesppo.terminal import editor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prompt_toolkit.completion import Completer
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT, MORE = ">>> ", "... "
QUOTES = '"""'


class Reader(Protocol):
    """Where messages come from. EOFError and KeyboardInterrupt are the person's."""

    def read(self, draft: str = "") -> str:
        """The next message; `draft` is what it begins with."""

    def announce(self, lines: Iterable[str]) -> None:
        """Say something from another thread, also while a message is being typed."""

    def tell(self) -> None:
        """Say now what was announced and not said yet."""

    def fail(self, error: BaseException) -> None:
        """Let `read`, under way or the next, raise this; from any thread."""

    def refresh(self) -> None:
        """The status may have changed; from any thread."""


def is_open(text: str) -> bool:
    """Whether a block between triple quotes has begun and not ended."""
    return text.lstrip().startswith(QUOTES) and _rest(text) is None


def unquoted(text: str) -> str:
    """The message without its triple quotes; as it is, where more follows behind them."""
    inner = text.strip()
    if not inner.startswith(QUOTES) or _rest(inner):
        return text
    return inner.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")


def _rest(text: str) -> str | None:
    """What follows a block, which ends with the first line that ends in triple quotes, if it does.

    A pasted program may begin with a docstring.
    """
    lines = text.strip().removeprefix(QUOTES).split("\n")
    ends = (n for n, line in enumerate(lines) if line.rstrip().endswith(QUOTES))
    end = next(ends, None)
    return None if end is None else "\n".join(lines[end + 1 :])


class PlainReader:
    """Lines as the terminal, or readline, reads them: nothing is ever drawn again."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._failure: BaseException | None = None
        self._history = history.history()
        with suppress(ImportError):
            import readline  # input() edits lines with it once it is there

            for line in reversed([*self._history.load_history_strings()]):
                if "\n" not in line:
                    with suppress(ValueError):  # a NUL, or what the encoding does not have
                        readline.add_history(line)

    def read(self, draft: str = "") -> str:
        """The next message. What a draft would hold is said instead."""
        if self._failure is not None:
            raise self._failure
        if draft:
            self._say(f"(not sent: {draft})")
        try:
            text = input(PROMPT)
            while is_open(text):
                text += "\n" + input(MORE)
        except (EOFError, KeyboardInterrupt, SystemExit):
            self._say("")  # what is said next begins a line
            raise
        if text.strip():
            self._history.store_string(text)
        return unquoted(text)

    def announce(self, lines: Iterable[str]) -> None:
        """Say it."""
        for line in lines:
            self._say(line)

    def tell(self) -> None:
        """It was said at once."""

    def fail(self, error: BaseException) -> None:
        """Raise it at the next `read`."""
        self._failure = error

    def refresh(self) -> None:
        """Nothing to draw."""


class RichReader:
    """Editing, history, completion, and a status line under the message."""

    def __init__(
        self, say: Callable[[str], None], status: Callable[[], str], completer: Completer
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.application import get_app
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.styles import Style

        self._say = say
        self._news: deque[str] = deque()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        in_command = Condition(lambda: get_app().current_buffer.text.startswith("/"))
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            history=history.history(),
            completer=completer,
            complete_while_typing=in_command,
            complete_in_thread=False,
            bottom_toolbar=status,
            prompt_continuation=MORE,
            key_bindings=_keys(say),
            enable_suspend=True,
            # No colours but the terminal's own, so that all is readable on light and on dark.
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

    def read(self, draft: str = "") -> str:
        """The next message."""
        self.tell()
        if self._failure is not None:
            raise self._failure
        text = self._session.prompt([("class:prompt", PROMPT)], default=draft)
        return unquoted(text)

    def announce(self, lines: Iterable[str]) -> None:
        """Say it above the message."""
        self._news.extend(lines)
        self._in_app(self._tell_above)

    def fail(self, error: BaseException) -> None:
        """Leave the message for it."""
        self._failure = error
        self._in_app(self._leave)

    def refresh(self) -> None:
        """Draw the status anew."""
        self._session.app.invalidate()

    def _in_app(self, act: Callable[[], None]) -> None:
        """Have it done where the message is being typed; elsewhere the next `read` does it."""
        loop = self._session.app.loop
        if loop is not None:
            with suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(act)

    def _tell_above(self) -> None:
        app = self._session.app
        if app.is_running:
            app.create_background_task(self._tell_over_prompt())

    async def _tell_over_prompt(self) -> None:
        """Not by run_in_terminal: keys typed just then would be read by the wrong rules."""
        app = self._session.app
        await app.renderer.wait_for_cpr_responses()
        if app.is_running and not app.is_done:
            app.renderer.erase()
            self.tell()
            app.renderer.reset()
            app.renderer.request_absolute_cursor_position()
            app.invalidate()

    def tell(self) -> None:
        """Say now what was announced and not said yet."""
        while self._news:
            self._say(self._news.popleft())

    def _leave(self) -> None:
        app = self._session.app
        if app.is_running and not app.is_done and self._failure is not None:
            app.erase_when_done = not app.current_buffer.text
            app.exit(exception=self._failure)


def _keys(say: Callable[[str], None]) -> KeyBindings:
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
        """No mouse is asked for: pasted colours look like one, and are read as numbers of it."""

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
