"""Keyboard settings (termios) between two prompts: keys are buffered and not echoed.

So what is typed during an answer does not appear in it, and reaches the next prompt. Ctrl-C still
raises a signal.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_TYPED = 1 << 16  # bytes; terminals keep fewer


class Keyboard:
    """The keyboard of standard input; does nothing without a terminal or on Windows.

    `raw` also turns off line editing and the translation of Enter to a newline while keys are
    held, for a prompt that reads single keys.
    """

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._original = _settings()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Buffer keys without echo in the block."""
        with self._set(_without_echo(self._original, raw=self._raw)):
            yield

    def typed_before(self) -> str:
        """What was typed before keys were held for the first time, with Enter as a raw key.

        The terminal has made a newline of each Enter, which it does not do any more.
        """
        if sys.platform == "win32" or self._original is None:
            return ""
        import select

        ready, _, _ = select.select([sys.stdin.fileno()], [], [], 0)
        data = os.read(sys.stdin.fileno(), _MOST_TYPED) if ready else b""
        return data.decode("utf-8", "surrogateescape").replace("\n", "\r")

    @contextlib.contextmanager
    def release(self) -> Iterator[None]:
        """Restore the original settings in the block: for another program, or to read a line."""
        with self._set(self._original):
            yield

    @contextlib.contextmanager
    def _set(self, wanted: list[Any] | None) -> Iterator[None]:
        before = _settings()
        _apply(wanted)
        try:
            yield
        finally:
            _apply(before)


def _settings() -> list[Any] | None:
    if sys.platform != "win32":
        import termios

        with contextlib.suppress(OSError, ValueError, AttributeError, termios.error):
            return termios.tcgetattr(sys.stdin.fileno())
    return None


def _without_echo(original: list[Any] | None, *, raw: bool) -> list[Any] | None:
    if sys.platform == "win32" or original is None:
        return None
    import termios

    settings = [*original]
    settings[3] &= ~termios.ECHO
    if raw:
        settings[0] &= ~termios.ICRNL
        settings[3] &= ~termios.ICANON
    return settings


def _apply(wanted: list[Any] | None) -> None:
    if sys.platform != "win32" and wanted is not None:
        import termios

        with contextlib.suppress(OSError, ValueError, AttributeError, termios.error):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, wanted)
