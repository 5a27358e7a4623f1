"""Owns a context of llama.cpp: its KV cache, what is decoded into it, and the logits that come out.

Knows sequences and positions, nothing of who asks. Not safe for two threads at once, except
`Context.abort`, which any thread may set.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edgesppo.errors import Cancelled, ContextOverflow, NativeError, OutOfMemory
from edgesppo.llama.library import C, log, reason
from edgesppo.planning.run_config import CACHE_TYPES
from edgesppo.system.signals import shielded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.llama.batch import Batch
    from edgesppo.llama.weights import Weights

_CACHE_TYPES = {name: getattr(C, f"GGML_TYPE_{name.upper()}") for name in CACHE_TYPES}
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}


class AbortFlag:
    """A flag that llama.cpp's compute threads read without Python.

    They call back at every graph node; a Python callback would take the interpreter lock each
    time. libc's strlen has the callback's shape: of an empty string it is 0 (go on), of a string
    of one byte 1 (stop).
    """

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(2)
        runtime = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
        self.callback = ctypes.cast(runtime.strlen, C.ggml_abort_callback)
        self.data = ctypes.cast(self._bytes, ctypes.c_void_p)

    def set(self) -> None:
        """Ask the decode under way, or the next one, to stop."""
        self._bytes[0] = b"\x01"

    def clear(self) -> None:
        """Let decodes run again."""
        self._bytes[0] = b"\x00"


@dataclass(frozen=True)
class ContextParams:
    """The shape of a context; sizes in tokens, `n_outputs` in rows of logits per decode."""

    n_ctx: int
    n_batch: int = 512
    n_ubatch: int = 512
    n_seqs: int = 1
    n_outputs: int = 1
    n_threads: int = 1
    n_threads_batch: int = 1
    cache_type: str = "f16"
    flash_attention: str = "auto"


class Chain(Protocol):
    """What tokens are drawn by."""

    def sample(self, context: Context, row: int) -> int:
        """Draw a token from the logits of the batch's entry `row`, and remember it."""

    def recall(self, tokens: Sequence[int]) -> None:
        """Hear of a prompt."""

    def close(self) -> None:
        """Free what is native in it."""


class Context:
    """One KV cache with its compute buffers (`llama_context`), holding many sequences."""

    def __init__(self, weights: Weights, params: ContextParams) -> None:
        native = C.llama_context_default_params()
        native.n_ctx = params.n_ctx
        native.n_batch = params.n_batch
        native.n_ubatch = min(params.n_ubatch, params.n_batch)
        native.n_seq_max = params.n_seqs
        # llama.cpp ends the process when this is less than one row a sequence.
        native.n_outputs_max = max(params.n_outputs, params.n_seqs)
        native.n_threads = params.n_threads
        native.n_threads_batch = params.n_threads_batch
        native.type_k = native.type_v = _CACHE_TYPES[params.cache_type]
        # Flash attention casts an F32 cache to F16: whoever asks for F32 wants it computed so.
        exact = params.cache_type == "f32" and params.flash_attention == "auto"
        native.flash_attn_type = FLASH_ATTENTION["off" if exact else params.flash_attention]
        native.swa_full = False
        native.kv_unified = True
        native.no_perf = True
        self.abort = AbortFlag()
        native.abort_callback = self.abort.callback
        native.abort_callback_data = self.abort.data
        log.clear()
        handle = None
        try:
            with shielded():  # what llama.cpp writes meanwhile goes to Python code
                handle = C.llama_init_from_model(weights.handle, native)
        except BaseException:
            if handle:
                C.llama_free(handle)
            raise
        if not handle:
            raise OutOfMemory(
                f"llama.cpp cannot make a context of {params.n_ctx} tokens: "
                f"{reason()}; use a smaller n_ctx (--n-ctx)"
            )
        self.handle = handle  # native; valid until `close()`
        self._n_vocab = weights.n_vocab
        self._memory = C.llama_get_memory(handle)
        # The finalizer holds the weights: they must outlive the context.
        self._finalizer = weakref.finalize(self, _free_context, handle, weights)
        self.params = params
        self.n_ctx: int = C.llama_n_ctx(handle)
        # No more than the cache has cells; llama.cpp ends the process at a larger batch.
        self.n_batch: int = C.llama_n_batch(handle)

    def close(self) -> None:
        """Free the cache and the buffers."""
        self._finalizer()

    def decode(self, batch: Batch) -> None:
        """Run one batch; its marked rows of logits can be read or sampled afterwards.

        Raises Cancelled when the abort flag was set (tokens already done stay in the cache),
        ContextOverflow when the cache has no room, NativeError for anything else.
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
        """Decode with so many threads from now on, and prefill with so many."""
        C.llama_set_n_threads(self.handle, n_threads, n_threads_batch)

    def row(self, row: int) -> memoryview:
        """The bytes of the n_vocab float32 logits of the batch's entry `row`.

        Not copied: they lie there until the next decode.
        """
        pointer = C.llama_get_logits_ith(self.handle, row)
        if not pointer:
            raise NativeError(f"entry {row} of the batch has no logits; it was not marked")
        kind = ctypes.POINTER(ctypes.c_float * self._n_vocab)
        return memoryview(ctypes.cast(pointer, kind).contents).cast("B")

    def logits(self, row: int) -> list[float]:
        """The n_vocab logits of the batch's entry `row`, copied."""
        return list(self.row(row).cast("f"))

    def remove(self, seq: int, start: int) -> None:
        """Forget everything of sequence `seq` from position `start` on."""
        if not C.llama_memory_seq_rm(self._memory, seq, start, -1):
            raise NativeError(f"llama.cpp could not shorten sequence {seq} to {start} tokens")

    def copy(self, source: int, target: int, end: int) -> None:
        """Let sequence `target`, which must be empty, share the first `end` cells of `source`."""
        C.llama_memory_seq_cp(self._memory, source, target, 0, end)

    def state_size(self, seq: int) -> int:
        """The bytes that `state` takes for a sequence."""
        return int(C.llama_state_seq_get_size(self.handle, seq))

    def state(self, seq: int) -> memoryview:
        """The cells of one sequence, as bytes that `restore` takes."""
        size = C.llama_state_seq_get_size(self.handle, seq)
        buffer = (ctypes.c_uint8 * size)()
        written = C.llama_state_seq_get_data(self.handle, buffer, size, seq)
        if written != size:
            raise NativeError(
                f"llama.cpp wrote {written} of {size} bytes of sequence {seq}'s state"
            )
        return memoryview(buffer).cast("B")

    def restore(self, seq: int, state: bytearray | memoryview) -> bool:
        """Put cells back into an empty sequence; False, and an empty one, if they do not fit."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer(state)
        read = C.llama_state_seq_set_data(self.handle, buffer, len(state), seq)
        if read != len(state):
            self.remove(seq, 0)
            return False
        return True

    def first_position(self, seq: int) -> int:
        """The first position of `seq` that the sliding-window cache still holds; -1 if none."""
        return int(C.llama_memory_seq_pos_min(self._memory, seq))

    def sample(self, chain: Chain, row: int) -> int:
        """Draw a token from the logits of the batch's entry `row` and tell the chain of it."""
        return chain.sample(self, row)


def _free_context(handle: Any, _weights: Weights) -> None:
    C.llama_free(handle)


def _native_batch(batch: Batch) -> Any:
    """The `llama_batch` that points into the batch's own arrays."""
    native = C.llama_batch()
    native.token = batch.token
    native.pos = batch.pos
    native.n_seq_id = batch.n_seq
    native.seq_id = batch.seq_pointers
    native.logits = batch.logits
    return native
