"""Draft the next tokens from the text so far, as long as that pays (n-gram speculative decoding).

A draft takes rows in the next batch, and every accepted token of it saves a step. So its length is
chosen by how often drafts of its kind were accepted, and by what a batch of more rows costs on
this machine. No clock is read here: the same tokens give the same drafts, so that a seed repeats
its answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgesppo.planning.run_config import DEFAULT_ROW_COSTS, MAX_DRAFT, ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

# A draft continues the latest earlier occurrence of the last _N tokens.
_N = 3  # `NgramIndex.extend` zips as many
_LONGEST_MATCH = 32
# Kinds of drafts: the shortest match, in tokens, and the first estimate of its acceptance rate.
# The last kind is for drafts of a draft model.
_PRIORS = ((16, 0.95), (8, 0.85), (5, 0.7), (0, 0.4), (-1, 0.7))
_BY_MODEL = len(_PRIORS) - 1
_NEWEST = 0.15  # weight of the latest token in an estimate
_DECAY = 0.01  # how far an estimate returns to its prior with every step


class Proposer(Protocol):
    """Another source of drafts, such as a smaller model."""

    cost: float  # of each drafted token, relative to a step of the target model

    def propose(self, tokens: Sequence[int], n: int) -> list[int]:
        """At most `n` tokens that may follow `tokens`."""


class NgramIndex:
    """The latest position after every run of three tokens; constant time per token."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens."""
        known, start = self.tokens, max(_N, len(self.tokens))
        known.extend(tokens)
        runs = zip(known[start - 3 :], known[start - 2 :], known[start - 1 :], strict=False)
        self._after.update(zip(runs, range(start, len(known)), strict=False))

    def find(self) -> tuple[int, int]:
        """The position after the latest earlier match of the text's end, and the match's length.

        (0, 0) if the last three tokens occurred nowhere before.
        """
        position = self._after.get(tuple(self.tokens[-_N:]), 0)
        if not position:
            return 0, 0
        length, end = _N, len(self.tokens)
        while length < _LONGEST_MATCH and length < position:
            if self.tokens[position - 1 - length] != self.tokens[end - 1 - length]:
                break
            length += 1
        return position, length


class Drafter:
    """Drafts tokens for one answer.

    `costs` are those of batches of ROWS rows, relative to one row. `proposer` is asked when the
    text so far gives no draft.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        costs: Sequence[float] = DEFAULT_ROW_COSTS,
        proposer: Proposer | None = None,
    ) -> None:
        self._index = NgramIndex()
        self._index.extend(prompt)
        self._costs = costs
        self._proposer = proposer
        self._acceptance = [prior for _, prior in _PRIORS]
        self._kind = 0
        self.n_drafted = 0
        self.n_accepted = 0

    def propose(self, n_max: int, others: int = 0) -> list[int]:
        """At most `n_max` tokens that may come next; none if they would not pay.

        `others` is the number of rows that the batch has of other sequences.
        """
        position, length = self._index.find()
        self._kind = next(n for n, (least, _) in enumerate(_PRIORS) if length >= least)
        self._decay()
        n_max = min(n_max, MAX_DRAFT)
        n = self._best_length(n_max, others) if position else 0
        if n or self._proposer is None or others:
            return self._index.tokens[position : position + n]
        self._kind = _BY_MODEL
        n = self._best_length(n_max, others, self._proposer.cost)
        return self._proposer.propose(self._index.tokens, n) if n else []

    def learn(self, drafted: Sequence[int], accepted: Sequence[int]) -> None:
        """Record the tokens that came after a draft.

        The last of `accepted` is the token sampled after the draft's last accepted one.
        """
        n_right = len(accepted) - 1
        if drafted:
            self.n_drafted += len(drafted)
            self.n_accepted += n_right
            # Draft tokens after the first rejected one were never tested.
            n_tested = min(n_right + 1, len(drafted))
            for n in range(n_tested):
                hit = 1.0 if n < n_right else 0.0
                self._acceptance[self._kind] += _NEWEST * (hit - self._acceptance[self._kind])
        self._index.extend(accepted)

    def _best_length(self, n_max: int, others: int, token_cost: float = 0.0) -> int:
        """The draft length that gives the most tokens for its cost; 0 if no draft pays.

        With acceptance rate p, a draft of n tokens gives 1 + p + ... + p^n tokens on average.
        """
        p = min(self._acceptance[self._kind], 0.99)
        best, gain = 0, 1.0
        without = (others + 1) / self._cost(others + 1)
        for rows in ROWS[1:]:
            n = min(rows - 1, n_max)
            expected = (1 - p ** (n + 1)) / (1 - p)
            ratio = (others + expected) / (self._cost(others + 1 + n) + token_cost * n) / without
            if n > best and ratio > gain:
                best, gain = n, ratio
        return best

    def _cost(self, rows: int) -> float:
        """The cost of a batch relative to one row, interpolated between the known ones."""
        if rows >= ROWS[-1]:
            return self._costs[-1] * rows / ROWS[-1]
        n = next(n for n, known in enumerate(ROWS) if known > rows)
        share = (rows - ROWS[n - 1]) / (ROWS[n] - ROWS[n - 1])
        return self._costs[n - 1] + share * (self._costs[n] - self._costs[n - 1])

    def _decay(self) -> None:
        """Move all acceptance estimates towards their priors."""
        for kind, (_, prior) in enumerate(_PRIORS):
            self._acceptance[kind] += _DECAY * (prior - self._acceptance[kind])
