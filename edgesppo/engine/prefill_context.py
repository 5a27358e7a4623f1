"""A second context, which computes prompts over the weights as they are in the file.

Some processors decode faster with the weights that llama.cpp has repacked, and prefill faster with
those that are mapped from the file. What is computed here is handed over at once: after each slice
of a prompt the first context holds the cells that it would hold if it had computed them itself. So
only speed depends on whether there is a second one.

Only new cells are copied, in both directions. llama.cpp saves and restores whole sequences, so the
last sequence of each context is kept free to hold a part of another for a moment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgesppo.engine import config
from edgesppo.engine.kv_cache import common_prefix
from edgesppo.engine.runner import Runner
from edgesppo.errors import Cancelled, ContextOverflow, NativeError, OutOfMemory
from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.llama.weights import Weights
from edgesppo.planning import memory_plan
from edgesppo.planning.run_config import PREFILL_N_CTX, PREFILL_UBATCH
from edgesppo.system import hardware, memory_guard
from edgesppo.system.units import megabytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.llama.model import Model
    from edgesppo.planning.run_config import ContextParams

# The most tokens whose cells are copied at once, as they are in memory twice meanwhile. Larger
# pieces take longer, too: the system has to find new pages for each.
PIECE = 64
# The context begins with room for so many tokens, and is made anew with more for longer prompts.
_LEAST_N_CTX = 512


class PrefillContext:
    """One sequence over the weights of a model's file, for prompts of the context `home`.

    Only the first PREFILL_N_CTX tokens of a prompt have room: at first that for `n` tokens is made,
    later as much as prompts turn out to need. Stopping `home` stops this one, too. Close it before
    the model. Raises OutOfMemory, and BadModelFile if the model's path names another file by now.
    """

    def __init__(self, model: Model, home: Context, n: int) -> None:
        self._summary, self._home = model.summary, home
        n_ubatch = min(home.params.n_ubatch, PREFILL_UBATCH)
        self._params = replace(home.params, n_seqs=2, n_outputs=1, n_ubatch=n_ubatch)
        self._ids: list[int] = []  # whose cells it holds
        self._n_ctx = 0  # its room, in tokens; 0 while it is made anew
        params = replace(self._params, n_ctx=self._n_ctx_for(n))
        _require_memory(model, params)
        model.file.check_path()

        def check_abort(_share: float) -> None:
            if home.abort.is_set:
                raise Cancelled("stopped while a second context was made")

        self._weights = Weights(
            model.location, repack=False, n_entries=model.n_vocab, progress=check_abort
        )
        try:
            model.file.check_path()
            self._open(params)
        except BaseException:
            self._weights.close()
            raise
        self._n_swa = self._weights.n_swa
        self._salt = ""

    def close(self) -> None:
        """Free the context and the weights."""
        self._context.close()
        self._weights.close()

    def n_missing(self, tokens: Sequence[int], start: int, salt: str) -> int:
        """How many of a prompt's tokens before `start` have no cells here."""
        return start - (common_prefix(self._ids, tokens[:start]) if salt == self._salt else 0)

    def set_threads(self, n: int) -> None:
        """Compute with `n` threads from now on. Raises OutOfMemory."""
        if n != self._params.n_threads_batch:
            if self._n_ctx:
                self._context.set_threads(n, n)
            self._params = replace(self._params, n_threads=n, n_threads_batch=n)

    def compute(self, seq: int, tokens: Sequence[int], start: int, end: int, salt: str) -> None:
        """Compute the tokens from `start` to `end`, and put their cells into `seq` of `home`.

        That holds exactly the cells before `start`. Cells that were computed under another `salt`
        are not reused. Raises ContextOverflow if `home` has no room for the new ones; some of them
        may be there then. Raises OutOfMemory, and what `Runner.run` raises.
        """
        self._make_room(end)
        # At the end of such a part all of its cells are in the window: none is lost before it is
        # copied.
        n_most = min(self._batch.capacity, self._n_swa)
        for first in range(start, end, n_most):
            self._compute_part(seq, tokens, first, min(end, first + n_most), salt)
        memory_guard.return_freed()  # the cells that were copied

    def _n_ctx_for(self, n: int) -> int:
        """The room for a prompt of `n` tokens: doubled as it grows, as the cells are lost then."""
        room = _LEAST_N_CTX
        while room < n:
            room *= 2
        return min(room, self._home.n_ctx, PREFILL_N_CTX)

    def _make_room(self, n: int) -> None:
        """Have room for `n` tokens. The cells of a smaller context are fetched from `home` again.

        Raises OutOfMemory.
        """
        if n <= self._n_ctx:
            return
        params = replace(self._params, n_ctx=self._n_ctx_for(n))
        self._n_ctx, self._ids = 0, []  # where this ends early, the next prompt makes one
        self._context.close()
        config.require_memory(self._summary, params)
        self._open(params)

    def _open(self, params: ContextParams) -> None:
        self._context = Context(self._weights, params, abort=self._home.abort)
        self._batch = Batch(self._context.n_batch)
        self._runner = Runner(self._context, config.threads_started(params))
        self._ids = []
        self._n_ctx = params.n_ctx

    def _compute_part(
        self, seq: int, tokens: Sequence[int], start: int, end: int, salt: str
    ) -> None:
        self._truncate(self._reusable(seq, tokens, start, salt))
        self._salt = salt
        self._fetch(seq, tokens, start)
        n = len(self._ids)
        if n < end:
            self._batch.clear()
            self._batch.add(0, n, tokens[n:end], logits=0)
            self._runner.run(self._batch)
            self._ids.extend(tokens[n:end])
        for first in range(start, end, PIECE):
            last = min(end, first + PIECE)
            if not copy_cells(self._context, 0, self._home, seq, first, last):
                raise ContextOverflow(
                    f"no room for {end - start} more tokens in a context of {self._home.n_ctx}",
                    needed=end - start,
                    available=self._home.n_ctx,
                )

    def _reusable(self, seq: int, tokens: Sequence[int], start: int, salt: str) -> int:
        """How many of the tokens can be kept from what was computed before."""
        if salt != self._salt:
            return 0
        self._truncate(len(self._ids))  # what an interrupted step left
        n = common_prefix(self._ids, tokens)
        first = self._context.first_position(0)
        if not 0 <= first <= max(0, min(n, start) - self._n_swa):
            return 0
        # Cells of the window that `home` has overwritten would leave a gap after ours.
        has_gap = n < start and self._home.first_position(seq) > n
        return 0 if has_gap else n

    def _fetch(self, seq: int, tokens: Sequence[int], start: int) -> None:
        """Copy the cells that are missing here, up to `start`."""
        while (n := len(self._ids)) < start:
            # Of more than a window, llama.cpp saves the end alone.
            last = min(start, n + min(PIECE, self._n_swa))
            if not copy_cells(self._home, seq, self._context, 0, n, last):
                raise NativeError(f"{last} tokens do not fit into the context for prompts")
            self._ids.extend(tokens[n:last])

    def _truncate(self, n: int) -> None:
        del self._ids[n:]
        self._context.remove(0, n)


def remove_leftovers(home: Context) -> None:
    """Remove what an interrupted copy left in the sequence that is kept free."""
    home.remove(home.params.n_seqs - 1, 0)


def copy_cells(
    source: Context, seq: int, target: Context, target_seq: int, start: int, end: int
) -> bool:
    """Copy the cells of positions `start` to `end` of `seq` from one context to another.

    The last sequence of each must be free. Returns False if they do not fit.
    """
    part, new = source.params.n_seqs - 1, target.params.n_seqs - 1
    try:
        source.remove(part, 0)
        source.copy(seq, part, end, start)
        if not target.restore(new, source.state(part)):
            return False
        target.copy(new, target_seq, end, start)
        return True
    finally:
        source.remove(part, 0)
        target.remove(new, 0)


def _require_memory(model: Model, params: ContextParams) -> None:
    """Raise OutOfMemory unless the machine has memory for what is mapped and allocated."""
    available = hardware.available_memory()
    needed = memory_plan.plan_prefill_memory(
        model.summary,
        config.run_config(params),
        n_ctx=params.n_ctx,
        n_batch=params.n_batch,
        cache_type=params.cache_type,
    )
    if available is not None and needed > available:
        raise OutOfMemory(
            f"a second context needs {megabytes(needed, 0)} of memory, "
            f"{megabytes(available, 0)} are available; close other programs"
        )
    memory_guard.require(
        "the model's file, mapped for long prompts",
        memory=memory_guard.LOADING_RESERVE,
        mapped=model.summary.file_bytes,
        advice="close other programs",
    )
    config.require_memory(model.summary, params)
