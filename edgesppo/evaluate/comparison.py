"""Compare models with a reference over one corpus, all in memory side by side or in turns.

Side by side no logits are kept. In turns, those of the reference are, in memory, for one slice of
the samples at a time: as many as there is room for. The figures are the same.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from edgesppo.errors import OutOfMemory
from edgesppo.evaluate import logits
from edgesppo.evaluate.reports import DivergenceReport
from edgesppo.evaluate.statistics import divergence_figures
from edgesppo.planning.memory_plan import PROGRAM_BYTES
from edgesppo.system.hardware import available_memory
from edgesppo.system.units import megabytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from edgesppo.evaluate.candidate import Candidate, OpenCandidate
    from edgesppo.evaluate.corpus import Corpus, Sample
    from edgesppo.evaluate.sense import Notes

    # Called with the tokens that are computed, and how many there are in all.
    OnProgress = Callable[[int, int], None]

EARLY = 256  # tokens after which the first figures are looked at


class Comparison:
    """A reference and its candidates over one corpus."""

    def __init__(
        self,
        base: Candidate,
        others: Sequence[Candidate],
        notes: Sequence[Notes],
        corpus: Corpus,
        on_progress: OnProgress | None,
    ) -> None:
        self._base = base
        self._others = others
        self._notes = notes
        self._corpus = corpus
        self._parts: list[list[logits.TokenFigures]] = [[] for _ in others]
        self._looked = False
        self._n_threads = base.settings(corpus.n_ctx).n_threads_batch
        self._progress = Progress(on_progress, corpus.n_tokens * (1 + len(others)))

    def run(self) -> None:
        """Compute every sample under every model; Ctrl-C ends it with the figures so far."""
        try:
            self._run()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(stopped(self._so_far())) from None

    def _so_far(self) -> Iterator[str]:
        """The divergence of each candidate over what is computed."""
        chosen = answers_of(self._corpus)
        for other, parts in zip(self._others, self._parts, strict=True):
            n_done = sum(part.kld.size for part in parts)
            if chosen[:n_done].any():
                every = logits.concatenate(parts)
                found = divergence_figures(logits.select(every, chosen[:n_done]))
                mean = f"mean KLD {found.kld:.6f} +- {found.kld_error:.6f}"
                yield f"{other.name}: {mean}, {found.tokens:,} tokens"

    def _run(self) -> None:
        n_ctx = self._corpus.n_ctx
        needs = [model.needs(n_ctx) for model in (self._base, *self._others)]
        free = available_memory()
        if free is None or sum(needs) + PROGRAM_BYTES <= free:
            self._side_by_side(n_ctx)
        else:
            self._in_turns(n_ctx, free - max(needs) - PROGRAM_BYTES)

    def _side_by_side(self, n_ctx: int) -> None:
        with contextlib.ExitStack() as stack:
            base = stack.enter_context(self._base.opened(n_ctx))
            others = [stack.enter_context(other.opened(n_ctx)) for other in self._others]
            for sample in self._corpus.samples:
                streams = [other.blocks(sample) for other in others]
                for position, rows in base.blocks(sample):
                    for n, stream in enumerate(streams):
                        self._compare(n, sample, position, rows, next(stream)[1])
                for stream in streams:
                    next(stream, None)
                self._progress.advance(len(sample.ids) * (1 + len(others)))
                self._look()

    def _in_turns(self, n_ctx: int, budget: int) -> None:
        """Load the models one after the other, for as many samples as their logits fit."""
        for samples in _slices(self._corpus.samples, self._base, budget):
            with self._base.opened(n_ctx) as base:
                kept = [self._kept(base, sample) for sample in samples]
            for n, other in enumerate(self._others):
                with other.opened(n_ctx) as opened:
                    for sample, blocks in zip(samples, kept, strict=True):
                        found = opened.blocks(sample)
                        for reference, (position, rows) in zip(blocks, found, strict=True):
                            self._compare(n, sample, position, reference, rows)
                        self._progress.advance(len(sample.ids))
            self._look()

    def _kept(self, base: OpenCandidate, sample: Sample) -> list[logits.Floats]:
        blocks = [rows.copy() for _, rows in base.blocks(sample)]
        self._progress.advance(len(sample.ids))
        return blocks

    def _compare(
        self, n: int, sample: Sample, position: int, base: logits.Floats, rows: logits.Floats
    ) -> None:
        targets = sample.ids[position + 1 : position + 1 + len(rows)]
        who = (self._base.name, self._others[n].name)
        self._parts[n].append(logits.compare(base, rows, targets, who, self._n_threads))

    def _look(self) -> None:
        """Say early what cannot be right, once."""
        if self._looked or sum(part.kld.size for part in self._parts[0]) < EARLY:
            return
        self._looked = True
        for parts, notes in zip(self._parts, self._notes, strict=True):
            figures = divergence_figures(logits.concatenate(parts))
            notes.divergence(figures, self._base.name, early=True)

    def report(self, n: int) -> DivergenceReport:
        """The figures of candidate `n`."""
        found, other, everything = logits.concatenate(self._parts[n]), self._others[n], None
        if self._corpus.has_answers:
            everything = divergence_figures(found)
            found = logits.select(found, answers_of(self._corpus))
        figures = divergence_figures(found)
        self._notes[n].divergence(figures, self._base.name)
        self._notes[n].order(figures, self._base, other)
        return DivergenceReport(
            self._base.name,
            other.name,
            figures,
            everything,
            self._corpus.left_over,
            other.n_bytes,
            other.bits_per_weight,
            other.tokens_per_second,
            self._notes[n].found,
            found.kld,
        )


def stopped(figures: Iterable[str]) -> str:
    """What to say of a measurement that was interrupted."""
    return "stopped; " + ("; ".join(figures) or "nothing was measured yet")


def answers_of(corpus: Corpus) -> NDArray[np.bool_]:
    """Which of the scored tokens the figures are about: answers, or all of a text."""
    chosen: Iterable[bool] = (
        is_answer
        for sample in corpus.samples
        for is_answer in (sample.answers or [True] * sample.n_scored)
    )
    return np.fromiter(chosen, np.bool_)


def _slices(samples: Sequence[Sample], base: Candidate, budget: int) -> Iterator[list[Sample]]:
    """The samples in lists whose reference logits fit into `budget` bytes."""
    row = 4 * base.n_vocab
    if max(sample.n_scored for sample in samples) * row > budget:
        raise OutOfMemory(
            f"{base.path}: there is no memory for the reference's logits of one sample beside the "
            f"models, {megabytes(max(0, budget), 0)} are left; close other programs, or use "
            "shorter chunks (--n-ctx)"
        )
    part: list[Sample] = []
    for sample in samples:
        if sum(other.n_scored for other in [*part, sample]) * row > budget:
            yield part
            part = []
        part.append(sample)
    yield part


class Progress:
    """Counts tokens, and reports them."""

    def __init__(self, report: OnProgress | None, total: int) -> None:
        self._report = report or (lambda _done, _total: None)
        self._done, self._total = 0, total

    def advance(self, n: int) -> None:
        """Report `n` more tokens."""
        self._done += n
        self._report(self._done, self._total)
