"""`edgesppo convert`: convert a checkpoint, from a folder or the hub, to a GGUF file."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli import convert_quality
from edgesppo.cli.completion import complete_files, complete_models
from edgesppo.cli.convert_quality import quality_options
from edgesppo.cli.help_format import HeadedCommand
from edgesppo.cli.options import adapter_option, json_option
from edgesppo.cli.output import emit_json, say, say_notices, tell
from edgesppo.errors import BadOverride, EdgesppoError
from edgesppo.store import pull
from edgesppo.system.hardware import peak_memory
from edgesppo.system.shell import shell_word
from edgesppo.system.signals import raise_on_termination
from edgesppo.system.units import megabytes
from edgesppo.terminal.progress import retry_notices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgesppo.evaluate.target_size import Allocation
    from edgesppo_convert import ConvertResult, Outlook

TYPES = (
    *("q4_k_m", "q4_k_s", "q5_k_m", "q5_k_s", "q6_k", "q8_0", "q4_0", "iq4_xs"),
    *("f16", "bf16", "f32"),
)
LAYOUTS = ("edge", "standard")
KERNELS = ("auto", "fast", "ggml")
COLUMNS = 79


@click.command(name="convert", cls=HeadedCommand)
@click.argument("source", metavar="SRC", shell_complete=complete_models)
@click.option(
    "-o", "--output", metavar="OUT", shell_complete=complete_files, help="The GGUF file to write."
)
@click.option(
    "--type",
    type=click.Choice(TYPES, case_sensitive=False),
    default=TYPES[0],
    show_default=True,
    help="Quantisation type of the weights.",
)
@click.option(
    "--tensor-type",
    "tensor_types",
    multiple=True,
    metavar="PATTERN=TYPE",
    help="Another type for the matrices whose names match this regular expression; repeatable; the"
    " first match counts.",
)
@adapter_option("Merge a PEFT LoRA adapter, by default with the weight 1; repeatable.")
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default=LAYOUTS[0],
    show_default=True,
    help="Order of the tensors: edge needs the least memory to run, standard is llama.cpp's.",
)
@click.option(
    "--threads",
    "n_threads",
    type=click.IntRange(1, 1024),
    help="Number of threads. [default: all this process may use]",
)
@click.option(
    "--kernels",
    type=click.Choice(KERNELS),
    default=KERNELS[0],
    show_default=True,
    envvar="EDGESPPO_KERNELS",
    help="Quantisation kernels; the result is the same byte for byte.",
)
@click.option("--plan", is_flag=True, help="Print each tensor's type and size; write nothing.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--keep", is_flag=True, help="Keep the files from the hub, in OUT.checkpoint.")
@click.option("--self-test", is_flag=True, help="Afterwards, load OUT and generate ten tokens.")
@quality_options
@json_option
def convert_command(
    source: str,
    output: str | None,
    plan: bool,
    self_test: bool,
    as_json: bool,
    quality: dict[str, Any],
    **chosen: Any,
) -> None:
    """Convert the Gemma-2 checkpoint SRC to a GGUF file.

    SRC is a folder, a name in models.lock, or OWNER/NAME@COMMIT on the Hugging Face hub. From the
    hub, each shard is downloaded, verified, converted and deleted in turn, so that only OUT and
    one shard need space on the disk.

    The conversion is one pass without an intermediate file. OUT appears only once it is complete.
    If interrupted, run the same command again to resume it.
    """
    from edgesppo_convert import look_ahead
    from edgesppo_convert.source.hub_checkpoint import check_source

    click.get_current_context().with_resource(retry_notices())
    found = source if Path(source).exists() else pull.source(source)
    with raise_on_termination(), _usage():
        check_source(found)
        convert_quality.check_source(found, quality)
        if plan:
            choices = {
                key: chosen[key]
                for key in ("type", "tensor_types", "imatrix", "layout", "adapters")
            }
            _print_plan(look_ahead(found, **choices), as_json)
            return
        if output is None:
            raise click.UsageError(
                "Missing option '-o' / '--output' (or --plan); for example: edgesppo convert"
                f" {shell_word(source)} -o {_example(source)}"
            )
        if output == "-":
            raise click.UsageError(
                "a GGUF file is not written in order, so not to standard output; expected -o FILE"
            )
        _note(found, output, keep=chosen["keep"])
        with convert_quality.improved(found, output, quality, chosen) as allocation:
            result = _convert(found, output, chosen)
    say_notices()
    costs = {} if allocation is None else _decode_costs(result.output)
    if not as_json:
        if allocation is not None:
            for line in convert_quality.allocation_lines(allocation, costs):
                say(line)
        _summarise(result, peak_memory())
    if self_test:
        _try_out(result.output)
    if as_json:
        _emit(result, allocation, costs)


def _emit(result: ConvertResult, allocation: Allocation | None, costs: dict[str, float]) -> None:
    figures = dataclasses.asdict(result)
    for key in ("types", "kernels", "doubt", "resumed"):
        del figures[key]
    if allocation is not None:
        figures["allocation"] = {**dataclasses.asdict(allocation), "decode_seconds": costs}
    emit_json({**figures, "output": str(result.output)})


def _decode_costs(output: Path) -> dict[str, float]:
    """What each matrix costs in decoding; nothing where it cannot be measured, which is said."""
    from edgesppo.evaluate.decode_cost import decode_costs

    try:
        return decode_costs(output)
    except EdgesppoError as error:
        say(f"edgesppo: note: the costs in decoding were not measured: {error}")
        return {}


@contextlib.contextmanager
def _usage() -> Iterator[None]:
    """Report an override that matches nothing in this checkpoint as a usage error."""
    try:
        yield
    except BadOverride as error:
        raise click.UsageError(str(error)) from None


def _convert(source: str, output: str, chosen: dict[str, Any]) -> ConvertResult:
    from edgesppo.terminal.progress import conversion_progress, fetch_progress
    from edgesppo_convert import convert

    title = f"Converting {source} to {chosen['type']}"
    with conversion_progress(title) as report, fetch_progress() as on_fetch:
        return convert(source, output, on_progress=report, on_fetch=on_fetch, **chosen)


def _example(source: str) -> str:
    """An example of a name for the output."""
    name = re.sub(r"[^\w.-]", "", Path(source.partition("@")[0]).name).strip(".-")
    return f"{name or 'model'}.gguf"


def _note(source: str, output: str, *, keep: bool) -> None:
    """Warn about an option without effect, and about an unusual output name."""
    if keep and Path(source).exists():
        say(f"Note: {source} is a local folder, so nothing is downloaded and --keep has no effect")
    if not output.lower().endswith(".gguf") and not Path(output).is_dir():
        say(f"Note: many programs expect a name that ends in .gguf; this will be {output}")


def _print_plan(plan: Outlook, as_json: bool) -> None:
    if as_json:
        figures = {"bytes": plan.bytes, "bits_per_weight": plan.bits_per_weight}
        tensors = [dataclasses.asdict(tensor) for tensor in plan.tensors]
        emit_json({**figures, "types": plan.types, "tensors": tensors})
        return
    for tensor in plan.tensors:
        shape = " x ".join(map(str, tensor.shape))
        tell(f"{tensor.name:36}{shape:>16}  {tensor.type:6}{tensor.bytes:16,}")
    click.echo(
        f"{len(plan.tensors)} tensors ({_counted(plan.types)}), {plan.bytes:,} bytes of tensor"
        f" data, {plan.bits_per_weight:.2f} bits per weight"
    )


def _counted(types: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in types.items())


def _try_out(output: Path) -> None:
    from edgesppo.diagnostics.self_test import try_out

    trial = try_out(output)
    say(f"self-test: {trial.n_tokens} tokens, {trial.text!r}")


def _summarise(result: ConvertResult, peak: int | None) -> None:
    """Print what was written and what to do next, in lines that fit a terminal."""
    by = " with the fast kernels" if result.kernels == "fast" else ""
    memory = f", peak memory {megabytes(peak, 0)}" if peak else ""
    _say_wrapped(
        f"{result.output}: {megabytes(result.bytes)}, {result.bits_per_weight:.2f} bits per weight"
    )
    _say_wrapped(f"{result.tensors} tensors: {_counted(result.types)}")
    _say_wrapped(f"{result.seconds:.1f} s{by}{memory}")
    if result.resumed:
        _say_wrapped(f"{result.resumed} tensors from the previous run were verified and reused")
    if result.doubt:
        _say_wrapped(f"the fast kernels were not used: {result.doubt}")
    say(f"sha256 {result.sha256}")
    say(f"Next: edgesppo chat {shell_word(str(result.output))}")


def _say_wrapped(text: str) -> None:
    """Print a text wrapped to COLUMNS; long names are not broken."""
    say(
        textwrap.fill(
            text,
            COLUMNS,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
