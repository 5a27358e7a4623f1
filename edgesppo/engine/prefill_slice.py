"""How much of a prompt goes into a step while answers are running, which all wait for it.

Large slices are computed faster, and prompts that are ready together give answers that are decoded
together. So a slice takes as many tokens as this machine computes in a pause that readers of the
running answers hardly mind.
"""

from __future__ import annotations

# The pause, in seconds.
PAUSE_S = 0.5
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
        self._rate: float | None = None  # tokens per second
        self._n = min(LEAST, capacity)

    @property
    def n_tokens(self) -> int:
        """The size of the next one."""
        return self._capacity if self.is_whole else self._n

    def note(self, n_tokens: int, seconds: float) -> None:
        """Follow a step that computed so many tokens."""
        if n_tokens < TELLING or seconds <= 0:
            return
        rate = n_tokens / seconds
        self._rate = rate if self._rate is None else self._rate + _WEIGHT * (rate - self._rate)
        self._n = min(self._capacity, max(LEAST, int(PAUSE_S * self._rate)))
