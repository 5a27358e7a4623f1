"""How much of a prompt goes into a step while answers are running, which all wait for it.

Large slices are computed faster, and prompts that are ready together give answers that are decoded
together. So a slice takes as many tokens as this machine computes in a pause that readers of the
running answers hardly mind; in a longer one where more prompts wait than answers run.
"""

from __future__ import annotations

# The pause, in seconds, and how many times longer it may be at most.
PAUSE_S = 0.5
MOST_PAUSES = 3
# Smaller slices would take nearly as long, since each reads all weights.
LEAST = 64
# Steps of fewer tokens say little of how fast prompts are computed.
TELLING = 32
_WEIGHT = 0.5  # of the latest step


class PrefillSlice:
    """The most prompt tokens in a step, at least LEAST and at most `capacity`.

    With `is_whole`, running answers do not matter, and it is `capacity`.
    """

    def __init__(self, capacity: int) -> None:
        self.is_whole = False
        self._capacity = capacity
        self._rate = 0.0  # tokens per second; 0 until it is known

    def n_tokens(self, n_prefilling: int, n_answering: int) -> int:
        """The size of the next one, while so many prompts wait and so many answers run."""
        if self.is_whole or not n_answering:
            return self._capacity
        pauses = min(MOST_PAUSES, max(1, n_prefilling / n_answering))
        return min(self._capacity, max(LEAST, int(pauses * PAUSE_S * self._rate)))

    def note(self, n_tokens: int, seconds: float) -> None:
        """Follow a step that computed so many tokens."""
        if n_tokens < TELLING or seconds <= 0:
            return
        rate = n_tokens / seconds
        self._rate = self._rate + _WEIGHT * (rate - self._rate) if self._rate else rate
