"""Owns what the terminal does with keys while nobody reads them.

Between two prompts they are kept for the next one, and not shown amid an answer. Enter stays
Enter, Ctrl-C is a signal all the same.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Keys:
    """The keyboard's settings; without a terminal, and on Windows, nothing happens.

    `raw` keeps Enter as the key that it is, for a prompt that reads keys and not lines.
    """

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._usual = _settings()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nothing that is typed is shown."""
        with self._set(_held(self._usual, raw=self._raw)):
            yield

    @contextlib.contextmanager
    def free(self) -> Iterator[None]:
        """Keys work as they did before us: for another program, or for reading a line."""
        with self._set(self._usual):
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


def _held(usual: list[Any] | None, *, raw: bool) -> list[Any] | None:
    if sys.platform == "win32" or usual is None:
        return None
    import termios

    found = [*usual]
    found[3] &= ~termios.ECHO
    if raw:
        found[0] &= ~termios.ICRNL
        found[3] &= ~termios.ICANON
    return found


def _apply(wanted: list[Any] | None) -> None:
    if sys.platform != "win32" and wanted is not None:
        import termios

        with contextlib.suppress(OSError, ValueError, AttributeError, termios.error):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, wanted)
