"""A task in a background thread, with progress reports and cancellation."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgesppo.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

# How long `cancel` waits for the task to report the next time, in seconds.
_CANCEL_TIMEOUT_S = 2.0


class BackgroundTask:
    """Runs `work(report)` in a thread, which calls `report(stage, share)`, share from 0 to 1.

    In that thread, `on_progress` is called after each report, and `on_done` once at the end, with
    the exception that `work` raised, or None. `stage` and `share` hold the last report.
    """

    def __init__(
        self,
        work: Callable[[Callable[[str, float], None]], None],
        *,
        on_progress: Callable[[], None],
        on_done: Callable[[BaseException | None], None],
    ) -> None:
        self._work, self._on_progress, self._on_done = work, on_progress, on_done
        self._cancelled = False
        self._done = threading.Event()
        self._failure: BaseException | None = None
        self.stage, self.share = "", 0.0
        self._thread = threading.Thread(target=self._run, name="edgesppo-load", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether the task is over and `on_done` has returned."""
        return self._done.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the task, at most so many seconds; return whether it is done."""
        return self._done.wait(seconds)

    def result(self) -> None:
        """Wait for the task, and raise what it raised."""
        self._done.wait()
        if self._failure is not None:
            raise self._failure

    def cancel(self) -> bool:
        """Stop the task at its next report; return False if it does not report within 2 s."""
        self._cancelled = True
        return self._done.wait(_CANCEL_TIMEOUT_S)

    def _run(self) -> None:
        try:
            self._work(self._report)
        except BaseException as error:
            self._failure = error
        try:
            self._on_done(self._failure)
        finally:
            self._done.set()

    def _report(self, stage: str, share: float) -> None:
        if self._cancelled:
            raise Cancelled("the task was cancelled")
        self.stage, self.share = stage, share
        self._on_progress()
