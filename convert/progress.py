"""Progress reports of a conversion, and the names of its stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

CHECKING = "checking"  # hashing what an interrupted run has left
CONVERTING = "converting"
READING = "reading back"


@dataclass(frozen=True)
class Progress:
    """How far a stage of a conversion is; reported when it begins and after every chunk.

    The stages are, in this order: "checking", if an interrupted run is resumed; "converting", whose
    `done_bytes` begin with what that run had done; "reading back". Each counts its own bytes.
    """

    tensor: str  # its name; empty when a stage begins
    done_bytes: int
    total_bytes: int
    stage: str = CONVERTING


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
