"""Owns what a conversion tells of itself while it runs. Knows nothing of how it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

CHECKING = "checking"  # what an interrupted run has left
CONVERTING = "converting"
READING = "reading back"


@dataclass(frozen=True)
class Progress:
    """How far a stage of a conversion is, told when it begins and after every chunk.

    The stages come in this order, each counting from its own start: "checking", where there is
    something to go on from; "converting", which begins with what was there; "reading back".
    """

    tensor: str  # the one that has grown; empty where a stage begins
    done_bytes: int
    total_bytes: int
    stage: str = CONVERTING


Report = Callable[[Progress], None]
