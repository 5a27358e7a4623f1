"""Choose how to run a model: what the user asked for, what is fastest, what fits into memory.

All of it is decided before the model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesppo.engine import config
from edgesppo.errors import OutOfMemory
from edgesppo.llama import build_info
from edgesppo.planning import memory_plan, run_config
from edgesppo.planning.run_config import DEFAULT_BATCH, DEFAULT_ROW_COSTS, ROWS
from edgesppo.system import validate
from edgesppo.system.hardware import available_memory
from edgesppo.tuning import settings_cache

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.planning.memory_plan import MemoryPlan
    from edgesppo.planning.run_config import RunConfig


# Where settings come from: measured; measured, without the second context for which there is not
# enough memory; measured with another number of threads than was asked for; not measured yet; the
# ones with the least memory; or never measured, because tuning is off, a GPU computes, or the model
# is small.
MEASURED, ONE_CONTEXT = "measured", "one context"
ORIGINS = (MEASURED, ONE_CONTEXT, "other threads", "not yet", "frugal", "off", "gpu", "small")

# How many times as many tokens per second more sequences have to give.
_WORTHWHILE = 1.15


@dataclass(frozen=True)
class LoadOptions:
    """The user's options for running a model, as in `edgesppo.load`."""

    n_ctx: int | None = None
    n_threads: int | None = None
    n_seqs: int = 1
    gpu: str | int = "auto"
    cache_type: str = "f16"
    tune: str = "turn"
    force: bool = False
    draft: Summary | None = None  # of a draft model


def choose_settings(
    summary: Summary,
    options: LoadOptions,
    on_tune: Callable[[float], None] | None = None,
    *,
    measure: bool = True,
) -> tuple[RunConfig, MemoryPlan]:
    """How to run a model, and the memory that it takes.

    Settings that were not measured on this machine are measured now, unless `measure` is false;
    `on_tune` is called with the fraction of that which is done. If the fastest settings do not fit
    into memory, they are returned without a second context, or else those that need the least.
    Raises UsageError, and OutOfMemory, whose message has the plan, if not even these fit and
    `force` is off.
    """
    _check(summary, options)
    frugal = _with_threads(run_config.low_memory_config(summary), options)
    least = _plan(summary, frugal, options)
    if not least.fits:
        if options.force:
            return frugal, least
        raise OutOfMemory(f"{summary.path} {least.explain()}; force=True (--force) loads it anyway")
    found = _find(summary, options, on_tune, measure=measure)
    tuning = _with_threads(found, options)
    plan = _plan(summary, tuning, options)
    if not plan.fits and tuning.plain_from is not None:
        tuning = run_config.one_context(tuning)
        plan = _plan(summary, tuning, options)
    return (tuning, plan) if plan.fits else (frugal, least)


def choose_sequences(summary: Summary, options: LoadOptions) -> int:
    """How many answers are worth computing at the same time: more, while that is much faster.

    That is what the batches' costs were measured to be, within what memory allows.
    """
    tuning, _ = choose_settings(summary, replace(options, force=True))
    best, rate = 1, 1.0
    for rows, cost in zip(ROWS[1:], tuning.row_costs[1:], strict=True):
        fits = _plan(summary, tuning, replace(options, n_seqs=rows)).fits
        if not fits or rows / cost < _WORTHWHILE * rate:
            break
        best, rate = rows, rows / cost
    return best


def origin(summary: Summary, options: LoadOptions, tuning: RunConfig) -> str:
    """Where the settings that `choose_settings` returned come from: one of ORIGINS."""
    if tuning.prefill_tps is not None:
        return MEASURED
    found = _with_threads(_find(summary, options, None, measure=False), options)
    if tuning != found:
        return ONE_CONTEXT if tuning == run_config.one_context(found) else "frugal"
    if _gpu_layers(options):
        return "gpu"
    if run_config.is_small(summary):
        return "small"
    if options.tune == run_config.OFF:
        return "off"
    known = settings_cache.cached_settings(summary, _goal(summary, options))
    return "not yet" if known is None else "other threads"


def _check(summary: Summary, options: LoadOptions) -> None:
    """Raise UsageError for invalid options, before anything is measured or loaded."""
    run_config.check_goal(options.tune)
    validate.boolean("force", options.force)
    _gpu_layers(options)
    config.check(
        memory_plan.trained_context(summary),
        n_ctx=options.n_ctx,
        n_threads=options.n_threads,
        n_seqs=options.n_seqs,
        cache_type=options.cache_type,
    )


def _find(
    summary: Summary,
    options: LoadOptions,
    on_tune: Callable[[float], None] | None,
    *,
    measure: bool,
) -> RunConfig:
    """The fastest settings, whatever the number of threads asked for."""
    if _gpu_layers(options):
        return run_config.default_config()  # the GPU computes
    goal = _goal(summary, options)
    found = settings_cache.cached_settings(summary, goal)
    if found is None:
        if not measure:
            return run_config.default_config()
        from edgesppo.tuning.autotune import find_settings  # loads llama.cpp

        found = find_settings(summary, goal, on_tune)
    return found


def _gpu_layers(options: LoadOptions) -> int:
    """How many layers are offloaded; -1 means all. Raises UsageError for an invalid `gpu`."""
    _, _, can_offload = build_info.library()
    return run_config.gpu_layers(options.gpu, can_offload=can_offload)


def _goal(summary: Summary, options: LoadOptions) -> str:
    """The goal to tune for: least memory if there is none for trying repacked weights."""
    return options.tune if options.tune == run_config.OFF or _fits_twice(summary) else "memory"


def _with_threads(tuning: RunConfig, options: LoadOptions) -> RunConfig:
    """The settings with the number of threads that was asked for, if any."""
    n = options.n_threads
    if n is None or (n, n) == (tuning.n_threads, tuning.n_threads_batch):
        return tuning
    # The rates and costs were measured with another number of threads.
    return replace(
        tuning,
        n_threads=n,
        n_threads_batch=n,
        prefill_tps=None,
        decode_tps=None,
        row_costs=DEFAULT_ROW_COSTS,
    )


def _fits_twice(summary: Summary) -> bool:
    """Whether there is memory for a second copy of the weights, which repacking may need."""
    free = available_memory()
    return free is None or 2 * summary.data_bytes + memory_plan.PROGRAM_BYTES < free


def _plan(summary: Summary, tuning: RunConfig, options: LoadOptions) -> MemoryPlan:
    """The memory of the model and of the draft model, if there is one."""
    n_ctx = options.n_ctx or memory_plan.trained_context(summary)
    gpu_layers = _gpu_layers(options)
    plan = memory_plan.plan_memory(
        summary,
        tuning,
        n_ctx=n_ctx,
        n_seqs=options.n_seqs,
        n_batch=DEFAULT_BATCH,
        cache_type=options.cache_type,
        gpu_layers=gpu_layers,
    )
    if options.draft is None:
        return plan
    draft = memory_plan.plan_draft_memory(options.draft, tuning, n_ctx, gpu_layers)
    return replace(plan, draft=draft.total - memory_plan.PROGRAM_BYTES)
