"""Tuning in a test measures less than for a user: what it finds is of no use there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.system import hardware
from edgesppo.tuning import autotune, measure, second_context

if TYPE_CHECKING:
    import pytest


def measure_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time prompts of 64 tokens at most, on one thread.

    Threads of a tiny model mostly wait for each other, and beside other tests for a processor.
    """
    lengths = tuple(min(length, 64) for length in measure.LENGTHS)
    for module in (measure, autotune, second_context):
        monkeypatch.setattr(module, "LENGTHS", lengths)
    monkeypatch.setattr(hardware, "thread_choices", lambda: [1])
    monkeypatch.setattr(hardware, "cores", lambda: 1)
