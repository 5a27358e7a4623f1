"""One llama.cpp context: its KV cache, decoding batches into it, and reading the logits.

A context must not be used by two threads at once, except `Context.abort`, which any thread may
set.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from edgesppo.errors import Cancelled, ContextOverflow, NativeError, OutOfMemory
from edgesppo.llama import fork
from edgesppo.llama.abort_flag import AbortFlag
from edgesppo.llama.library import C, log, reason
from edgesppo.llama.threadpool import ThreadPool, can_keep_threads
from edgesppo.planning.run_config import CACHE_TYPES
from edgesppo.sampling.nucleus import no_probabilities
from edgesppo.system.signals import shielded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.llama.batch import Batch
    from edgesppo.llama.graph_observer import Observer
    from edgesppo.llama.weights import Weights
    from edgesppo.planning.run_config import ContextParams

_CACHE_TYPES = {name: getattr(C, f"GGML_TYPE_{name.upper()}") for name in CACHE_TYPES}
_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}


class Chain(Protocol):
    """A sampler chain: draws the next token of a sequence from its logits."""

    def sample(self, context: Context, row: int) -> int:
        """Draw a token from the logits of the batch's entry `row`, and accept it."""

    def recall(self, tokens: Sequence[int]) -> None:
        """Accept a prompt's tokens, as penalties look back at them."""

    def close(self) -> None:
        """Free the native samplers."""


class Context:
    """A KV cache for many sequences, with its compute buffers (`llama_context`).

    `observer` is shown the inputs of matrix products while they are computed. Contexts that are
    given the same `abort` flag are stopped together. Raises OutOfMemory when llama.cpp cannot
    allocate it.
    """

    def __init__(
        self,
        weights: Weights,
        params: ContextParams,
        observer: Observer | None = None,
        abort: AbortFlag | None = None,
    ) -> None:
        native = _native_params(params)
        self.abort = abort or AbortFlag()
        native.abort_callback = self.abort.callback
        native.abort_callback_data = self.abort.data
        self._observer = observer  # native code holds its callback
        if observer is not None:
            native.cb_eval = observer.callback
        handle = _create(weights, native)
        self.handle = handle  # native; valid until `close()`
        self._n_vocab = weights.n_vocab
        self._memory = C.llama_get_memory(handle)
        # The finalizer holds the weights: they must outlive the context.
        self._pools: list[ThreadPool] = []
        self._finalizer = weakref.finalize(self, _free_context, handle, weights, self._pools)
        fork.track(self)
        fork.note_computation()
        self.params = params
        self.n_ctx: int = C.llama_n_ctx(handle)
        # At most the cache's number of cells; llama.cpp ends the process for a larger batch.
        self.n_batch: int = C.llama_n_batch(handle)
        try:
            self._keep_threads(max(params.n_threads, params.n_threads_batch))
        except BaseException:
            self.close()
            raise

    def after_fork(self, parent: int) -> None:  # noqa: ARG002
        """Never free what belongs to the parent process."""
        self._finalizer.detach()

    def close(self) -> None:
        """Free the cache and the buffers."""
        self._finalizer()

    def decode(self, batch: Batch) -> None:
        """Decode one batch; the logits that it asks for can be read or sampled afterwards.

        Raises Cancelled when the abort flag was set (tokens that were already decoded stay in the
        cache), ContextOverflow when the cache has no room, NativeError for any other failure.
        """
        log.clear()
        native = batch.native
        if native is None:
            native = batch.native = _native_batch(batch)
        native.n_tokens = batch.n_tokens
        code = C.llama_decode(self.handle, native)
        if code == 0:
            return
        if code == 2:
            raise Cancelled("stopped while the model was computing")
        if code == 1:
            raise ContextOverflow(
                f"no room for {len(batch)} more tokens in a context of {self.n_ctx}",
                needed=len(batch),
                available=self.n_ctx,
            )
        raise NativeError(f"llama_decode failed with code {code}: {reason()}")

    def set_threads(self, n_threads: int, n_threads_batch: int) -> None:
        """Use `n_threads` for decoding single tokens and `n_threads_batch` for prefill.

        Raises OutOfMemory when there is no memory for more threads than there were.
        """
        self._keep_threads(max(n_threads, n_threads_batch))
        C.llama_set_n_threads(self.handle, n_threads, n_threads_batch)

    @property
    def keeps_threads(self) -> bool:
        """Whether its threads are there all the time; else a decode may start them anew."""
        return bool(self._pools) or max(self.params.n_threads, self.params.n_threads_batch) == 1

    def _keep_threads(self, n_threads: int) -> None:
        """Have a pool of at least so many threads."""
        most = self._pools[-1].n_threads if self._pools else 1
        if n_threads > most and can_keep_threads(n_threads):
            pool = ThreadPool(n_threads)
            # The native context refers to the one before until it computes the next time.
            self._pools.append(pool)
            pool.attach(self.handle)

    def row(self, row: int) -> memoryview:
        """The logits of the batch's entry `row`: the bytes of n_vocab float32.

        Not a copy: valid until the next decode. Raises NativeError if the entry did not ask for
        logits.
        """
        pointer = C.llama_get_logits_ith(self.handle, row)
        if not pointer:
            raise NativeError(f"entry {row} of the batch has no logits; it did not ask for them")
        kind = ctypes.POINTER(ctypes.c_float * self._n_vocab)
        return memoryview(ctypes.cast(pointer, kind).contents).cast("B")

    def rows(self, n: int) -> memoryview:
        """The logits of the first `n` entries that asked for them: n * n_vocab float32, as bytes.

        Not a copy: valid until the next decode.
        """
        pointer = C.llama_get_logits(self.handle)
        if not pointer:
            raise NativeError("the batch has no logits; no entry asked for them")
        kind = ctypes.POINTER(ctypes.c_float * (n * self._n_vocab))
        return memoryview(ctypes.cast(pointer, kind).contents).cast("B")

    def logits(self, row: int) -> list[float]:
        """A copy of the n_vocab logits of the batch's entry `row`."""
        return list(self.row(row).cast("f"))

    def remove(self, seq: int, start: int) -> None:
        """Remove the cells of sequence `seq` from position `start` on."""
        if not C.llama_memory_seq_rm(self._memory, seq, start, -1):
            raise NativeError(f"llama.cpp could not shorten sequence {seq} to {start} tokens")

    def copy(self, source: int, target: int, end: int, start: int = 0) -> None:
        """Share the cells of `source` from position `start` to `end` with `target`.

        `target` must have none of these positions.
        """
        C.llama_memory_seq_cp(self._memory, source, target, start, end)

    def state_size(self, seq: int) -> int:
        """The size of a sequence's `state`, in bytes."""
        return int(C.llama_state_seq_get_size(self.handle, seq))

    def state(self, seq: int) -> memoryview:
        """The cells of one sequence, as bytes for `restore`."""
        size = C.llama_state_seq_get_size(self.handle, seq)
        buffer = (ctypes.c_uint8 * size)()
        written = C.llama_state_seq_get_data(self.handle, buffer, size, seq)
        if written != size:
            raise NativeError(
                f"llama.cpp wrote {written} of {size} bytes of sequence {seq}'s state"
            )
        return memoryview(buffer).cast("B")

    def restore(self, seq: int, state: bytearray | memoryview) -> bool:
        """Put cells back into an empty sequence.

        Returns False, and leaves the sequence empty, if they do not fit.
        """
        buffer = (ctypes.c_uint8 * len(state)).from_buffer(state)
        read = C.llama_state_seq_set_data(self.handle, buffer, len(state), seq)
        if read != len(state):
            self.remove(seq, 0)
            return False
        return True

    def first_position(self, seq: int) -> int:
        """The first position of `seq` that the sliding-window cache holds; -1 if it is empty."""
        return int(C.llama_memory_seq_pos_min(self._memory, seq))

    def sample(self, chain: Chain, row: int) -> int:
        """Draw a token from the logits of the batch's entry `row`; the chain accepts it.

        Raises NativeError if its logit is no finite number: samplers choose some token whatever
        the logits are, also where none is a number.
        """
        token = chain.sample(self, row)
        if not math.isfinite(C.llama_get_logits_ith(self.handle, row)[token]):
            raise no_probabilities()
        return token


def _native_params(params: ContextParams) -> Any:
    native = C.llama_context_default_params()
    native.n_ctx = params.n_ctx
    native.n_batch = params.n_batch
    native.n_ubatch = min(params.n_ubatch, params.n_batch)
    native.n_seq_max = params.n_seqs
    # llama.cpp ends the process when this is less than one row per sequence.
    native.n_outputs_max = max(params.n_outputs, params.n_seqs)
    native.n_threads = params.n_threads
    native.n_threads_batch = params.n_threads_batch
    native.type_k = native.type_v = _CACHE_TYPES[params.cache_type]
    # Flash attention casts an F32 cache to F16, which defeats the purpose of an F32 cache.
    exact = params.cache_type == "f32" and params.flash_attention == "auto"
    native.flash_attn_type = _FLASH_ATTENTION["off" if exact else params.flash_attention]
    native.swa_full = False
    native.kv_unified = True
    native.no_perf = True
    return native


def _create(weights: Weights, native: Any) -> Any:
    """The native context, which the caller frees. Raises OutOfMemory."""
    log.clear()
    handle = None
    try:
        with shielded():  # llama.cpp's log callback is Python, and native code calls it
            handle = C.llama_init_from_model(weights.handle, native)
    except BaseException:
        if handle:
            C.llama_free(handle)
        raise
    if not handle:
        raise OutOfMemory(
            f"llama.cpp cannot create a context of {native.n_ctx} tokens: "
            f"{reason()}; use a smaller n_ctx (--n-ctx)"
        )
    return handle


def _free_context(handle: Any, _weights: Weights, pools: list[ThreadPool]) -> None:
    C.llama_free(handle)
    for pool in pools:
        pool.close()


def _native_batch(batch: Batch) -> Any:
    """A `llama_batch` that points to the batch's arrays."""
    native = C.llama_batch()
    native.token = batch.token
    native.pos = batch.pos
    native.n_seq_id = batch.n_seq
    native.seq_id = batch.seq_pointers
    native.logits = batch.logits
    return native
