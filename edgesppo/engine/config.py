"""Owns the engine's settings: which make sense, and whether there is memory for them.

Knows nothing of requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.llama.context import FLASH_ATTENTION, ContextParams
from edgesppo.planning import memory_plan
from edgesppo.planning.run_config import CACHE_TYPES, DEFAULT_BATCH, MAX_DRAFT, ROWS, RunConfig
from edgesppo.system import hardware, memory_guard, validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgesppo.gguf.gemma2 import Summary

# Setting -> the least and the most that makes sense; n_ctx ends at what the model was trained for.
_LIMITS = {
    "n_ctx": (16, 2**31 - 1),
    "n_seqs": (1, 64),
    "n_batch": (1, 16_384),
    "n_ubatch": (1, 16_384),
    "n_threads": (1, 1024),
    "n_threads_batch": (1, 1024),
}
# Those that None leaves to be chosen.
_CHOSEN = ("n_ctx", "n_threads", "n_threads_batch")
_CHOICES: dict[str, Iterable[str]] = {"cache_type": CACHE_TYPES, "flash_attention": FLASH_ATTENTION}


def context_params(
    n_ctx_train: int,
    *,
    n_seqs: int,
    n_batch: int,
    draft_costs: Sequence[float] | None,
    **chosen: Any,
) -> ContextParams:
    """The shape of an engine's context; what is None is chosen here. Raises UsageError."""
    check(n_ctx_train, n_seqs=n_seqs, n_batch=n_batch, **chosen)
    _check_costs(draft_costs)
    chosen = {name: value for name, value in chosen.items() if value is not None}
    chosen.setdefault("n_ctx", n_ctx_train)
    chosen.setdefault("n_threads", hardware.cores())
    chosen.setdefault("n_threads_batch", chosen["n_threads"])
    n_ubatch = min(n_batch, chosen.pop("n_ubatch"))
    return ContextParams(
        n_seqs=n_seqs,
        n_outputs=n_seqs + (MAX_DRAFT if may_guess(n_ubatch, draft_costs) else 0),
        n_batch=n_batch,
        n_ubatch=n_ubatch,
        **chosen,
    )


def may_guess(n_ubatch: int, draft_costs: Sequence[float] | None) -> bool:
    """Whether guesses are made at all.

    Their rows must lie in one micro-batch: those that are wrong are taken back.
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
    """Raises UsageError, naming it, for a setting that makes no sense."""
    for name, value in settings.items():
        if value is None and name in _CHOSEN:
            continue
        if name in _CHOICES:
            validate.choice(name, value, _CHOICES[name])
            continue
        low, high = _LIMITS[name]
        validate.integer(name, value, low, n_ctx_train if name == "n_ctx" else high)
    if settings.get("n_batch", DEFAULT_BATCH) < settings.get("n_seqs", 1):
        raise validate.invalid_value("n_batch", settings["n_batch"], "at least as much as n_seqs")


def threads(params: ContextParams) -> int:
    """Bytes for the threads that a step may start: those that compute, and one to wait for them."""
    n_threads = max(params.n_threads, params.n_threads_batch) + 1
    return memory_guard.stack_bytes(n_threads) + memory_guard.COMPUTING_RESERVE


def ask_for_memory(summary: Summary, params: ContextParams) -> None:
    """Raises OutOfMemory where making the context, or its first steps, would end the process.

    llama.cpp reports a cache that it cannot have, but not what it allocates on the side.
    """
    tuning = RunConfig(
        params.n_threads,
        params.n_threads_batch,
        flash_attention=params.flash_attention,
        n_ubatch=params.n_ubatch,
    )
    needs = memory_plan.plan_memory(
        summary,
        tuning,
        n_ctx=params.n_ctx,
        n_seqs=params.n_seqs,
        n_batch=params.n_batch,
        cache_type=params.cache_type,
    )
    memory_guard.require(
        f"a context of {params.n_ctx:,} tokens",
        memory=needs.kv
        + needs.compute
        + needs.logits
        + threads(params)
        + memory_guard.LOADING_RESERVE,
        advice="use a smaller n_ctx (--n-ctx)",
    )
