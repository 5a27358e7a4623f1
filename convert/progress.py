"""Counts the bytes of a stage of a conversion for its progress reports."""

from __future__ import annotations

from collections.abc import Callable

from edgesppo.system.conversion_progress import Progress

Report = Callable[[Progress], None]


class StageProgress:
    """Adds up the bytes of a stage, and reports them after every block."""

    def __init__(self, stage: str, total: int, report: Report, done: int = 0) -> None:
        self._stage = stage
        self._done = done
        self._total = total
        self._report = report
        report(Progress("", done, total, stage))

    def __call__(self, tensor: str, size: int) -> None:
        """Count `size` more bytes of this tensor, and report."""
        self._done += size
        self._report(Progress(tensor, self._done, self._total, self._stage))
