"""Measure perplexity, and divergence from a reference, on a text or on dialogues.

Nothing is written to the disk.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgesppo.errors import UsageError
from edgesppo.evaluate import logits, sense
from edgesppo.evaluate.candidate import find_candidate
from edgesppo.evaluate.comparison import EARLY, Comparison, Progress, answers_of
from edgesppo.evaluate.corpus import read_corpus
from edgesppo.evaluate.reports import PerplexityReport
from edgesppo.evaluate.statistics import perplexity_figures
from edgesppo.planning.memory_plan import trained_context
from edgesppo.system import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgesppo.evaluate.candidate import Candidate, RunOptions
    from edgesppo.evaluate.comparison import OnProgress
    from edgesppo.evaluate.corpus import Corpus, Dialogues, Text
    from edgesppo.evaluate.reports import DivergenceReport
    from edgesppo.store.locate import Found

    # Called with each line about what cannot be right, as soon as it is known.
    OnNote = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to measure on, and who wants to know how far it is."""

    text: Text | None
    dialogues: Dialogues | None
    n_ctx: int | None
    chunks: int | None
    run: RunOptions
    on_progress: OnProgress | None = None
    on_note: OnNote | None = None

    def corpus(self, candidate: Candidate) -> Corpus:
        """The samples, tokenised by the candidate's vocabulary. Raises UsageError."""
        if self.n_ctx is not None:
            validate.integer("n_ctx", self.n_ctx, 16, trained_context(candidate.summary))
        if self.chunks is not None:
            validate.integer("chunks", self.chunks, 1, 2**31 - 1)
        with contextlib.closing(candidate.vocabulary()) as model:
            return read_corpus(
                model, self.text, self.dialogues, n_ctx=self.n_ctx, chunks=self.chunks
            )


def measure_perplexity(model: str | Path | Found, options: Options) -> PerplexityReport:
    """The perplexity of one model. Raises UsageError, OutOfMemory and what loading raises."""
    candidate = find_candidate(model, options.run)
    corpus = options.corpus(candidate)
    notes = sense.Notes(options.on_note)
    notes.corpus(corpus)
    progress = Progress(options.on_progress, corpus.n_tokens)
    parts: list[NDArray[np.float64]] = []
    looked = False
    with candidate.opened(corpus.n_ctx) as opened:
        for sample in corpus.samples:
            for position, rows in opened.blocks(sample):
                targets = sample.ids[position + 1 : position + 1 + len(rows)]
                parts.append(logits.nlls(rows, targets, candidate.name, opened.n_threads))
            progress.advance(len(sample.ids))
            if not looked and sum(map(len, parts)) >= EARLY:
                looked = True
                notes.text(perplexity_figures(np.concatenate(parts)), candidate.name)
    nll = np.concatenate(parts)
    chosen, everything = answers_of(corpus), None
    if corpus.has_answers:
        everything = perplexity_figures(nll)
    figures = perplexity_figures(nll[chosen])
    notes.text(figures, candidate.name)
    return PerplexityReport(
        candidate.name,
        figures,
        everything,
        corpus.left_over,
        candidate.n_bytes,
        candidate.bits_per_weight,
        candidate.tokens_per_second,
        notes.found,
    )


def measure_divergence(
    reference: str | Path | Found, models: Sequence[str | Path | Found], options: Options
) -> list[DivergenceReport]:
    """How each model differs from the reference, in one run.

    Raises UsageError, OutOfMemory and what loading raises.
    """
    if not models:
        raise UsageError("give at least one model to compare with the reference")
    base = find_candidate(reference, options.run, type="bf16")
    others = [find_candidate(model, options.run) for model in models]
    for other in others:
        sense.check_vocabulary(base, other)
    notes = [sense.Notes(options.on_note) for _ in others]
    for other, lines in zip(others, notes, strict=True):
        lines.files(base, other)
    corpus = options.corpus(base)
    for lines in notes:
        lines.corpus(corpus)
    comparison = Comparison(base, others, notes, corpus, options.on_progress)
    comparison.run()
    return [comparison.report(n) for n in range(len(others))]
