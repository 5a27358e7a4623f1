"""Owns `edgesppo plan`: what a model will take here, said before anything is loaded."""

from __future__ import annotations

import sys
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.help_format import HeadedCommand
from edgesppo.cli.loading import converted
from edgesppo.cli.options import json_option, model_options
from edgesppo.cli.output import emit_json, tell
from edgesppo.gguf import gemma2
from edgesppo.planning.memory_plan import PROGRAM_BYTES
from edgesppo.store import locate
from edgesppo.system.units import megabytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.planning.memory_plan import MemoryPlan
    from edgesppo.planning.run_config import RunConfig
    from edgesppo.tuning.choose import LoadOptions


@click.command(name="plan", cls=HeadedCommand)
@click.argument("model")
@json_option
@model_options
def plan_command(model: str, as_json: bool, loading: dict[str, Any]) -> None:
    """Show what MODEL will take here: memory, threads, settings. Loads nothing.

    Exits with 1 where it does not fit into memory.
    """
    from edgesppo.tuning.choose import MEASURED, choose_settings, origin

    found = locate.find(model)
    summary = gemma2.load_summary(converted(found))
    wishes = replace(wishes_of(loading), force=True)
    tuning, made = choose_settings(summary, wishes, measure=False)
    whence = origin(summary, wishes, tuning)
    if as_json:
        figures = {**asdict(made), "program": PROGRAM_BYTES}
        figures |= {"total": made.total, "fits": made.fits}
        emit_json({**figures, "tuning": asdict(tuning), "measured": whence == MEASURED})
    else:
        tell(found.name)
        for label, line in _lines(tuning, made, wishes.draft):
            tell(f"  {label:<9} {line}")
        tell(f"  {'':<9} {_WHENCE[whence](tuning)}")
        tell(f"  {'fits':<9} {'yes' if made.fits else f'no: {made.advice()}'}")
    if not made.fits:
        sys.exit(1)


def wishes_of(loading: dict[str, Any]) -> LoadOptions:
    """What of the loading options says how to run a model."""
    from edgesppo.tuning.choose import LoadOptions

    kept = {field.name for field in fields(LoadOptions)}
    draft = loading["drafts"]
    summary = (
        None if isinstance(draft, bool) else gemma2.load_summary(converted(locate.find(draft)))
    )
    chosen = {name: value for name, value in loading.items() if name in kept}
    return LoadOptions(**chosen, draft=summary)


def _lines(tuning: RunConfig, made: MemoryPlan, draft: Summary | None) -> Iterator[tuple[str, str]]:
    yield "weights", _mb(made.weights)
    yield "KV cache", f"{_mb(made.kv)}, {made.n_ctx:,} tokens in {made.cache_type}"
    yield "compute", _mb(made.compute)
    yield "logits", _mb(made.logits)
    if draft is not None:
        yield "draft", f"{_mb(made.draft)}, all of {draft.path.name}"
    yield "program", f"{_mb(PROGRAM_BYTES)}, Python, llama.cpp and the vocabulary"
    free = "" if made.available is None else f", {megabytes(made.available, 0)} are free"
    yield "in all", f"{_mb(made.total)}{free}"
    yield "threads", f"{made.n_threads} for an answer, {made.n_threads_batch} for a prompt"
    repacked = "repacked" if tuning.repack else "as they are in the file"
    yield (
        "settings",
        (
            f"weights {repacked}, flash attention {tuning.flash_attention}, "
            f"micro-batch {tuning.n_ubatch}"
        ),
    )


def _rates(tuning: RunConfig) -> str:
    return (
        f"measured here: prefill {tuning.prefill_tps or 0:,.1f} t/s, "
        f"decode {tuning.decode_tps or 0:,.1f} t/s"
    )


# What is said of where the settings come from, by `settle.origin`.
_WHENCE: dict[str, Callable[[RunConfig], str]] = {
    "measured": _rates,
    "other threads": lambda _: "measured here with another number of threads",
    "not yet": lambda _: (
        "llama.cpp's own: nothing was measured here yet; the first run of this model\n"
        f"  {'':<9} finds what is fastest, which changes threads, settings and memory"
    ),
    "frugal": lambda _: "those that take the least memory: there is none for faster ones",
    "off": lambda _: "llama.cpp's own, not measured: --tune off",
    "gpu": lambda _: "llama.cpp's own, not measured: the GPU computes",
    "small": lambda _: "llama.cpp's own: a model as small as this is fast with any",
}


def _mb(size: int) -> str:
    return f"{megabytes(size):>12}"
