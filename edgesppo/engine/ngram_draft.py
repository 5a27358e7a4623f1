"""Owns guesses of the next tokens: from the text so far, and whether they are worth their rows.

A guess is free to make and costs rows in the next batch; what of it is right saves a step each.
So two things are weighed for every guess: how often guesses like it were right, and what a batch
of more rows costs on this machine. No clock is read here: the same tokens give the same guesses,
so that a seed repeats its answer. Pure; knows nothing of llama.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgesppo.planning.run_config import DEFAULT_ROW_COSTS, MAX_DRAFT, ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

# Tokens that must agree before what followed them the last time is a guess at all.
_N = 3  # as many as `NgramIndex.extend` puts side by side
_LONGEST_MATCH = 32
# How likely a guess is to be right, by how long the text before it agrees: until it is known.
# The last is for guesses that are no repetition.
_PRIORS = ((16, 0.95), (8, 0.85), (5, 0.7), (0, 0.4), (-1, 0.7))
_GUESSED = len(_PRIORS) - 1
_NEWEST = 0.15  # what the latest guess weighs
_FORGET = 0.01  # how far an unused estimate goes back to where it began, with each token


class Guesser(Protocol):
    """Something else that guesses, such as a smaller model."""

    cost: float  # of each token guessed, against a step of the model itself

    def guess(self, tokens: Sequence[int], n: int) -> list[int]:
        """At most `n` tokens that may come behind `tokens`."""


class NgramIndex:
    """Where every run of three tokens was last seen; constant time a token."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens."""
        known, place = self.tokens, max(_N, len(self.tokens))
        known.extend(tokens)
        runs = zip(known[place - 3 :], known[place - 2 :], known[place - 1 :], strict=False)
        self._after.update(zip(runs, range(place, len(known)), strict=False))

    def find(self) -> tuple[int, int]:
        """The place after the latest earlier run that ends like the text, and how long it agrees.

        (0, 0) where there is none.
        """
        place = self._after.get(tuple(self.tokens[-_N:]), 0)
        if not place:
            return 0, 0
        length, end = _N, len(self.tokens)
        while length < _LONGEST_MATCH and length < place:
            if self.tokens[place - 1 - length] != self.tokens[end - 1 - length]:
                break
            length += 1
        return place, length


class Drafter:
    """The guesses for one answer. `costs` are those of batches of ROWS rows against one row."""

    def __init__(
        self,
        prompt: Sequence[int],
        costs: Sequence[float] = DEFAULT_ROW_COSTS,
        guesser: Guesser | None = None,
    ) -> None:
        self._index = NgramIndex()
        self._index.extend(prompt)
        self._costs = costs
        self._guesser = guesser
        self._right = [prior for _, prior in _PRIORS]
        self._kind = 0
        self.n_drafted = 0
        self.n_accepted = 0

    def propose(self, most: int, others: int = 0) -> list[int]:
        """At most so many tokens that may come next; none where they would not pay.

        `others` are the rows that the batch has already, of other sequences.
        """
        place, length = self._index.find()
        self._kind = next(n for n, (least, _) in enumerate(_PRIORS) if length >= least)
        self._forget()
        most = min(most, MAX_DRAFT)
        n = self._best(most, others) if place else 0
        if n or self._guesser is None or others:
            return self._index.tokens[place : place + n]
        self._kind = _GUESSED
        n = self._best(most, others, self._guesser.cost)
        return self._guesser.guess(self._index.tokens, n) if n else []

    def learn(self, drafted: Sequence[int], accepted: Sequence[int]) -> None:
        """Hear what came: the last of `accepted` is the token that no guess foresaw."""
        right = len(accepted) - 1
        if drafted:
            self.n_drafted += len(drafted)
            self.n_accepted += right
            # Where the first wrong guess ended it, the later ones were not put to the test.
            tested = min(right + 1, len(drafted))
            for place in range(tested):
                hit = 1.0 if place < right else 0.0
                self._right[self._kind] += _NEWEST * (hit - self._right[self._kind])
        self._index.extend(accepted)

    def _best(self, most: int, others: int, each: float = 0.0) -> int:
        """The length that gives the most tokens for its cost; 0 where none beats guessing not."""
        p = min(self._right[self._kind], 0.99)
        best, gain = 0, 1.0
        alone = (others + 1) / self._cost(others + 1)
        for rows in ROWS[1:]:
            n = min(rows - 1, most)
            expected = (1 - p ** (n + 1)) / (1 - p)
            ratio = (others + expected) / (self._cost(others + 1 + n) + each * n) / alone
            if n > best and ratio > gain:
                best, gain = n, ratio
        return best

    def _cost(self, rows: int) -> float:
        """Of a batch, against one row; between the known ones on a straight line."""
        if rows >= ROWS[-1]:
            return self._costs[-1] * rows / ROWS[-1]
        n = next(place for place, known in enumerate(ROWS) if known > rows)
        share = (rows - ROWS[n - 1]) / (ROWS[n] - ROWS[n - 1])
        return self._costs[n - 1] + share * (self._costs[n] - self._costs[n - 1])

    def _forget(self) -> None:
        for kind, (_, prior) in enumerate(_PRIORS):
            self._right[kind] += _FORGET * (prior - self._right[kind])
