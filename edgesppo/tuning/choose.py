"""Owns how a file will be run here: what was asked for, what is fastest, what memory allows.

Joins the tuning with the plan, before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesppo.engine import config, draft_model
from edgesppo.errors import OutOfMemory
from edgesppo.llama.model import gpu_layers
from edgesppo.planning import memory_plan, run_config
from edgesppo.planning.run_config import DEFAULT_BATCH, USUAL_COSTS
from edgesppo.system import validate
from edgesppo.system.hardware import available_memory
from edgesppo.tuning import autotune

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.planning.memory_plan import MemoryPlan
    from edgesppo.planning.run_config import RunConfig


# Where settings come from: measured here, measured with other threads than those asked for, not
# measured yet, the least memory, or never measured: as asked for, on a GPU, for a small model.
MEASURED = "measured"
ORIGINS = (MEASURED, "other threads", "not yet", "frugal", "off", "gpu", "small")


@dataclass(frozen=True)
class LoadOptions:
    """What a user asked for."""

    n_ctx: int | None = None
    n_threads: int | None = None
    n_seqs: int = 1
    gpu: str | int = "auto"
    cache_type: str = "f16"
    tune: str = "turn"
    force: bool = False
    draft: Summary | None = None  # of a smaller model that guesses


def choose_settings(
    summary: Summary,
    wishes: LoadOptions,
    on_tune: Callable[[float], None] | None = None,
    *,
    measure: bool = True,
) -> tuple[RunConfig, MemoryPlan]:
    """How to run a file, and what that takes. Raises OutOfMemory, with the plan, UsageError.

    What was not measured here before is measured now, unless `measure` is false. Settings that
    need more memory than there is give way to those that need the least.
    """
    _check(summary, wishes)
    frugal = _with_threads(run_config.frugal(), wishes)
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


def origin(summary: Summary, wishes: LoadOptions, tuning: RunConfig) -> str:
    """Where settings come from that `settle` gave: one of ORIGINS."""
    if tuning.prefill_tps is not None:
        return MEASURED
    if tuning != _with_threads(_find(summary, wishes, None, measure=False), wishes):
        return "frugal"
    if gpu_layers(wishes.gpu):
        return "gpu"
    if wishes.tune == run_config.OFF:
        return "off"
    known = autotune.remembered(summary, _goal(summary, wishes))
    if known is None:
        return "not yet"
    return "small" if known.prefill_tps is None else "other threads"


def _check(summary: Summary, wishes: LoadOptions) -> None:
    """Refuse what makes no sense before anything is measured or loaded."""
    run_config.check_goal(wishes.tune)
    validate.switch("force", wishes.force)
    gpu_layers(wishes.gpu)
    config.check(
        memory_plan.trained(summary),
        n_ctx=wishes.n_ctx,
        n_threads=wishes.n_threads,
        n_seqs=wishes.n_seqs,
        cache_type=wishes.cache_type,
    )


def _find(
    summary: Summary,
    wishes: LoadOptions,
    on_tune: Callable[[float], None] | None,
    *,
    measure: bool,
) -> RunConfig:
    if gpu_layers(wishes.gpu):
        return run_config.untuned()  # the device computes
    goal = _goal(summary, wishes)
    found = autotune.remembered(summary, goal)
    if found is None:
        found = autotune.measured(summary, goal, on_tune) if measure else run_config.untuned()
    return found


def _goal(summary: Summary, wishes: LoadOptions) -> str:
    """What is measured: where there is no memory to try what is fastest, what takes the least."""
    return wishes.tune if wishes.tune == run_config.OFF or _fits_twice(summary) else "memory"


def _with_threads(tuning: RunConfig, wishes: LoadOptions) -> RunConfig:
    n = wishes.n_threads
    if n is None or (n, n) == (tuning.n_threads, tuning.n_threads_batch):
        return tuning
    # What batches cost and how fast they are was measured with other threads.
    return replace(
        tuning,
        n_threads=n,
        n_threads_batch=n,
        prefill_tps=None,
        decode_tps=None,
        row_costs=USUAL_COSTS,
    )


def _fits_twice(summary: Summary) -> bool:
    """Whether there is memory for a second copy of the weights, as repacking may need it."""
    free = available_memory()
    return free is None or 2 * summary.data_bytes + memory_plan.PROGRAM_BYTES < free


def _plan(summary: Summary, tuning: RunConfig, wishes: LoadOptions) -> MemoryPlan:
    n_ctx = wishes.n_ctx or memory_plan.trained(summary)
    made = memory_plan.plan_memory(
        summary,
        tuning,
        n_ctx=n_ctx,
        n_seqs=wishes.n_seqs,
        n_batch=DEFAULT_BATCH,
        cache_type=wishes.cache_type,
    )
    if wishes.draft is None:
        return made
    second = draft_model.plan_memory(wishes.draft, tuning, n_ctx)
    return replace(made, draft=second.total - memory_plan.PROGRAM_BYTES)
