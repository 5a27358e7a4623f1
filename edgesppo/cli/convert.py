"""Owns `edgesppo convert`: a checkpoint folder in, a GGUF file out."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo import obtain
from edgesppo.cli.common import emit_json, json_option, say
from edgesppo.machine import peak_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgesppo_convert import ConvertResult, Outlook

TYPES = (
    *("q4_k_m", "q4_k_s", "q5_k_m", "q5_k_s", "q6_k", "q8_0", "q4_0", "iq4_xs"),
    *("f16", "bf16", "f32"),
)
LAYOUTS = ("edge", "standard")
KERNELS = ("auto", "fast", "ggml")


@click.command(name="convert")
@click.argument("source", metavar="SRC")
@click.option("-o", "--output", metavar="OUT", help="The GGUF file to write.")
@click.option(
    "--type",
    type=click.Choice(TYPES, case_sensitive=False),
    default=TYPES[0],
    show_default=True,
    help="What the weights become.",
)
@click.option(
    "--tensor-type",
    "tensor_types",
    multiple=True,
    metavar="PATTERN=TYPE",
    help="Another type for the matrices whose names hold this regular expression; repeatable.",
)
@click.option(
    "--imatrix",
    metavar="FILE",
    help="Importance matrix, as llama-imatrix writes it (GGUF, or the older .dat).",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default=LAYOUTS[0],
    show_default=True,
    help="Order of the tensors: for the least memory when run, or llama.cpp's own.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Threads. [default: all this process may use]",
)
@click.option(
    "--kernels",
    type=click.Choice(KERNELS),
    default=KERNELS[0],
    show_default=True,
    envvar="EDGESPPO_KERNELS",
    help="The code that makes the blocks; the bytes are the same.",
)
@click.option(
    "--plan", is_flag=True, help="Print what would be made of each tensor; write nothing."
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--keep", is_flag=True, help="Keep what is fetched from the hub, in OUT.checkpoint.")
@click.option("--self-test", is_flag=True, help="Then load OUT and let it write ten tokens.")
@json_option
def convert_command(
    source: str, output: str | None, plan: bool, self_test: bool, as_json: bool, **chosen: Any
) -> None:
    """Convert the Gemma-2 checkpoint SRC to a GGUF file.

    SRC is a folder, a name of models.lock, or OWNER/NAME@COMMIT on the Hugging Face hub: then each
    shard is fetched, checked, used and dropped, so that the disk needs OUT and one shard.

    One pass, no intermediate file; OUT appears only when it is whole. Stopped in the middle, the
    same command goes on from the tensors that were done.
    """
    from edgesppo.cli.progress import conversion_progress, fetch_progress
    from edgesppo_convert import convert, look_ahead

    if not Path(source).exists():
        source = obtain.source(source)
    if plan:
        choices = {key: chosen[key] for key in ("type", "tensor_types", "imatrix", "layout")}
        _print_plan(look_ahead(source, **choices), as_json)
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output' (or --plan).")
    title = f"Converting {source} to {chosen['type']}"
    with conversion_progress(title) as report, fetch_progress() as fetched:
        result = convert(source, output, progress=report, fetched=fetched, **chosen)
    if not as_json:
        _summarise(result, peak_memory())
    if self_test:
        _try_out(result.output)
    if as_json:
        figures = dataclasses.asdict(result)
        for key in ("types", "kernels", "doubt", "resumed"):
            del figures[key]
        emit_json({**figures, "output": str(result.output)})


def _print_plan(plan: Outlook, as_json: bool) -> None:
    if as_json:
        figures = {"bytes": plan.bytes, "bits_per_weight": plan.bits_per_weight}
        tensors = [dataclasses.asdict(tensor) for tensor in plan.tensors]
        emit_json({**figures, "types": plan.types, "tensors": tensors})
        return
    for tensor in plan.tensors:
        shape = " x ".join(map(str, tensor.shape))
        click.echo(f"{tensor.name:36}{shape:>16}  {tensor.type:6}{tensor.bytes:16,}")
    click.echo(
        f"{len(plan.tensors)} tensors ({_counted(plan.types)}), {plan.bytes:,} bytes of tensor"
        f" data, {plan.bits_per_weight:.2f} bits a weight"
    )


def _counted(types: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in types.items())


def _try_out(output: Path) -> None:
    from edgesppo.trial import try_out

    trial = try_out(output)
    say(f"self-test: {trial.n_tokens} tokens, {trial.text!r}")


def _summarise(result: ConvertResult, peak: int | None) -> None:
    memory = f", {peak / 1e6:,.0f} MB of memory at most" if peak else ""
    by = " by the fast kernels" if result.kernels == "fast" else ""
    say(
        f"{result.output}: {result.bytes / 1e6:,.1f} MB, {result.bits_per_weight:.2f} bits a"
        f" weight, {result.tensors} tensors ({_counted(result.types)}), {result.seconds:.1f} s{by}"
        f"{memory}"
    )
    if result.resumed:
        say(f"{result.resumed} tensors were there from the run before, and were checked")
    if result.doubt:
        say(f"the fast kernels were not used: {result.doubt}")
    say(f"sha256 {result.sha256}")
    say(f"Next: edgesppo chat {shlex.quote(str(result.output))}")
