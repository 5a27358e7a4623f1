"""Measure how good a model file is, and calibrate its quantisation.

    edgesppo.evaluate.perplexity("sppo.gguf", text=Path("wiki.test.raw"))
    edgesppo.evaluate.divergence("sppo-bf16.gguf", "sppo.gguf", dialogues=Path("chats.jsonl"))

Definitions are llama-perplexity's. This room loads models itself and knows no terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.evaluate.candidate import RunOptions
from edgesppo.evaluate.measure import (
    DivergenceReport,
    Options,
    PerplexityReport,
    measure_divergence,
    measure_perplexity,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.evaluate.corpus import Dialogues, Text
    from edgesppo.planning.run_config import Gpu

__all__ = ["DivergenceReport", "PerplexityReport", "divergence", "perplexity"]


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
        text: The text, or as a Path the file that has it. It is cut into chunks; the second half
            of each is scored.
        dialogues: Lists of messages, or as a Path a file of JSON Lines. The figures are those of
            the answers' tokens, and `everything` has those of all tokens.
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
    run = RunOptions(n_threads, gpu)
    options = Options(text, dialogues, n_ctx, chunks, run, on_progress, on_note)
    return measure_perplexity(model, options)


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
    run = RunOptions(n_threads, gpu)
    options = Options(text, dialogues, n_ctx, chunks, run, on_progress, on_note)
    return measure_divergence(reference, [model], options)[0]
