"""Check the engine's settings, fill in defaults, and check that there is memory for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.planning import memory_plan
from edgesppo.planning.run_config import (
    CACHE_TYPES,
    DEFAULT_BATCH,
    FLASH_ATTENTION,
    MAX_DRAFT,
    MOST_SEQS,
    ROWS,
    ContextParams,
    RunConfig,
)
from edgesppo.system import memory_guard, validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgesppo.gguf.gemma2 import Summary

# Setting -> its least and greatest value; n_ctx is also limited by what the model was trained for.
_LIMITS = {
    "n_ctx": (16, 2**31 - 1),
    "n_seqs": (1, MOST_SEQS),
    "n_batch": (1, 16_384),
    "n_ubatch": (1, 16_384),
    "n_threads": (1, 1024),
    "n_threads_batch": (1, 1024),
    "plain_from": (1, 2**31 - 1),
}
# Settings that may be None, which means the default.
_OPTIONAL = ("n_ctx", "n_threads", "n_threads_batch", "plain_from")
_CHOICES: dict[str, Iterable[str]] = {"cache_type": CACHE_TYPES, "flash_attention": FLASH_ATTENTION}


def context_params(
    n_ctx_train: int,
    default_threads: int,
    *,
    n_seqs: int,
    n_batch: int,
    draft_costs: Sequence[float] | None,
    **settings: Any,
) -> ContextParams:
    """The settings of an engine's context, with defaults in place of None. Raises UsageError."""
    check(n_ctx_train, n_seqs=n_seqs, n_batch=n_batch, **settings)
    _check_costs(draft_costs)
    settings = {name: value for name, value in settings.items() if value is not None}
    settings.setdefault("n_ctx", n_ctx_train)
    settings.setdefault("n_threads", default_threads)
    settings.setdefault("n_threads_batch", settings["n_threads"])
    n_ubatch = min(n_batch, settings.pop("n_ubatch"))
    return ContextParams(
        n_seqs=n_seqs,
        n_outputs=n_seqs + (MAX_DRAFT if drafts_enabled(n_ubatch, draft_costs) else 0),
        n_batch=n_batch,
        n_ubatch=n_ubatch,
        **settings,
    )


def drafts_enabled(n_ubatch: int, draft_costs: Sequence[float] | None) -> bool:
    """Whether tokens are drafted at all.

    A draft's rows must fit into one micro-batch, because the rejected ones are removed again.
    """
    return bool(draft_costs) and n_ubatch > MAX_DRAFT


def _check_costs(costs: Any) -> None:
    if costs is None:
        return
    if not isinstance(costs, list | tuple) or len(costs) not in (0, len(ROWS)):
        raise validate.invalid_value("draft_costs", costs, f"{len(ROWS)} numbers")
    for cost in costs:
        validate.number("draft_costs", cost, 1, 1e6)


def check(n_ctx_train: int, **settings: Any) -> None:
    """Raise UsageError for a setting that is out of range, with its name."""
    for name, value in settings.items():
        if value is None and name in _OPTIONAL:
            continue
        if name in _CHOICES:
            validate.choice(name, value, _CHOICES[name])
            continue
        low, high = _LIMITS[name]
        validate.integer(name, value, low, n_ctx_train if name == "n_ctx" else high)
    if settings.get("n_batch", DEFAULT_BATCH) < settings.get("n_seqs", 1):
        raise validate.invalid_value("n_batch", settings["n_batch"], "at least as much as n_seqs")


def threads_started(params: ContextParams) -> int:
    """How many threads a step may start: to compute, and one to wait."""
    return max(params.n_threads, params.n_threads_batch) + 1


def run_config(params: ContextParams) -> RunConfig:
    """The settings of a context as those of a model."""
    return RunConfig(
        params.n_threads,
        params.n_threads_batch,
        flash_attention=params.flash_attention,
        n_ubatch=params.n_ubatch,
        plain_from=None,
    )


def require_memory(summary: Summary, params: ContextParams, gpu_layers: int = 0) -> None:
    """Raise OutOfMemory if creating the context, or its first steps, would end the process.

    llama.cpp reports it when it cannot allocate the cache, but not for its smaller allocations.
    `gpu_layers` have their cache in the GPU's memory; -1 means all.
    """
    needs = memory_plan.plan_memory(
        summary,
        run_config(params),
        n_ctx=params.n_ctx,
        n_seqs=params.n_seqs,
        n_batch=params.n_batch,
        cache_type=params.cache_type,
        n_outputs=params.n_outputs,
        gpu_layers=gpu_layers,
    )
    memory_guard.require(
        f"a context of {params.n_ctx:,} tokens",
        memory=needs.kv
        + needs.compute
        + needs.logits
        + memory_guard.thread_bytes(threads_started(params))
        + memory_guard.LOADING_RESERVE,
        advice="use a smaller n_ctx (--n-ctx)",
    )
