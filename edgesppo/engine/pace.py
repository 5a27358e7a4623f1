"""Notice when answers decode far slower than this machine can, and find out if fewer threads help.

The threads of a step wait for each other at every operation. Beside a busy program all of them
wait for the one whose processor that program has, so that one thread less may be faster, for a
small model tens of times. It is told rates, looks at the machine's load and the clock, and answers
with numbers of threads.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgesppo.system.load import BUSY, LoadMeter

if TYPE_CHECKING:
    from collections.abc import Callable

# A rate is taken over at least this many steps of one token, which take at least so many seconds.
WINDOW_STEPS, WINDOW_S = 4, 0.3
_SLOW = 0.5  # share of the rate to expect below which it is far below
_PATIENCE = 2  # slow windows in a row until something is tried
_GAIN = 1.15  # fewer threads must be so many times as fast to be kept
# Seconds until all threads are tried again; doubled whenever that was in vain.
_WAIT_S, _LONGEST_WAIT_S = 30.0, 480.0
_SHARES = (0.75, 0.5, 0.25)  # of the threads, which are tried
# On a quiet machine the measured rate is wrong if the best of so many windows stays below this
# share of it (a long context alone slows it less), or their median is above that one.
_QUIET_WINDOWS, _FAR_BELOW, _FAR_ABOVE = 40, 0.7, 1.4


class Pace:
    """Follows the rate of decoding, and chooses the number of threads.

    `n_threads` for answers and `n_threads_batch` for prompts are those to use now. `measured_tps`
    is the rate in tokens per second that tuning has measured on this machine; if it is None, the
    best rate so far is expected. If the threads are `fixed`, because they were asked for, they stay
    and only a notice says that fewer may be faster. `on_contradiction` is called once when the
    rates of a quiet machine are far from the measured one. `notice` is the line to show, if there
    is one; it is made once, and whoever shows it sets it to None.
    """

    def __init__(
        self,
        n_threads: int,
        n_threads_batch: int,
        measured_tps: float | None,
        *,
        fixed: bool = False,
        load: LoadMeter | None = None,
        on_contradiction: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.n_threads = self._full = n_threads
        self._full_batch = n_threads_batch
        self._measured, self._best = measured_tps, measured_tps or 0.0
        self._fixed = fixed
        self._load = load or LoadMeter()
        self._others: float | None = None  # what others used in the last window
        self._clock = clock
        self._wait, self._until = _WAIT_S, clock()
        self._n_slow = 0
        self._rates: dict[int, float] = {}  # threads -> rate, while numbers of threads are tried
        self._left: list[int] = []  # the numbers still to try
        self._held: tuple[int, float] | None = None  # the fewer threads that are kept, their rate
        self._slow_others: float | None = None  # what others used when it became slow
        self._on_contradiction = on_contradiction
        self._quiet_rates: list[float] = []  # at all threads, since the measured rate was compared
        self.notice: str | None = None
        self._told = False

    @property
    def n_threads_batch(self) -> int:
        """The number of threads for prompts: as many fewer as for answers, at least one."""
        return max(1, self._full_batch - (self._full - self.n_threads))

    def note(self, steps: int, seconds: float) -> None:
        """Take in one window: so many steps of one token took so many seconds."""
        rate = steps / max(seconds, 1e-9)
        self._others = self._load.others()
        if self._rates:
            self._try_next(rate)
        elif self._held is None:
            self._compare_with_measured(rate)
            self._watch(rate)
        elif self.n_threads == self._full:
            self._compare(rate)
        else:
            self._hold(rate)
        self._best = max(self._best, rate)

    def _compare_with_measured(self, rate: float) -> None:
        """Find out whether the settings were chosen by a rate that is not this machine's."""
        if self._measured is None or self._on_contradiction is None or self._fixed:
            return
        if (self._others or 0.0) > BUSY:
            return
        self._quiet_rates.append(rate)
        if len(self._quiet_rates) < _QUIET_WINDOWS:
            return
        rates, self._quiet_rates = sorted(self._quiet_rates), []
        median = rates[len(rates) // 2]
        if rates[-1] < _FAR_BELOW * self._measured or median > _FAR_ABOVE * self._measured:
            report, self._on_contradiction = self._on_contradiction, None
            report()

    def keep(self, n_threads: int) -> None:
        """Stay at this number of threads for now: there is no memory to start more."""
        self._rates, self._left = {}, []
        self._stay(n_threads, 0.0)

    def _watch(self, rate: float) -> None:
        """At all threads: look out for slow windows."""
        self._n_slow = self._n_slow + 1 if self._is_slow(rate) else 0
        if self._n_slow < _PATIENCE or self._clock() < self._until:
            return
        self._n_slow = 0
        fewer = {max(1, int(self._full * share)) for share in _SHARES} - {self._full}
        if self._fixed or not fewer:
            self._tell_of_others(rate)
            self._wait_longer()
            return
        self._slow_others, self._rates = self._others, {self._full: rate}
        self._left = sorted(fewer)
        self.n_threads = self._left.pop()

    def _is_slow(self, rate: float) -> bool:
        """Whether a rate is far below the expected one, or nothing is known but others are busy."""
        busy = self._measured is None and (self._others or 0.0) > BUSY
        return busy or rate < _SLOW * self._best

    def _try_next(self, rate: float) -> None:
        """Fewer threads were tried: try the next number, or keep the fastest one."""
        self._rates[self.n_threads] = rate
        if self._left:
            self.n_threads = self._left.pop()
            return
        rates, self._rates = self._rates, {}
        fastest = max(rates, key=rates.__getitem__)
        self._others = self._slow_others
        if rates[fastest] < _GAIN * rates[self._full]:
            self.n_threads = self._full
            self._tell_of_others(rates[self._full])
            self._wait_longer()
            return
        self._stay(fastest, rates[fastest])
        self._tell(
            rates[self._full],
            f"with {_threads(fastest)} instead of {self._full} it is {rates[fastest]:,.1f}, so that"
            " is used for now",
        )

    def _stay(self, n_threads: int, rate: float) -> None:
        self.n_threads, self._held = n_threads, (n_threads, rate)
        self._until = self._clock() + self._wait

    def _hold(self, rate: float) -> None:
        """At fewer threads: try all of them after a while, unless others are still busy."""
        if self._clock() < self._until:
            return
        if (self._others or 0.0) > BUSY:
            self._until = self._clock() + self._wait
            return
        self._held, self.n_threads = (self.n_threads, rate), self._full

    def _compare(self, rate: float) -> None:
        """All threads were tried again: keep them, or go back to fewer."""
        assert self._held is not None, "fewer threads were kept"
        n_threads, fewer_rate = self._held
        if rate >= fewer_rate:
            self._held, self._wait = None, _WAIT_S
            return
        self._wait = min(2 * self._wait, _LONGEST_WAIT_S)
        self._stay(n_threads, fewer_rate)

    def _wait_longer(self) -> None:
        self._until = self._clock() + self._wait
        self._wait = min(2 * self._wait, _LONGEST_WAIT_S)

    def _tell_of_others(self, rate: float) -> None:
        """Give out a notice where nothing is changed, if it is others who make answers slow."""
        if (self._others or 0.0) <= BUSY:
            return
        if self._fixed and self._full > 1:
            self._tell(rate, f"fewer threads than {self._full} may be faster (--threads)")
        else:
            self._tell(rate, "fewer threads do not help; close them")

    def _tell(self, rate: float, outcome: str) -> None:
        if self._told:
            return
        self._told = True
        expected = f" instead of {self._best:,.1f}" if rate < _SLOW * self._best else ""
        slow = f"answers decode at {rate:,.1f} tokens/s{expected}"
        if (self._others or 0.0) > BUSY:
            slow = f"other programs use {self._others:.0%} of the processors: {slow}"
        else:
            slow += ", perhaps because other programs are busy"
        self.notice = f"{slow}; {outcome}"


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"
