"""Owns file operations that fail on purpose: each one, the N-th one, or in their own way."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

from edgesppo.files import Files

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATIONS = tuple(name for name in vars(Files) if not name.startswith("_"))


class Counting(Files):
    """The operations with a word said before each; `done` names those that came.

    They are the real ones, but for waiting on the disk: no test here cuts the power.
    """

    def __init__(self, before: Callable[[int, str], None] | None = None) -> None:
        self.done: list[str] = []
        self._before = before or (lambda *_: None)
        self._one_at_a_time = threading.Lock()


def _counted(name: str) -> Callable[..., Any]:
    real = getattr(Files, name) if name not in ("sync", "sync_folder") else lambda *_: None

    def operation(self: Counting, *args: Any) -> Any:
        with self._one_at_a_time:
            self.done.append(name)
            number = len(self.done)
        if name == "close":
            real(self, *args)  # a failing close closes all the same
            return self._before(number, name)
        self._before(number, name)
        return real(self, *args)

    return operation


for _name in OPERATIONS:
    setattr(Counting, _name, _counted(_name))


class Faulty(Counting):
    """The `fail_at`-th operation fails; by default as a broken disk does."""

    def __init__(self, fail_at: int, error: BaseException | int = errno.EIO) -> None:
        super().__init__(self._fail)
        self._fail_at = fail_at
        self._error = OSError(error, os.strerror(error)) if isinstance(error, int) else error

    def _fail(self, number: int, _name: str) -> None:
        if number == self._fail_at:
            raise self._error


class Short(Files):
    """Writes and reads at most 1,000 bytes at a time, as a system may."""

    def write(self, descriptor: int, data: Any, offset: int) -> int:
        return super().write(descriptor, data[:1000], offset)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        return super().read(descriptor, min(length, 1000), offset)
