"""Owns how a file will be run here: what was asked for, what is fastest, what memory allows.

Joins the tuning with the plan, before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesppo import checks, plan, settings, tune
from edgesppo.errors import OutOfMemory
from edgesppo.machine import available_memory
from edgesppo.model import gpu_layers
from edgesppo.settings import DEFAULT_BATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.plan import Plan
    from edgesppo.preflight import Summary
    from edgesppo.tune import Tuning


@dataclass(frozen=True)
class Wishes:
    """What a user asked for."""

    n_ctx: int | None = None
    n_threads: int | None = None
    n_seqs: int = 1
    gpu: str | int = "auto"
    cache_type: str = "f16"
    tune: str = "turn"
    force: bool = False


def settle(
    summary: Summary,
    wishes: Wishes,
    on_tune: Callable[[float], None] | None = None,
    *,
    measure: bool = True,
) -> tuple[Tuning, Plan]:
    """How to run a file, and what that takes. Raises OutOfMemory, with the plan, UsageError.

    What was not measured here before is measured now, unless `measure` is false. Settings that
    need more memory than there is give way to those that need the least.
    """
    _check(summary, wishes)
    frugal = _with_threads(tune.frugal(), wishes)
    least = _plan(summary, frugal, wishes)
    if not least.fits:
        if wishes.force:
            return frugal, least
        raise OutOfMemory(
            f"{summary.path} {least.explain()}; force=True (--force) loads it all the same"
        )
    found = _find(summary, wishes, on_tune, measure=measure)
    tuning = _with_threads(found, wishes)
    made = _plan(summary, tuning, wishes)
    return (tuning, made) if made.fits else (frugal, least)


def _check(summary: Summary, wishes: Wishes) -> None:
    """Refuse what makes no sense before anything is measured or loaded."""
    tune.check_goal(wishes.tune)
    checks.switch("force", wishes.force)
    gpu_layers(wishes.gpu)
    settings.check(
        _trained(summary),
        n_ctx=wishes.n_ctx,
        n_threads=wishes.n_threads,
        n_seqs=wishes.n_seqs,
        cache_type=wishes.cache_type,
    )


def _trained(summary: Summary) -> int:
    """The context that the file was trained for; a file without it is llama.cpp's to refuse."""
    value = summary.keys.get("gemma2.context_length")
    return value if isinstance(value, int) else plan.CELL_PADDING


def _find(
    summary: Summary,
    wishes: Wishes,
    on_tune: Callable[[float], None] | None,
    *,
    measure: bool,
) -> Tuning:
    if gpu_layers(wishes.gpu):
        return tune.untuned()  # the device computes
    goal = wishes.tune if wishes.tune == tune.OFF or _fits_twice(summary) else "memory"
    found = tune.remembered(summary, goal)
    if found is None:
        found = tune.measured(summary, goal, on_tune) if measure else tune.untuned()
    return found


def _with_threads(tuning: Tuning, wishes: Wishes) -> Tuning:
    n = wishes.n_threads
    return tuning if n is None else replace(tuning, n_threads=n, n_threads_batch=n)


def _fits_twice(summary: Summary) -> bool:
    """Whether there is memory for a second copy of the weights, as repacking may need it."""
    free = available_memory()
    return free is None or 2 * summary.data_bytes + plan.PROGRAM_BYTES < free


def _plan(summary: Summary, tuning: Tuning, wishes: Wishes) -> Plan:
    return plan.plan(
        summary,
        tuning,
        n_ctx=wishes.n_ctx or _trained(summary),
        n_seqs=wishes.n_seqs,
        n_batch=DEFAULT_BATCH,
        cache_type=wishes.cache_type,
    )
