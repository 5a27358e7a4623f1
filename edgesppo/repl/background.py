"""Owns work in a thread that reports how far it is and can be given up: loading a model.

Knows nothing of models.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from edgesppo.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
# What native code needs at most to notice that nobody wants the outcome any more.
_PATIENCE_S = 2.0


class BackgroundTask(Generic[T]):
    """`work(report)` in a thread; it calls `report(stage, share)` as often as it likes.

    `moved` is called, in that thread, when it got on, and `ended` when it is over, however it
    went: with what was raised, or None.
    """

    def __init__(
        self,
        work: Callable[[Callable[[str, float], None]], T],
        *,
        moved: Callable[[], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._work, self._moved, self._ended = work, moved, ended
        self._given_up = False
        self._done = threading.Event()
        self._value: T | None = None
        self._failure: BaseException | None = None
        self.stage, self.share = "", 0.0
        self._thread = threading.Thread(target=self._run, name="edgesppo-load", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether there is an outcome, and `ended` has heard of it."""
        return self._done.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the outcome, so long at most; whether there is one."""
        return self._done.wait(seconds)

    def result(self) -> T:
        """Wait for what the work gives; raises what it raised."""
        self._done.wait()
        if self._failure is not None:
            raise self._failure
        return self._value  # type: ignore[return-value]

    def give_up(self) -> bool:
        """End it at its next report, and wait for that, but not for ever; whether it has ended."""
        self._given_up = True
        return self._done.wait(_PATIENCE_S)

    def _run(self) -> None:
        try:
            self._value = self._work(self._report)
        except BaseException as error:
            self._failure = error
        try:
            self._ended(self._failure)
        finally:
            self._done.set()

    def _report(self, stage: str, share: float) -> None:
        if self._given_up:
            raise Cancelled("nobody waits for it any more")
        self.stage, self.share = stage, share
        self._moved()
