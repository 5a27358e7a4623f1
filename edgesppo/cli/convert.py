"""Owns `edgesppo convert`: a checkpoint folder in, a GGUF file out."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING

import click

from edgesppo.cli.common import emit_json, json_option, say

if TYPE_CHECKING:
    from edgesppo_convert import ConvertResult

TYPES = (
    *("q4_k_m", "q4_k_s", "q5_k_m", "q5_k_s", "q6_k", "q8_0", "q4_0", "iq4_xs"),
    *("f16", "bf16", "f32"),
)
LAYOUTS = ("edge", "standard")
KERNELS = ("auto", "fast", "ggml")


@click.command(name="convert")
@click.argument("source", metavar="SRC")
@click.option("-o", "--output", required=True, metavar="OUT", help="The GGUF file to write.")
@click.option(
    "--type",
    "kind",
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
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@json_option
def convert_command(
    source: str,
    output: str,
    kind: str,
    tensor_types: tuple[str, ...],
    imatrix: str | None,
    layout: str,
    threads: int | None,
    kernels: str,
    force: bool,
    as_json: bool,
) -> None:
    """Convert the Gemma-2 checkpoint folder SRC to a GGUF file.

    One pass, no intermediate file; OUT appears only when it is whole.
    """
    from edgesppo.cli.progress import conversion_progress
    from edgesppo_convert import convert

    with conversion_progress(f"Converting {source} to {kind}") as report:
        result = convert(
            source,
            output,
            type=kind,
            tensor_types=tensor_types,
            imatrix=imatrix,
            layout=layout,
            threads=threads,
            kernels=kernels,
            force=force,
            progress=report,
        )
    if as_json:
        figures = dataclasses.asdict(result)
        del figures["types"], figures["kernels"]
        emit_json({**figures, "output": str(result.output)})
    else:
        _summarise(result)


def _summarise(result: ConvertResult) -> None:
    kinds = ", ".join(f"{count} {name}" for name, count in result.types.items())
    by = " by the fast kernels" if result.kernels == "fast" else ""
    say(
        f"{result.output}: {result.bytes / 1e6:,.1f} MB, {result.bits_per_weight:.2f} bits a"
        f" weight, {result.tensors} tensors ({kinds}), {result.seconds:.1f} s{by}"
    )
    say(f"sha256 {result.sha256}")
    say(f"Next: edgesppo chat {shlex.quote(str(result.output))}")
