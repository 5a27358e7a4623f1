"""Long prompts: which parts of them a second context computes, and what happens if it cannot.

The second context is made for the first prompt that is long enough. Where there is no memory for
it any more, or it fails, prompts are computed in the first one as all others are, and after some
minutes it is tried again.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from edgesppo.engine import prefill_context
from edgesppo.engine.prefill_context import PrefillContext
from edgesppo.errors import Cancelled, ContextOverflow, EdgesppoError, OutOfMemory
from edgesppo.planning.run_config import PREFILL_N_CTX

if TYPE_CHECKING:
    from edgesppo.engine.pace import Pace
    from edgesppo.engine.request import Request
    from edgesppo.llama.context import Context
    from edgesppo.llama.model import Model

# So many tokens' cells are fetched in less time than the second context saves with one token:
# 1 ms a token for the 9B, which takes 28 ms less there.
_FETCHED = 16
# Seconds after a failure until the second context is tried again.
_REST_S = 600.0


class LongPrompts:
    """The prompts of the engine's context `home`, of which parts of `least` tokens are long.

    With `least` None no part is. `notice` is the line to show once it has failed; whoever shows it
    sets it to None.
    """

    def __init__(
        self, model: Model, home: Context, least: int | None, pace: Pace | None = None
    ) -> None:
        self._model, self._home, self._least, self._pace = model, home, least, pace
        self.is_used = least is not None  # kept, since every step asks for it
        self._n_ctx = min(home.n_ctx, PREFILL_N_CTX)
        self._context: PrefillContext | None = None
        self.notice: str | None = None
        self._rests_until = 0.0  # by time.monotonic()

    @property
    def most_needed(self) -> int:
        """So many tokens are long wherever they begin, if no answers run beside; 0 if none are."""
        return 0 if self._least is None else self._least + self._n_ctx // _FETCHED

    def n_long(self, request: Request, n: int, beside: bool) -> int:
        """How many of a prompt's next `n` tokens the second context computes.

        The tokens of answers that run `beside` it would be decoded with them in the first one, and
        are a step of their own otherwise. So then it must be twice as long to be worth it; and
        longer still where the second context lacks what comes before and has to fetch it.
        """
        if self._least is None or time.monotonic() < self._rests_until:
            return 0
        start, least = len(request.tokens) - request.n_left, self._least * (1 + beside)
        n = min(n, self._n_ctx - start)
        if n >= least:  # only then: what is missing takes a look at the whole prefix
            least += self._n_missing(request, start) // _FETCHED
        return n if n >= least else 0

    def _n_missing(self, request: Request, start: int) -> int:
        """How many tokens before `start` the second context would have to fetch."""
        if self._context is None:
            return start
        return self._context.n_missing(request.tokens, start, request.salt)

    def compute(self, request: Request, end: int) -> bool:
        """Compute the prompt up to `end`, which `n_long` allowed; returns False if that failed.

        Raises Cancelled, ContextOverflow if `home` has no room, and KeyboardInterrupt.
        """
        slot = request.slot
        assert slot is not None, "only requests with a slot run"
        try:
            if self._context is None:
                self._context = PrefillContext(self._model, self._home, end)
            if self._pace is not None:
                with contextlib.suppress(OutOfMemory):
                    self._context.set_threads(self._pace.n_threads_batch)
            self._context.compute(slot.seq, request.tokens, len(slot.ids), end, request.salt)
        except (Cancelled, ContextOverflow):
            raise
        except (EdgesppoError, MemoryError) as error:
            self._give_up(error)
            return False
        return True

    def recover(self) -> None:
        """Remove what an interrupted step left behind."""
        if self._context is not None:
            prefill_context.remove_leftovers(self._home)

    def close(self) -> None:
        """Free the second context; prompts are computed in the first one from now on."""
        self._least, self.is_used = None, False
        self._free()

    def _free(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            context.close()

    def _give_up(self, error: Exception) -> None:
        self._free()
        if not self._rests_until:  # said once
            reason = str(error) or "out of memory"
            self.notice = f"long prompts take longer for some minutes or more: {reason}"
        self._rests_until = time.monotonic() + _REST_S
