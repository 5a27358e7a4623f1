"""Owns `edgesppo convert`: a checkpoint folder in, a GGUF file out."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING

import click

from edgesppo.cli.common import emit_json, json_option, say

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo_convert import ConvertResult

TYPES = ("q4_k_m", "q8_0", "f16", "bf16", "f32")
LAYOUTS = ("edge", "standard")


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
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--keep", is_flag=True, help="Keep what is fetched from the hub, in OUT.checkpoint.")
@click.option("--self-test", is_flag=True, help="Then load OUT and let it write ten tokens.")
@json_option
def convert_command(
    source: str,
    output: str,
    kind: str,
    layout: str,
    threads: int | None,
    force: bool,
    keep: bool,
    self_test: bool,
    as_json: bool,
) -> None:
    """Convert the Gemma-2 checkpoint SRC to a GGUF file.

    SRC is a folder, or OWNER/NAME@COMMIT on the Hugging Face hub: then each shard is fetched,
    checked, used and dropped, so that the disk needs OUT and one shard.

    One pass, no intermediate file; OUT appears only when it is whole. Stopped in the middle, the
    same command goes on from the tensors that were done.
    """
    from edgesppo.cli.progress import conversion_progress, fetch_progress
    from edgesppo_convert import convert

    title = f"Converting {source} to {kind}"
    with conversion_progress(title) as report, fetch_progress() as fetched:
        result = convert(
            source,
            output,
            type=kind,
            layout=layout,
            threads=threads,
            force=force,
            keep=keep,
            progress=report,
            fetched=fetched,
        )
    if self_test:
        _try_out(result.output)
    if as_json:
        figures = dataclasses.asdict(result)
        del figures["types"], figures["resumed"]
        emit_json({**figures, "output": str(result.output)})
    else:
        _summarise(result)


def _try_out(output: Path) -> None:
    from edgesppo.loaded import load

    with load(output, n_ctx=256) as model:
        chat = model.chat(temperature=0, max_tokens=10)
        text = chat.ask("Hello! Who are you?")
        assert chat.last is not None
        count = chat.last.usage.completion_tokens
    say(f"self-test: {count} tokens, {text!r}")


def _summarise(result: ConvertResult) -> None:
    kinds = ", ".join(f"{count} {name}" for name, count in result.types.items())
    say(
        f"{result.output}: {result.bytes / 1e6:,.1f} MB, {result.bits_per_weight:.2f} bits a"
        f" weight, {result.tensors} tensors ({kinds}), {result.seconds:.1f} s"
    )
    if result.resumed:
        say(f"{result.resumed} tensors were there from the run before, and were checked")
    say(f"sha256 {result.sha256}")
    say(f"Next: edgesppo chat {shlex.quote(str(result.output))}")
