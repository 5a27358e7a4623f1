"""How much of a prompt goes into a step, which all others wait for.

Large slices are computed faster, and prompts that are ready together give answers that are decoded
together. So beside running answers a slice takes as many tokens as this machine computes in a pause
that their readers hardly mind. Where nobody reads, a step takes all prompts that fit; but of one
that is longer it takes no more than this machine computes in a time that a newcomer can wait.
"""

from __future__ import annotations

# The pause of running answers, and how long a newcomer may have to wait, in seconds.
PAUSE_S = 0.5
WAIT_S = 2.0
# Smaller slices are done sooner, but their tokens take much longer: 16 take about 40 % of the time
# of 64.
LEAST = 64
# With smaller slices, a long prompt by itself would take over 5 % longer.
LEAST_OF_LONG = 128
# Steps of fewer tokens say little of how fast prompts are computed.
TELLING = 32
_WEIGHT = 0.5  # of the latest step


class PrefillSlice:
    """The most prompt tokens in a step, and of one prompt that goes on after it.

    With `is_whole`, others do not matter, and it is `capacity`. `least_of_long` is the least of a
    prompt that goes on: all of `capacity` where nobody else can come.
    """

    def __init__(self, capacity: int, least_of_long: int = LEAST_OF_LONG) -> None:
        self.is_whole = False
        self._capacity = capacity
        self._least_of_long = least_of_long
        self._rate = 0.0  # tokens per second; 0 until it is known

    def n_tokens(self, *, beside: bool) -> int:
        """The size of the next one, `beside` running answers or not."""
        if self.is_whole or not beside:
            return self._capacity
        return min(self._capacity, max(LEAST, int(PAUSE_S * self._rate)))

    @property
    def of_long(self) -> int:
        """The most tokens of a prompt of which some are left for later steps."""
        if self.is_whole:
            return self._capacity
        return min(self._capacity, max(self._least_of_long, int(WAIT_S * self._rate)))

    def note(self, n_tokens: int, seconds: float) -> None:
        """Follow a step that computed so many tokens."""
        if n_tokens < TELLING or seconds <= 0:
            return
        rate = n_tokens / seconds
        self._rate = self._rate + _WEIGHT * (rate - self._rate) if self._rate else rate
