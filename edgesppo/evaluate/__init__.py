"""Measure how good a model file is, and calibrate its quantisation.

    edgesppo.evaluate.perplexity("sppo.gguf", text=Path("wiki.test.raw"))
    edgesppo.evaluate.divergence("sppo-bf16.gguf", "sppo.gguf", dialogues=Path("chats.jsonl"))
    edgesppo.evaluate.calibrate("sppo-bf16.gguf", "imatrix.gguf", text=Path("wiki.train.raw"))

Definitions are llama-perplexity's. This room loads models itself and knows no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edgesppo.evaluate import calibration
from edgesppo.evaluate.calibration import CalibrationOptions, CalibrationReport
from edgesppo.evaluate.candidate import RunOptions
from edgesppo.evaluate.measure import Options, measure_divergence, measure_perplexity
from edgesppo.evaluate.reports import DivergenceReport, PerplexityReport
from edgesppo.evaluate.source import Dialogues, Source, Text, read_optional_source, read_source
from edgesppo.planning.run_config import Gpu
from edgesppo.system import validate

__all__ = [
    "CalibrationReport",
    "DivergenceReport",
    "PerplexityReport",
    "calibrate",
    "divergence",
    "perplexity",
]


@validate.suggests_keywords
def perplexity(
    model: str | Path,
    *,
    text: Text | None = None,
    dialogues: Dialogues | None = None,
    n_ctx: int | None = None,
    chunks: int | None = None,
    n_threads: int | None = None,
    gpu: Gpu = "auto",
    on_progress: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> PerplexityReport:
    """The perplexity of a model on a text or on dialogues, with its standard error.

    Args:
        model: A name from models.lock, a GGUF file or a checkpoint folder.
        text: The text, or the file that has it. It is cut into chunks; the second half of each is
            scored.
        dialogues: Lists of messages, or a file of JSON Lines. The figures are those of the answers'
            tokens, and `everything` has those of all tokens.
        n_ctx: The tokens of a chunk of a text, by default 512; the most of a dialogue.
        chunks: The most chunks or dialogues to measure on; by default all.
        n_threads: The number of threads; by default as for prompts.
        gpu: As in `edgesppo.load`.
        on_progress: Called with the tokens that are computed, and their number.
        on_note: Called with each line about what looks wrong, as soon as it is known.

    Raises:
        UsageError: An argument is invalid, or the text is too short.
        ModelNotFound, BadModelFile, OutOfMemory: The model cannot be loaded.
    """
    source = read_source(text, dialogues, n_ctx=n_ctx, chunks=chunks)
    options = _options(source, RunOptions(n_threads, gpu), on_progress, on_note)
    return measure_perplexity(model, options)


@validate.suggests_keywords
def divergence(
    reference: str | Path,
    model: str | Path,
    *,
    text: Text | None = None,
    dialogues: Dialogues | None = None,
    n_ctx: int | None = None,
    chunks: int | None = None,
    n_threads: int | None = None,
    gpu: Gpu = "auto",
    on_progress: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> DivergenceReport:
    """How a model's predictions differ from a reference's, such as its own weights in BF16.

    A checkpoint folder as the reference is converted to BF16 once, into the cache folder. The
    arguments and errors are those of `perplexity`; a model of another vocabulary is a UsageError.
    """
    source = read_source(text, dialogues, n_ctx=n_ctx, chunks=chunks)
    options = _options(source, RunOptions(n_threads, gpu), on_progress, on_note)
    return measure_divergence(reference, [model], options)[0]


def _options(
    source: Source,
    run: RunOptions,
    on_progress: Callable[[int, int], None] | None,
    on_note: Callable[[str], None] | None,
) -> Options:
    validate.callback("on_progress", on_progress)
    validate.callback("on_note", on_note)
    return Options(source, run, on_progress, on_note)


@validate.suggests_keywords
def calibrate(
    model: str | Path,
    output: str | Path,
    *,
    text: Text | None = None,
    dialogues: Dialogues | None = None,
    n_dialogues: int | None = None,
    process_output: bool = False,
    n_ctx: int | None = None,
    chunks: int | None = None,
    merge: Sequence[str | Path] = (),
    force: bool = False,
    n_threads: int | None = None,
    gpu: Gpu = "auto",
    on_progress: Callable[[str, int, int], None] | None = None,
) -> CalibrationReport:
    """Collect a model's importance matrix into a file that llama-quantize and `convert` take.

    Interrupted, the same call goes on where it was. Without a text and dialogues the model answers
    `n_dialogues` shipped questions, by default 64, and is calibrated on that.

    Args:
        model: A name, a GGUF file or a checkpoint folder, as in `perplexity`.
        output: The file to write, in llama.cpp's GGUF form.
        process_output: Also collect for the output matrix, which is the embedding.
        merge: Matrices whose sums are added.
        force: Replace `output` if it exists.
        on_progress: Called with the stage, how much of it is done, and of how much.
        text, dialogues, n_ctx, chunks, n_threads, gpu: As in `perplexity`.

    Raises:
        UsageError: An argument is invalid, or a matrix to merge is of another model.
        OutputError: The file could not be written, or exists.
        NativeError: The model computes NaN; the message names the weight.
    """
    source = read_optional_source(text, dialogues, n_ctx=n_ctx, chunks=chunks)
    if n_dialogues is not None:
        n_dialogues = validate.integer("n_dialogues", n_dialogues, 1, 100_000)
    for name, flag in (("process_output", process_output), ("force", force)):
        validate.boolean(name, flag)
    validate.callback("on_progress", on_progress)
    if not isinstance(output, str | Path):
        raise validate.invalid_value("output", output, "a file's name")
    options = CalibrationOptions(
        source,
        n_dialogues=n_dialogues,
        process_output=process_output,
        merge=_file_names(merge),
        force=force,
        run=RunOptions(n_threads, gpu),
        on_progress=on_progress or (lambda _stage, _done, _total: None),
    )
    return calibration.calibrate(model, output, options)


def _file_names(merge: Iterable[str | Path]) -> tuple[str | Path, ...]:
    """The names in a list. Raises UsageError for anything else, such as one name."""
    if isinstance(merge, Iterable) and not isinstance(merge, str | bytes):
        names = tuple(merge)
        if all(isinstance(name, str | Path) for name in names):
            return names
        merge = names
    raise validate.invalid_value("merge", merge, "a list of files")
