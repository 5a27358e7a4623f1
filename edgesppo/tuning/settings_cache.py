"""The settings that were measured on this machine, for each build of llama.cpp and kind of model.

HOME/tuning/HASH.json       the settings, and the rates measured with them

Settings that real answers contradict are doubted: they are measured again, once a day at most.
Those that were measured beside busy programs are used until the machine is quiet.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgesppo.llama import build_info
from edgesppo.planning.run_config import (
    LARGE_UBATCH,
    OFF,
    PREFILL_N_CTX,
    ROWS,
    SMALL_UBATCH,
    TURNS,
    RunConfig,
    default_config,
    is_small,
    one_context,
)
from edgesppo.system import hardware, load, notices
from edgesppo.system.fs import FileSystem, atomic_write, read_regular
from edgesppo.system.paths import cache_dir

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.gguf.gemma2 import Summary

_MAX_BYTES = 1 << 16


_MEASURED_AT, _DOUBTED, _DISTURBED, _VERSION = "measured_at", "doubted", "disturbed", "version"
# Of what a search tries: settings that an older one found are measured again.
_SEARCH = 2
_DAY_S = 24 * 3600.0
_STARTED_AT = time.time()  # of this process, or nearly


def cached_settings(summary: Summary, goal: str) -> RunConfig | None:
    """The best settings for a model if no measurement is needed, else None.

    `goal` is one of run_config.GOALS.
    """
    if goal == OFF or is_small(summary):
        return default_config(summary)
    return _read(_cache_path(summary, goal))


def _cache_path(summary: Summary, goal: str) -> Path:
    """The settings' file; models with the same tensor shapes and types share it."""
    model = [(tensor.name, tensor.type, tensor.dims) for tensor in summary.tensors]
    machine = [hardware.name(), hardware.thread_choices(), *build_info.library()[:2]]
    machine += build_info.compiler()
    digest = hashlib.sha256(json.dumps([machine, model, goal]).encode()).hexdigest()
    return cache_dir() / "tuning" / f"{digest[:32]}.json"


def _read(path: Path, *, may_expire: bool = True) -> RunConfig | None:
    """The cached settings; None if there are none, or the file is damaged.

    What this process has measured itself is good enough for it, whatever others did meanwhile.
    """
    try:
        found: dict[str, Any] = json.loads(read_regular(path, _MAX_BYTES))
        if found.pop(_VERSION, 1) != _SEARCH:
            return None
        measured_at, doubted = found.pop(_MEASURED_AT, 0.0), found.pop(_DOUBTED, False)
        if doubted and not 0 <= time.time() - measured_at < _DAY_S:
            return None
        disturbed = found.pop(_DISTURBED, False) and measured_at < _STARTED_AT
        if disturbed and may_expire and not load.is_busy():
            return None
        tuning = RunConfig(**found | {"row_costs": tuple(found["row_costs"])})
        return tuning if _is_valid(tuning) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _is_valid(tuning: RunConfig) -> bool:
    """Whether settings from a file can be used; it may hold anything."""
    threads = (tuning.n_threads, tuning.n_threads_batch)
    rates = (tuning.prefill_tps, tuning.decode_tps)
    costs = tuning.row_costs
    return (
        all(type(n) is int and 0 < n <= 1024 for n in threads)
        and all(type(rate) is float and 0 < rate < math.inf for rate in rates)
        and tuning.flash_attention in ("on", "off")
        and type(tuning.repack) is bool
        and tuning.n_ubatch in (SMALL_UBATCH, LARGE_UBATCH)
        and (tuning.plain_from is None or (_is_long(tuning.plain_from) and tuning.repack))
        and len(costs) == len(ROWS)
        and all(type(cost) in (int, float) and 1 <= cost < 1000 for cost in costs)
    )


def _is_long(n: Any) -> bool:
    return type(n) is int and 0 < n <= PREFILL_N_CTX


def store(summary: Summary, goal: str, tuning: RunConfig, *, disturbed: bool = False) -> None:
    """Cache the settings. If that fails, they are measured again next time, and a notice says so.

    `disturbed` says that other programs were busy meanwhile.
    """
    stamp = {_VERSION: _SEARCH, _MEASURED_AT: time.time(), _DISTURBED: disturbed}
    path = _cache_path(summary, goal)
    try:
        _write(path, {**asdict(tuning), **stamp})
    except OSError as error:
        notices.notify(
            f"the fastest settings cannot be kept in {path.parent} ({error.strerror or error}),"
            " so they are measured at every start; --tune off does without them"
        )


def doubt(summary: Summary, tuning: RunConfig) -> None:
    """Have settings measured again the next time, unless they were measured today."""
    for goal in TURNS:
        path = _cache_path(summary, goal)
        kept = _read(path, may_expire=False)
        # Where memory was short, one context is used in place of the two that were measured.
        if kept is not None and one_context(kept) == one_context(tuning):
            with contextlib.suppress(OSError, ValueError):
                found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                _write(path, {**found, _DOUBTED: True})


def _write(path: Path, found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.encode(), files=FileSystem())
