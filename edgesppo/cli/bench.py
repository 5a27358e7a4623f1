"""`edgesppo bench`: measure how fast a model runs on this machine, with bar charts."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import TYPE_CHECKING

import click

from edgesppo.cli.completion import complete_models
from edgesppo.cli.loading import choose_model, gguf_path
from edgesppo.cli.options import json_option, tune_option
from edgesppo.cli.output import emit_json, tell
from edgesppo.cli.plan import weights_line
from edgesppo.gguf import gemma2
from edgesppo.system.units import megabytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgesppo.tuning.bench import Report

_BAR = 36


@click.command(name="bench")
@click.argument("model", required=False, shell_complete=complete_models)
@json_option
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="Number of threads. [default: the fastest]"
)
@tune_option
def bench_command(model: str | None, as_json: bool, threads: int | None, tune: str) -> None:
    """Measure how fast MODEL runs here, what limits it, and what would make it faster.

    MODEL is a name, a GGUF file or a checkpoint folder. The default is the model used last, else
    sppo-iter3 if it is on this machine, else the demo.

    Measures the CPU only, not a GPU. Takes a minute or two, in which nothing else should run.
    """
    from edgesppo.terminal.progress import measuring, tuning_progress
    from edgesppo.tuning.bench import measure
    from edgesppo.tuning.choose import LoadOptions, choose_settings

    what = choose_model(model)
    summary = gemma2.load_summary(gguf_path(what))
    with tuning_progress() as on_tune:
        tuning, _ = choose_settings(
            summary, LoadOptions(n_threads=threads, gpu="off", tune=tune), on_tune
        )
    with measuring("Measuring") as report:
        found = measure(summary, tuning, report)
    found.model = what.name
    if as_json:
        emit_json({**dataclasses.asdict(found), "bound": found.bound, "advice": found.advice()})
        return
    for line in _lines(found):
        tell(line)


def _lines(found: Report) -> Iterator[str]:
    yield f"{found.model}, {megabytes(found.bytes)} of weights"
    yield found.machine
    by = f", compiled by {found.compiler}" if found.compiler else ""
    yield f"llama.cpp of llama-cpp-python {found.library}{by}"
    shares = {"before": found.others_before, "during it": found.others_during}
    used: list[str] = []
    for when, share in shares.items():
        if share is not None:
            used.append(f"{share:.0%}{'' if used else ' of the processors'} {when}")
    if used:
        yield f"  others      other programs used {', '.join(used)}"
    yield f"  weights     {weights_line(found.tuning)}"
    yield f"  load        {found.load_s:.2f} s"
    if found.resident is not None:
        yield f"  resident    {megabytes(found.resident, 0)}"
    yield f"  bandwidth   {found.bandwidth / 1e9:,.1f} GB/s; decode reaches {found.bound:.0%} of it"
    yield from _bars("prefill, tokens per second by prompt length", found.prefill)
    yield from _bars("decode, tokens per second by tokens in the context", found.decode)
    yield from _bars("decode, tokens per second by answers at once, contexts empty", found.rows)
    prefill = {n: rates[0] for n, rates in found.threads.items()}
    decode = {n: rates[1] for n, rates in found.threads.items()}
    yield from _bars("prefill, tokens per second by threads", prefill)
    yield from _bars("decode, tokens per second by threads", decode)
    yield "What would make it faster"
    for advice in found.advice():
        yield textwrap.fill(advice, 80, initial_indent="  - ", subsequent_indent="    ")


def _bars(title: str, rates: Mapping[int, float]) -> Iterator[str]:
    """A bar chart: one line for each number, scaled to the fastest."""
    yield title
    most = max(rates.values(), default=0.0)
    for n, rate in rates.items():
        yield f"  {n:>6} {rate:>10,.1f} {'#' * max(1, round(_BAR * rate / most))}"
