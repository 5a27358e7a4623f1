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
from edgesppo.evaluate.comparison import EARLY, Comparison, Progress, answers_of, stopped
from edgesppo.evaluate.corpus import corpus_of
from edgesppo.evaluate.reports import PerplexityReport
from edgesppo.evaluate.statistics import perplexity_figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgesppo.evaluate.candidate import Candidate, RunOptions
    from edgesppo.evaluate.comparison import OnProgress
    from edgesppo.evaluate.corpus import Corpus
    from edgesppo.evaluate.reports import DivergenceReport
    from edgesppo.evaluate.source import Source
    from edgesppo.store.locate import Found

    # Called with each line about what cannot be right, as soon as it is known.
    OnNote = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to measure on, and who wants to know how far it is."""

    source: Source
    run: RunOptions
    on_progress: OnProgress | None = None
    on_note: OnNote | None = None

    def corpus(self, candidate: Candidate) -> Corpus:
        """The samples, tokenised by the candidate's vocabulary. Raises UsageError."""
        with contextlib.closing(candidate.vocabulary()) as model:
            return corpus_of(model, self.source)


def measure_perplexity(model: str | Path | Found, options: Options) -> PerplexityReport:
    """The perplexity of one model; Ctrl-C ends it with the figures so far.

    Raises UsageError, OutOfMemory and what loading raises.
    """
    candidate = find_candidate(model, options.run)
    corpus = options.corpus(candidate)
    notes = sense.Notes(options.on_note)
    notes.corpus(corpus)
    chosen, everything = answers_of(corpus), None
    parts: list[NDArray[np.float64]] = []
    try:
        _score(candidate, corpus, notes, options.on_progress, parts)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(stopped(_so_far(parts, chosen))) from None
    nll = np.concatenate(parts)
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


def _score(
    candidate: Candidate,
    corpus: Corpus,
    notes: sense.Notes,
    on_progress: OnProgress | None,
    parts: list[NDArray[np.float64]],
) -> None:
    """Add the negative log-probabilities of every token to `parts`."""
    progress, looked = Progress(on_progress, corpus.n_tokens), False
    with candidate.opened(corpus.n_ctx) as opened:
        for sample in corpus.samples:
            for position, rows in opened.blocks(sample):
                targets = sample.ids[position + 1 : position + 1 + len(rows)]
                parts.append(logits.nlls(rows, targets, candidate.name, opened.n_threads))
            progress.advance(len(sample.ids))
            if not looked and sum(map(len, parts)) >= EARLY:
                looked = True
                figures = perplexity_figures(np.concatenate(parts))
                notes.text(figures, candidate.name, early=True)


def _so_far(parts: list[NDArray[np.float64]], chosen: NDArray[np.bool_]) -> Iterator[str]:
    """The perplexity over what was computed."""
    n_done = sum(map(len, parts))
    if chosen[:n_done].any():
        found = perplexity_figures(np.concatenate(parts)[chosen[:n_done]])
        error = found.perplexity_error
        yield f"perplexity {found.perplexity:.4f} +- {error:.4f}, {found.tokens:,} tokens"


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
    _tell_apart([base, *others])
    for other in others:
        sense.check_vocabulary(base, other)
    on_note = _once(options.on_note)
    notes = [sense.Notes(on_note) for _ in others]
    for other, lines in zip(others, notes, strict=True):
        lines.files(base, other)
    corpus = options.corpus(base)
    for lines in notes:
        lines.corpus(corpus)
    comparison = Comparison(base, others, notes, corpus, options.on_progress)
    comparison.run()
    return [comparison.report(n) for n in range(len(others))]


def _tell_apart(candidates: Sequence[Candidate]) -> None:
    """Let files of one name go by their paths."""
    paths: dict[str, set[Path]] = {}
    for one in candidates:
        paths.setdefault(one.name, set()).add(one.path)
    for one in candidates:
        if len(paths[one.name]) > 1:
            one.name = str(one.path)


def _once(on_note: OnNote | None) -> OnNote:
    """The callback for lines of which several candidates have the same."""
    told: set[str] = set()

    def note(line: str) -> None:
        if on_note is not None and line not in told:
            told.add(line)
            on_note(line)

    return note
