"""Tuning in a test measures less than for a user: what it finds is of no use there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.gguf import gemma2
from edgesppo.planning import run_config
from edgesppo.planning.run_config import RunConfig
from edgesppo.system import hardware
from edgesppo.tuning import autotune, measure, second_context, settings_cache

if TYPE_CHECKING:
    from pathlib import Path

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


def remember_two_contexts(monkeypatch: pytest.MonkeyPatch, path: Path, goal: str) -> RunConfig:
    """As if tuning for a goal had found two contexts to be the fastest; returns the settings."""
    monkeypatch.setattr(run_config, "_WORTH_TUNING", 0)
    both = RunConfig(1, 1, True, "on", 512, 100.0, 10.0, plain_from=64)
    settings_cache.store(gemma2.load_summary(path), goal, both)
    return both
