"""What `edgesppo eval alpaca` says of the answers: as a table, and as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo.batches import alpaca
from edgesppo.batches.answer_figures import by_subset, figures
from edgesppo.batches.likelihood import likelihood_figures, paired_difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgesppo.batches.answer_figures import Answer, Figures
    from edgesppo.batches.likelihood import Likelihood, LikelihoodFigures

_PUBLISHED = 805  # AlpacaEval's instructions
_HEAD = ("answers", "mean characters", "empty", "cut off", "repeating", "control tokens")
_WIDTHS = (9, 26, 8, 9, 11, 16)


@dataclass
class Report:
    """The figures of the answers, and how likely the models find those of a reference."""

    out: Path
    answers: Sequence[Answer]
    scores: Sequence[Likelihood | None] = ()
    other: Sequence[Likelihood | None] = ()
    other_name: str = ""

    def add_other(self, name: str, scores: Sequence[Likelihood | None]) -> None:
        """Compare with the likelihoods under another model."""
        self.other_name, self.other = name, scores

    @property
    def judge(self) -> str:
        """The command that judges the answers."""
        return alpaca.judge_command(self.out)

    def to_dict(self) -> dict[str, Any]:
        """The report as --json prints it."""
        subsets = {name: dataclasses.asdict(f) for name, f in by_subset(self.answers).items()}
        found = {
            **dataclasses.asdict(figures(self.answers)),
            "subsets": subsets,
            "published_lengths": alpaca.PUBLISHED_LENGTHS,
            "judge": self.judge,
        }
        if self.scores:
            found["reference"] = dataclasses.asdict(likelihood_figures(self.scores))
        if self.other:
            mean, interval = paired_difference(self.scores, self.other)
            found["against"] = {
                "model": self.other_name,
                **dataclasses.asdict(likelihood_figures(self.other)),
                "difference": mean,
                "difference_interval": interval,
            }
        return found

    def lines(self) -> Iterator[str]:
        """The report for people."""
        found, subsets = figures(self.answers), by_subset(self.answers)
        yield _columns("", _HEAD)
        yield _row("all", found)
        if len(subsets) > 1:
            for name, part in subsets.items():
                yield _row(name or "(no dataset)", part)
        for name, length in alpaca.PUBLISHED_LENGTHS.items():
            line = _columns(f"published {name}", (f"{_PUBLISHED}", f"{length:,}"))
            yield f"{line}  {_compared(found, length)}".rstrip()
        yield from _likelihood("The reference's outputs", likelihood_figures(self.scores))
        if self.other:
            other = likelihood_figures(self.other)
            yield from _likelihood(f"The same with {self.other_name}", other)
            mean, interval = paired_difference(self.scores, self.other)
            if mean is not None:
                yield f"Difference, output by output: {mean:+,.2f}{_interval(interval, '+,.2f')}"


def _likelihood(what: str, found: LikelihoodFigures) -> Iterator[str]:
    """The line, if there is an output that could be scored."""
    if found.mean is not None:
        mean = f"{found.mean:,.2f}{_interval(found.interval, ',.2f')}"
        yield (
            f"{what}: log-likelihood {mean} an output, {found.per_token:.4f} a token; "
            f"{found.answers:,} outputs, {found.tokens:,} tokens"
        )


def _interval(interval: tuple[float, float] | None, form: str) -> str:
    return "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"


def _columns(name: str, cells: Sequence[str]) -> str:
    padded = (f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=False))
    return f"{name[:15]:<16}{''.join(padded)}"


def _row(name: str, found: Figures) -> str:
    length = found.mean_length
    mean = "-" if length is None else f"{length:,.0f}{_interval(found.interval, ',.0f')}"
    counts = (found.empty, found.cut_off, found.repeating, found.with_control_tokens)
    return _columns(name, (f"{found.count:,}", mean, *(f"{count:,}" for count in counts)))


def _compared(found: Figures, length: int) -> str:
    """Where a published length lies: within the interval, or on which side of it."""
    if found.interval is None:
        return ""
    low, high = found.interval
    if low <= length <= high:
        return "inside the interval"
    return "above the interval" if length > high else "below the interval"
