"""What can be said of many answers without a judge: lengths, and what went wrong in how many."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Of the normal distribution: 95 % of it lie within so many standard deviations.
_Z = 1.96
# An answer repeats itself if its end is the same text three times or more, of so many characters.
_TIMES, _AT_LEAST, _LOOKED_AT = 3, 60, 2_000
_CONTROL_TOKENS = ("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>", "<mask>")
FAILED = "error"  # the finish reason of an answer that there is none of


@dataclass(frozen=True)
class Answer:
    """One answer: its text, why it ended, and the control tokens in it, which have no text."""

    text: str
    finish_reason: str
    n_control_tokens: int = 0
    subset: str = ""


@dataclass(frozen=True)
class Figures:
    """The figures of many answers; lengths are in characters.

    `interval` is the 95 % confidence interval of the mean length; None for fewer than two answers.
    The `failed` ones, which ended with an error, are in no other figure.
    """

    count: int
    failed: int
    mean_length: float | None
    interval: tuple[float, float] | None
    empty: int
    cut_off: int
    repeating: int
    with_control_tokens: int


def figures(answers: Sequence[Answer]) -> Figures:
    """The figures of these answers."""
    given = len(answers)
    answers = [answer for answer in answers if answer.finish_reason != FAILED]
    mean, interval = mean_with_interval([len(answer.text) for answer in answers])
    return Figures(
        len(answers),
        given - len(answers),
        mean,
        interval,
        empty=_count(not answer.text.strip() for answer in answers),
        cut_off=_count(answer.finish_reason == "length" for answer in answers),
        repeating=_count(is_repeating(answer.text) for answer in answers),
        with_control_tokens=_count(_leaks(answer) for answer in answers),
    )


def by_subset(answers: Sequence[Answer]) -> dict[str, Figures]:
    """The figures of each subset, in the order in which they first occur."""
    subsets = dict.fromkeys(answer.subset for answer in answers)
    return {name: figures([a for a in answers if a.subset == name]) for name in subsets}


def mean_with_interval(
    values: Sequence[float],
) -> tuple[float | None, tuple[float, float] | None]:
    """The mean, and its 95 % confidence interval by the normal approximation; None if unknown."""
    n = len(values)
    if not n:
        return None, None
    mean = math.fsum(values) / n
    if n < 2:
        return mean, None
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = _Z * deviation / math.sqrt(n)
    return mean, (mean - half, mean + half)


def is_repeating(text: str) -> bool:
    """Whether the text ends with the same words three times or more, as a model that loops does.

    Found by the prefix function of the reversed text: a beginning of it has the period that its
    own longest border leaves.
    """
    tail = text.rstrip()[-_LOOKED_AT:][::-1]
    borders = [0] * len(tail)
    for end in range(1, len(tail)):
        length = borders[end - 1]
        while length and tail[end] != tail[length]:
            length = borders[length - 1]
        borders[end] = length + (tail[end] == tail[length])
        n = end + 1
        if n >= _AT_LEAST and n >= _TIMES * (n - borders[end]):
            return True
    return False


def _leaks(answer: Answer) -> bool:
    return answer.n_control_tokens > 0 or any(name in answer.text for name in _CONTROL_TOKENS)


def _count(found: Iterable[bool]) -> int:
    return sum(found)
