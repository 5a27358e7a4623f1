"""Sense checks: what cannot be right about a measurement, said as early as it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgesppo.errors import UsageError
from edgesppo.gguf import gemma2

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.evaluate.candidate import Candidate
    from edgesppo.evaluate.corpus import Corpus
    from edgesppo.evaluate.statistics import DivergenceFigures, PerplexityFigures

_MOST_PERPLEXITY = 1000.0
_FEWEST = 100  # tokens that say something of a model
_MOST_KLD = 1.0  # nats; of the worst quantisations of one model
_ERRORS = 3.0  # how many standard errors a surprise must have
# A shape's keys whose difference means another model.
_SHAPE = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count")
_TOKENS, _TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"


def check_vocabulary(base: Candidate, other: Candidate) -> None:
    """Raise UsageError unless both have the same tokens."""
    for key in (_TOKENS, _TYPES):
        if gemma2.same_array(base.summary, other.summary, key):
            continue
        ours, theirs = (gemma2.read_array(model.summary, key) for model in (base, other))
        if ours == theirs:  # spelled in other bytes
            continue
        if len(ours) != len(theirs):
            what = f"{len(theirs):,} tokens, the reference {len(ours):,}"
        else:
            at = next(
                n for n, pair in enumerate(zip(ours, theirs, strict=True)) if len({*pair}) > 1
            )
            kind = "token" if key == _TOKENS else "the type of token"
            what = f"{theirs[at]!r} as {kind} {at}, the reference {ours[at]!r}"
        raise UsageError(
            f"{other.path} has another vocabulary than the reference {base.path}: it has {what}; "
            "compare files that were made from the same model"
        )


class Notes:
    """Collects notes, each once; `report` is called with a new one at once.

    Early figures are judged, too: what they tell is reported, and kept only where the figures of
    everything tell it again.
    """

    def __init__(self, report: Callable[[str], None] | None) -> None:
        self._report = report or (lambda _: None)
        self._lines: dict[str, str] = {}
        self._told_early: set[str] = set()

    @property
    def found(self) -> tuple[str, ...]:
        """All notes so far."""
        return tuple(self._lines.values())

    def files(self, base: Candidate, other: Candidate) -> None:
        """What the two files' headers and norms tell."""
        if base.path.resolve() == other.path.resolve():
            self._add("same", f"{other.name} is the reference itself: nothing can differ")
            return
        for name in _SHAPE:
            ours, theirs = (model.summary.keys.get(f"gemma2.{name}") for model in (base, other))
            if ours != theirs:
                self._add(
                    "weights",
                    f"{other.name} is not made from the same weights as the reference {base.name}: "
                    f"its {name} is {theirs}, the reference's {ours}",
                )
                return
        differing = _first_other_norm(base, other)
        if differing is not None:
            self._add(
                "weights",
                f"{other.name} is not made from the same weights as the reference {base.name}: "
                f"{differing} differs, which no quantisation changes",
            )
        if base.bits_per_weight < other.bits_per_weight:
            self._add(
                "swapped",
                f"the reference {base.name} has fewer bits per weight than {other.name} "
                f"({base.bits_per_weight:.2f} and {other.bits_per_weight:.2f}): is their order "
                "right?",
            )

    def corpus(self, corpus: Corpus) -> None:
        """What of the corpus is not used, and whether it is enough."""
        if corpus.note is not None:
            self._add("corpus", corpus.note)
        n_scored = sum(
            sample.n_scored if sample.answers is None else sum(sample.answers)
            for sample in corpus.samples
        )
        if n_scored < _FEWEST:
            self._add(
                "few",
                f"only {n_scored} tokens are measured, which says little: give a longer text or "
                "more dialogues",
            )

    def text(self, figures: PerplexityFigures, name: str, *, early: bool = False) -> None:
        """Whether the text suits the model at all."""
        self._perplexity(figures.perplexity, name, figures.tokens if early else None)

    def divergence(
        self, figures: DivergenceFigures, reference: str, *, early: bool = False
    ) -> None:
        """Whether the two can be the same model, and the text suits it."""
        first = figures.tokens if early else None
        self._perplexity(figures.reference_perplexity, reference, first)
        if figures.kld > _MOST_KLD and "weights" not in self._lines:
            self._judge(
                "far",
                f"the mean divergence{_of_first(first)} is above {_MOST_KLD:g}: the two are hardly "
                "the same model, or one of them is damaged",
                first,
            )

    def order(self, figures: DivergenceFigures, base: Candidate, other: Candidate) -> None:
        """Whether the candidate is better than its reference, which rounding cannot make it."""
        if -figures.ln_ratio > _ERRORS * figures.ln_ratio_error > 0:
            self._add(
                "better",
                f"{other.name} has a lower perplexity than its reference {base.name}, by more than "
                f"{_ERRORS:g} standard errors: the text suits one of them by chance, or their order"
                " is wrong",
            )

    def _perplexity(self, value: float, name: str, first: int | None) -> None:
        if value > _MOST_PERPLEXITY:
            self._judge(
                "text",
                f"the perplexity{_of_first(first)} is above {_MOST_PERPLEXITY:,.0f} under {name}: "
                "the text is in a language or a form that it does not know, so the figures say "
                "little",
                first,
            )

    def _judge(self, kind: str, line: str, first: int | None) -> None:
        """Report what the first tokens tell, or add what all of them do."""
        if first is None:
            self._add(kind, line)
        else:
            self._told_early.add(kind)
            self._report(line)

    def _add(self, kind: str, line: str) -> None:
        if kind not in self._lines:
            self._lines[kind] = line
            if kind not in self._told_early:
                self._report(line)


def _of_first(n_tokens: int | None) -> str:
    return "" if n_tokens is None else f" of the first {n_tokens:,} tokens"


def _first_other_norm(base: Candidate, other: Candidate) -> str | None:
    """The first norm that differs, or None: every type keeps them as they are, as F32."""
    theirs = {tensor.name: tensor for tensor in other.summary.tensors}
    for tensor in base.summary.tensors:
        twin = theirs.get(tensor.name)
        if tensor.type == "F32" and "norm" in tensor.name and twin is not None:
            ours, its = (
                np.fromfile(model.path, "<f4", entry.n_bytes // 4, offset=entry.offset)
                for model, entry in ((base, tensor), (other, twin))
            )
            if not np.array_equal(ours, its):
                return tensor.name
    return None
