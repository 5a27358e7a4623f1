"""`edgesppo plan`: the memory and settings that a model will use, without loading it."""

from __future__ import annotations

import sys
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cards.published import how_to_get
from edgesppo.cli.completion import complete_models
from edgesppo.cli.help_format import HeadedCommand
from edgesppo.cli.loading import gguf_path
from edgesppo.cli.options import json_option, model_options
from edgesppo.cli.output import emit_json, tell
from edgesppo.gguf import gemma2
from edgesppo.planning.memory_plan import PROGRAM_BYTES
from edgesppo.store import locate
from edgesppo.store.expected import absent_entry, expected_disk, expected_summary
from edgesppo.system import hardware, load
from edgesppo.system.units import megabytes, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.planning.memory_plan import MemoryPlan
    from edgesppo.planning.run_config import RunConfig
    from edgesppo.tuning.choose import LoadOptions

_READ = 256 << 20  # bytes to measure the speed of the memory with


@click.command(name="plan", cls=HeadedCommand)
@click.argument("model", shell_complete=complete_models)
@json_option
@model_options
def plan_command(model: str, as_json: bool, loading: dict[str, Any]) -> None:
    """Show the memory, threads and settings that MODEL will use here, without loading it.

    Of a model that is not on this machine, also what it takes to get it, and roughly how fast it
    will answer, from the speed of the memory, which is measured. The exit code is 1 if it does not
    fit into memory.
    """
    from edgesppo.tuning.choose import MEASURED, choose_settings, origin

    entry = absent_entry(model)
    name = locate.find(model).name if entry is None else entry.name
    summary = _summary(model)
    options = replace(load_options(loading), force=True)
    tuning, plan = choose_settings(summary, options, measure=False)
    settings_origin = origin(summary, options, tuning)
    outlook = None if entry is None else _outlook(entry, summary, tuning)
    if as_json:
        figures = {**asdict(plan), "program": PROGRAM_BYTES, "here": entry is None}
        figures |= {"total": plan.total, "fits": plan.fits, **({} if outlook is None else outlook)}
        emit_json({**figures, "tuning": asdict(tuning), "measured": settings_origin == MEASURED})
    else:
        tell(name)
        for label, line in _lines(tuning, plan, options.draft):
            tell(f"  {label:<9} {line}")
        tell(f"  {'':<9} {_ORIGINS[settings_origin](tuning)}")
        for label, line in [] if outlook is None else _outlook_lines(outlook):
            tell(f"  {label:<9} {line}")
        tell(f"  {'fits':<9} {'yes' if plan.fits else f'no: {plan.advice()}'}")
    if not plan.fits:
        sys.exit(1)


def _summary(model: str) -> Summary:
    """The header of MODEL's file, or what it will be where the model is not on this machine."""
    entry = absent_entry(model)
    if entry is not None:
        return expected_summary(entry)
    return gemma2.load_summary(gguf_path(locate.find(model)))


def _outlook(entry: PinnedModel, summary: Summary, tuning: RunConfig) -> dict[str, Any]:
    """What getting a model takes, and the rates of answers that this machine's memory allows."""
    from edgesppo.tuning.bandwidth import bandwidth

    disk = expected_disk(entry, summary)
    watch = load.LoadWatch()
    speed = bandwidth(hardware.cores(), _READ)
    watch.stop()
    return {
        "get": how_to_get(entry),
        "download": disk.download,
        "file": disk.file,
        "disk": disk.most,
        "disk_free": disk.free,
        "bandwidth": speed,
        "others": load.most(watch.before, watch.during),
        "decode_tps_at_most": speed / summary.data_bytes,
        "decode_tps": tuning.decode_tps,
    }


def _outlook_lines(outlook: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "here", f"no; to get it: {outlook['get']}"
    yield "download", f"about {size(outlook['download'])}"
    free = outlook["disk_free"]
    room = "" if free is None else f"; {size(free)} are free"
    if free is not None and free < outlook["disk"]:
        room += ", which is too little"
    yield (
        "disk",
        f"about {size(outlook['file'])}, up to {size(outlook['disk'])} while it is fetched{room}",
    )
    if outlook["decode_tps"] is None and outlook["others"] > load.SPOILED:
        yield (
            "speed",
            f"not known: other programs used {outlook['others']:.0%} of the processors while it"
            " was measured; close them and try again",
        )
    elif outlook["decode_tps"] is None:
        yield (
            "speed",
            f"answers: at most about {outlook['decode_tps_at_most']:.2g} tokens/s, as memory is"
            f" read at {outlook['bandwidth'] / 1e9:.1f} GB/s",
        )
        yield "", "(measured now) and each token reads all weights; prompts depend on the cores"


def load_options(loading: dict[str, Any]) -> LoadOptions:
    """The LoadOptions among the command line's loading options."""
    from edgesppo.tuning.choose import LoadOptions

    names = {field.name for field in fields(LoadOptions)}
    draft = loading["drafts"]
    summary = None if isinstance(draft, bool) else _summary(draft)
    chosen = {name: value for name, value in loading.items() if name in names}
    return LoadOptions(**chosen, draft=summary)


def _lines(tuning: RunConfig, plan: MemoryPlan, draft: Summary | None) -> Iterator[tuple[str, str]]:
    yield "weights", _mb(plan.weights)
    yield "KV cache", f"{_mb(plan.kv)}, {plan.n_ctx:,} tokens in {plan.cache_type}"
    yield "compute", _mb(plan.compute)
    yield "logits", _mb(plan.logits)
    if plan.prefill:
        yield "prompts", f"{_mb(plan.prefill)}, a second context for long ones"
    if draft is not None:
        yield "draft", f"{_mb(plan.draft)}, for {draft.path.name}"
    if plan.on_gpu:
        yield "GPU", "its own memory, for its layers and their KV cache, is not counted"
    yield "program", f"{_mb(PROGRAM_BYTES)}, Python, llama.cpp and the vocabulary"
    free = "" if plan.available is None else f", {megabytes(plan.available, 0)} are free"
    yield "total", f"{_mb(plan.total)}{free}"
    yield "threads", f"{plan.n_threads} for an answer, {plan.n_threads_batch} for a prompt"
    yield (
        "settings",
        (
            f"weights {weights_line(tuning)}, flash attention {tuning.flash_attention}, "
            f"micro-batch {tuning.n_ubatch}"
        ),
    )


def weights_line(tuning: RunConfig) -> str:
    """How the weights are held, in a few words."""
    if tuning.plain_from is not None:
        return f"repacked, and plain for {tuning.plain_from} new tokens or more"
    return "repacked" if tuning.repack else "as they are in the file"


def _rates(tuning: RunConfig) -> str:
    return (
        f"measured here: prefill {tuning.prefill_tps or 0:,.1f} t/s, "
        f"decode {tuning.decode_tps or 0:,.1f} t/s"
    )


# The text for each origin of the settings, as returned by `tuning.choose.origin`.
_ORIGINS: dict[str, Callable[[RunConfig], str]] = {
    "measured": _rates,
    "one context": lambda tuning: (
        f"measured here: decode {tuning.decode_tps or 0:,.1f} t/s; prompts would be faster with a "
        f"second context,\n  {'':<9} for which there is not enough memory"
    ),
    "other threads": lambda _: "measured here with another number of threads",
    "not yet": lambda _: (
        "llama.cpp's defaults: not measured yet; the first run of this model finds the\n"
        f"  {'':<9} fastest settings, which changes threads, settings and memory"
    ),
    "frugal": lambda _: "those with the least memory: there is not enough for faster ones",
    "off": lambda _: "llama.cpp's defaults, not measured: --tune off",
    "gpu": lambda _: "llama.cpp's defaults, not measured: the GPU computes",
    "small": lambda tuning: (
        "one thread: a model this small is slower with more, above all on a busy machine"
        if tuning.n_threads == 1
        else "as asked for, not measured: a model this small is fastest with one thread"
    ),
}


def _mb(n_bytes: int) -> str:
    return f"{megabytes(n_bytes):>12}"
