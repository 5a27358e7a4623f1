"""Owns the running of one batch: in a way that Ctrl-C can end, with memory asked for before.

Knows nothing of requests.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgesppo.system import memory_guard
from edgesppo.system.signals import run_interruptibly

if TYPE_CHECKING:
    from edgesppo.llama.batch import Batch
    from edgesppo.llama.context import Context

# Batches up to this size are over quickly enough to be waited for when Ctrl-C arrives.
_SHORT = 8


class Runner:
    """Decodes batches in a context; `thread_bytes` is what the threads take that it may start."""

    def __init__(self, context: Context, thread_bytes: int) -> None:
        self._context = context
        self._thread_bytes = thread_bytes
        self._computed_on = 0  # the thread that computed the last short batch

    def run(self, batch: Batch) -> None:
        """Decode a batch. Raises as `Context.decode` does, OutOfMemory, and what interrupts it."""
        context, caller, short = self._context, threading.get_ident(), batch.n_tokens <= _SHORT
        if not short or caller != self._computed_on:  # then threads are started
            advice = "end other programs"
            memory_guard.require(
                "starting threads to compute", memory=self._thread_bytes, advice=advice
            )
        if short:
            context.decode(batch)
            self._computed_on = caller
        else:
            run_interruptibly(lambda: context.decode(batch), context.abort.set)
