"""Owns every touch of llama.cpp: handles, lifetimes, return codes, the captured log.

The only file that imports llama_cpp. It knows tokens, sequences and logits; it knows nothing of
text beyond bytes, of chats, or of who asks. Each handle frees its native half once, by `close()`
or, at the latest, when it is collected. No handle here is safe for two threads at once, except
`Context.abort`, which any thread may set.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import os
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import llama_cpp
import llama_cpp.llama_cpp as _typed

from edgesppo.errors import BadModelFile, Cancelled, ContextOverflow, NativeError, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgesppo.batch import Batch

# The binding's own annotations describe ctypes in ways that no caller can satisfy.
_C: Any = _typed

LIBRARY_VERSION: str = llama_cpp.__version__
CACHE_TYPES = {"f32": _C.GGML_TYPE_F32, "f16": _C.GGML_TYPE_F16, "q8_0": _C.GGML_TYPE_Q8_0}
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
_LOG_LINES = 60
_TEXT = _C.LLAMA_TOKEN_ATTR_NORMAL | _C.LLAMA_TOKEN_ATTR_USER_DEFINED | _C.LLAMA_TOKEN_ATTR_BYTE
# How llama.cpp writes a space in a token's name.
_SPACE_MARK, _SPACE = "▁".encode(), ord(" ")
# Beside the 256 bytes that a token's text can begin with.
NO_TEXT, ENDS = 256, 257
_WARN, _ERROR = 3, 4  # ggml_log_level

_log: collections.deque[tuple[int, str]] = collections.deque(maxlen=_LOG_LINES)


@_C.llama_log_callback  # type: ignore[untyped-decorator]
def _capture(level: int, text: bytes, _data: object) -> None:
    if level in (_WARN, _ERROR):
        _log.append((level, text.decode("utf-8", "replace").strip()))


@functools.cache
def _start() -> None:
    _C.llama_log_set(_capture, None)
    _C.llama_backend_init()


def _reason() -> str:
    """The first error that llama.cpp wrote, else its first warning: what follows is an echo."""
    for wanted in (_ERROR, _WARN):
        for level, line in _log:
            if level == wanted and line:
                return " ".join(line.split(": ", 1)[-1].split())
    return "it gives no reason"


def _lacks_memory() -> bool:
    """Whether what llama.cpp wrote speaks of memory that it did not get."""
    return any(level == _ERROR and "alloc" in line for level, line in _log)


def system_info() -> str:
    """What the library was compiled for, as llama.cpp puts it."""
    return str(_C.llama_print_system_info().decode().strip())


def has_amx_kernels() -> bool:
    """Whether the build has llama.cpp's AMX kernels.

    GCC optimises their tile configuration away, so that their first use ends the process
    (https://github.com/ggml-org/llama.cpp/pull/26954). They sit behind the extra buffer types.
    """
    return "AMX_INT8 = 1" in system_info()


def can_offload() -> bool:
    """Whether the build has a GPU back end and a device for it."""
    return bool(_C.llama_supports_gpu_offload())


@functools.cache
def ggml_base() -> ctypes.CDLL:
    """The shipped libggml-base, with the signatures that the converter calls declared.

    `ggml_quantize_chunk(type, src, dst, start, n_rows, n_per_row, imatrix)` reads float32 and
    writes blocks; `start` is in weights and must be a multiple of `n_per_row`. It may be called
    from many threads at once (ctypes releases the GIL) once `ggml_quantize_init(type)` was called.
    """
    folder = Path(llama_cpp.__file__).parent / "lib"
    names = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll", "libggml-base.dll")
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise NativeError(
            f"no ggml-base library in {folder}; install llama-cpp-python {LIBRARY_VERSION} again"
        )
    library = ctypes.CDLL(str(found[0]))
    library.ggml_quantize_init.argtypes = [ctypes.c_int]
    library.ggml_quantize_init.restype = None
    sizes = [ctypes.c_int64] * 3
    library.ggml_quantize_chunk.argtypes = [
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *sizes,
        ctypes.c_void_p,
    ]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    for name in ("ggml_fp32_to_fp16_row", "ggml_fp32_to_bf16_row"):
        function = getattr(library, name)
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        function.restype = None
    return library


class Weights:
    """The weights and vocabulary of one GGUF file (`llama_model`)."""

    def __init__(
        self,
        path: Path,
        *,
        n_gpu_layers: int = 0,
        repack: bool = True,
        vocabulary_only: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        _start()
        params = _C.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.use_extra_bufts = repack and not has_amx_kernels()
        params.vocab_only = vocabulary_only
        failure: list[BaseException] = []
        report = _C.llama_progress_callback(_progress_callback(progress, failure))
        params.progress_callback = report
        _log.clear()
        handle = _C.llama_model_load_from_file(os.fsencode(path), params)
        if failure:
            if handle:
                _C.llama_model_free(handle)
            raise failure[0]
        if not handle:
            kind = OutOfMemory if _lacks_memory() else BadModelFile
            raise kind(f"{path}: llama.cpp cannot load it: {_reason()}")
        # The parameters point to the callback only while loading.
        del report
        self._handle = handle
        self._vocab = _C.llama_model_get_vocab(handle)
        self._finalizer = weakref.finalize(self, _C.llama_model_free, handle)
        self.n_vocab: int = _C.llama_vocab_n_tokens(self._vocab)
        self.n_ctx_train: int = _C.llama_model_n_ctx_train(handle)
        self.n_swa: int = _C.llama_model_n_swa(handle)
        self.n_params: int = _C.llama_model_n_params(handle)
        self.n_bytes: int = _C.llama_model_size(handle)
        self.bos: int = _C.llama_vocab_bos(self._vocab)

    @property
    def handle(self) -> Any:
        """The native pointer; valid until `close()`."""
        return self._handle

    def close(self) -> None:
        """Free the weights. Every context made from them must be closed before."""
        self._finalizer()

    def tokenize(self, text: bytes, *, special: bool) -> list[int]:
        """Token ids of UTF-8 `text`, without `<bos>`; `special` matches control tokens in it."""
        capacity = len(text) + 8
        while True:
            ids = (ctypes.c_int32 * capacity)()
            n = _C.llama_tokenize(self._vocab, text, len(text), ids, capacity, False, special)
            if n >= 0:
                return ids[:n]
            capacity = -n

    def piece(self, token: int) -> bytes:
        """The bytes that one token stands for; control tokens give their name."""
        buffer = ctypes.create_string_buffer(64)
        n = _C.llama_token_to_piece(self._vocab, token, buffer, 64, 0, True)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = _C.llama_token_to_piece(self._vocab, token, buffer, -n, 0, True)
        return buffer.raw[:n]

    def is_control(self, token: int) -> bool:
        """Whether the token steers the model instead of standing for text."""
        return bool(_C.llama_vocab_is_control(self._vocab, token))

    def is_text(self, token: int) -> bool:
        """Whether the token stands for text: neither control, nor unknown, nor unused."""
        return bool(_C.llama_vocab_get_attr(self._vocab, token) & _TEXT)

    def is_user_defined(self, token: int) -> bool:
        """Whether the token is found in a text before any merging."""
        attributes = _C.llama_vocab_get_attr(self._vocab, token)
        return bool(attributes & _C.LLAMA_TOKEN_ATTR_USER_DEFINED)

    def name(self, token: int) -> bytes:
        """How the vocabulary itself writes the token."""
        return bytes(_C.llama_vocab_get_text(self._vocab, token))

    def first_bytes(self) -> tuple[list[int], list[int]]:
        """The first byte of every token, NO_TEXT if it has none, ENDS for an end.

        And the tokens that stand for one byte each, whatever character that is a part of.
        """
        n, vocab = self.n_vocab, self._vocab
        attributes = list(map(_C.llama_vocab_get_attr, [vocab] * n, range(n)))
        names = map(_C.llama_vocab_get_text, [vocab] * n, range(n))
        found, single = [NO_TEXT] * n, []
        for token, (kind, name) in enumerate(zip(attributes, names, strict=True)):
            if kind & _C.LLAMA_TOKEN_ATTR_NORMAL and name:
                found[token] = _SPACE if name.startswith(_SPACE_MARK) else name[0]
            elif kind & _TEXT:
                piece = self.piece(token)
                found[token] = piece[0] if piece else NO_TEXT
                if kind & _C.LLAMA_TOKEN_ATTR_BYTE and piece:
                    single.append(token)
            elif self.is_end(token):
                found[token] = ENDS
        return found, single

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer (`<eos>`, `<end_of_turn>`)."""
        return bool(_C.llama_vocab_is_eog(self._vocab, token))


def _progress_callback(
    progress: Callable[[float], None] | None, failure: list[BaseException]
) -> Callable[..., bool]:
    """Native code cannot be left by an exception, Ctrl-C's included: it is kept for later."""

    def report(fraction: float, _data: object) -> bool:
        try:
            if progress is not None:
                progress(fraction)
        except BaseException as error:
            failure.append(error)
        return not failure

    return report


class AbortFlag:
    """A flag that llama.cpp's compute threads read without Python.

    They call back at every graph node; a Python callback would take the interpreter lock each
    time. libc's strlen has the callback's shape: of an empty string it is 0 (go on), of a string
    of one byte 1 (stop).
    """

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(2)
        runtime = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
        self.callback = ctypes.cast(runtime.strlen, _C.ggml_abort_callback)
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


class Context:
    """One KV cache with its compute buffers (`llama_context`), holding many sequences."""

    def __init__(self, weights: Weights, params: ContextParams) -> None:
        native = _C.llama_context_default_params()
        native.n_ctx = params.n_ctx
        native.n_batch = params.n_batch
        native.n_ubatch = min(params.n_ubatch, params.n_batch)
        native.n_seq_max = params.n_seqs
        # llama.cpp ends the process when this is less than one row a sequence.
        native.n_outputs_max = max(params.n_outputs, params.n_seqs)
        native.n_threads = params.n_threads
        native.n_threads_batch = params.n_threads_batch
        native.type_k = native.type_v = CACHE_TYPES[params.cache_type]
        # Flash attention casts an F32 cache to F16: whoever asks for F32 wants it computed so.
        exact = params.cache_type == "f32" and params.flash_attention == "auto"
        native.flash_attn_type = FLASH_ATTENTION["off" if exact else params.flash_attention]
        native.swa_full = False
        native.kv_unified = True
        native.no_perf = True
        self.abort = AbortFlag()
        native.abort_callback = self.abort.callback
        native.abort_callback_data = self.abort.data
        _log.clear()
        handle = _C.llama_init_from_model(weights.handle, native)
        if not handle:
            raise OutOfMemory(
                f"llama.cpp cannot make a context of {params.n_ctx} tokens: "
                f"{_reason()}; use a smaller n_ctx (--n-ctx)"
            )
        self._handle = handle
        self._n_vocab = weights.n_vocab
        self._memory = _C.llama_get_memory(handle)
        # The finalizer holds the weights: they must outlive the context.
        self._finalizer = weakref.finalize(self, _free_context, handle, weights)
        self.params = params
        self.n_ctx: int = _C.llama_n_ctx(handle)
        # No more than the cache has cells; llama.cpp ends the process at a larger batch.
        self.n_batch: int = _C.llama_n_batch(handle)

    @property
    def handle(self) -> Any:
        """The native pointer; valid until `close()`."""
        return self._handle

    def close(self) -> None:
        """Free the cache and the buffers."""
        self._finalizer()

    def decode(self, batch: Batch) -> None:
        """Run one batch; its marked rows of logits can be read or sampled afterwards.

        Raises Cancelled when the abort flag was set (tokens already done stay in the cache),
        ContextOverflow when the cache has no room, NativeError for anything else.
        """
        _log.clear()
        code = _C.llama_decode(self._handle, _native_batch(batch))
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
        raise NativeError(f"llama_decode failed with code {code}: {_reason()}")

    def set_threads(self, n_threads: int, n_threads_batch: int) -> None:
        """Decode with so many threads from now on, and prefill with so many."""
        _C.llama_set_n_threads(self._handle, n_threads, n_threads_batch)

    def row(self, row: int) -> memoryview:
        """The bytes of the n_vocab float32 logits of the batch's entry `row`.

        Not copied: they lie there until the next decode.
        """
        pointer = _C.llama_get_logits_ith(self._handle, row)
        if not pointer:
            raise NativeError(f"entry {row} of the batch has no logits; it was not marked")
        kind = ctypes.POINTER(ctypes.c_float * self._n_vocab)
        return memoryview(ctypes.cast(pointer, kind).contents).cast("B")

    def logits(self, row: int) -> list[float]:
        """The n_vocab logits of the batch's entry `row`, copied."""
        return list(self.row(row).cast("f"))

    def remove(self, seq: int, start: int) -> None:
        """Forget everything of sequence `seq` from position `start` on."""
        if not _C.llama_memory_seq_rm(self._memory, seq, start, -1):
            raise NativeError(f"llama.cpp could not shorten sequence {seq} to {start} tokens")

    def copy(self, source: int, target: int, end: int) -> None:
        """Let sequence `target`, which must be empty, share the first `end` cells of `source`."""
        _C.llama_memory_seq_cp(self._memory, source, target, 0, end)

    def state_size(self, seq: int) -> int:
        """The bytes that `state` takes for a sequence."""
        return int(_C.llama_state_seq_get_size(self._handle, seq))

    def state(self, seq: int) -> memoryview:
        """The cells of one sequence, as bytes that `restore` takes."""
        size = _C.llama_state_seq_get_size(self._handle, seq)
        buffer = (ctypes.c_uint8 * size)()
        written = _C.llama_state_seq_get_data(self._handle, buffer, size, seq)
        if written != size:
            raise NativeError(
                f"llama.cpp wrote {written} of {size} bytes of sequence {seq}'s state"
            )
        return memoryview(buffer).cast("B")

    def restore(self, seq: int, state: bytearray | memoryview) -> bool:
        """Put cells back into an empty sequence; False, and an empty one, if they do not fit."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer(state)
        read = _C.llama_state_seq_set_data(self._handle, buffer, len(state), seq)
        if read != len(state):
            self.remove(seq, 0)
            return False
        return True

    def first_position(self, seq: int) -> int:
        """The first position of `seq` that the sliding-window cache still holds; -1 if none."""
        return int(_C.llama_memory_seq_pos_min(self._memory, seq))

    def sample(self, chain: Chain, row: int) -> int:
        """Draw a token from the logits of the batch's entry `row` and tell the chain of it."""
        return chain.sample(self, row)


def _free_context(handle: Any, _weights: Weights) -> None:
    _C.llama_free(handle)


def _native_batch(batch: Batch) -> Any:
    """The `llama_batch` that points into the batch's own arrays."""
    native = _C.llama_batch()
    native.n_tokens = len(batch)
    native.token = batch.token
    native.pos = batch.pos
    native.n_seq_id = batch.n_seq
    native.seq_id = batch.seq_pointers
    native.logits = batch.logits
    return native


class Chain(Protocol):
    """What tokens are drawn by."""

    def sample(self, context: Context, row: int) -> int:
        """Draw a token from the logits of the batch's entry `row`, and remember it."""

    def recall(self, tokens: Sequence[int]) -> None:
        """Hear of a prompt."""

    def close(self) -> None:
        """Free what is native in it."""


def apply(sampler: Any, rows: Any) -> tuple[int, int]:
    """Run a sampler over candidates, in place: an array of (id int32, logit and p float32).

    Returns how many are left, at the front of the array, and the place of the chosen one, or -1.
    """
    data = ctypes.cast(rows.ctypes.data, ctypes.POINTER(_C.llama_token_data))
    native = _C.llama_token_data_array(data, len(rows), -1, False)
    _C.llama_sampler_apply(sampler, ctypes.byref(native))
    return int(native.size), int(native.selected)


class Grammar:
    """A GBNF grammar that follows an answer (llama.cpp's grammar sampler).

    `accept` ends the process for a token that the grammar does not allow: ask `apply` first,
    which gives such tokens a logit of minus infinity.
    """

    def __init__(self, weights: Weights, text: str) -> None:
        _start()
        self._handle = _C.llama_sampler_init_grammar(weights._vocab, text.encode(), b"root")
        if not self._handle:
            raise NativeError("llama.cpp cannot read the grammar")
        # The finalizer holds the weights: the grammar points to their vocabulary.
        self._finalizer = weakref.finalize(self, _free_sampler, self._handle, weights)

    def apply(self, rows: Any) -> None:
        """Mark what is not allowed next; see `apply`."""
        apply(self._handle, rows)

    def accept(self, token: int) -> None:
        """Go on behind a token that is allowed."""
        _C.llama_sampler_accept(self._handle, token)

    def close(self) -> None:
        """Free the grammar."""
        self._finalizer()


def _free_sampler(handle: Any, _weights: Weights) -> None:
    _C.llama_sampler_free(handle)


class SamplerChain:
    """A chain of llama.cpp's samplers; runs in C on a copy of the context's logits."""

    def __init__(self) -> None:
        _start()
        params = _C.llama_sampler_chain_default_params()
        params.no_perf = True
        self.handle = _C.llama_sampler_chain_init(params)
        self._looking_back: list[tuple[Any, int]] = []
        self._finalizer = weakref.finalize(self, _C.llama_sampler_free, self.handle)

    def close(self) -> None:
        """Free the chain and every sampler in it."""
        self._finalizer()

    def add(self, name: str, *args: Any, looks_back: int = 0) -> None:
        """Append llama.cpp's sampler `llama_sampler_init_NAME(*args)`.

        `looks_back` is how many of the tokens that `recall` names it is told of.
        """
        native = _NATIVE_ARGUMENTS[name](*args) if name in _NATIVE_ARGUMENTS else args
        sampler = getattr(_C, f"llama_sampler_init_{name}")(*native)
        if not sampler:
            raise NativeError(f"llama.cpp refused the sampler {name}{args}")
        _C.llama_sampler_chain_add(self.handle, sampler)
        if looks_back:
            self._looking_back.append((sampler, looks_back))

    def recall(self, tokens: Sequence[int]) -> None:
        """Tell the samplers that look back of a prompt; the others hear of drawn tokens only."""
        for sampler, n in self._looking_back:
            for token in tokens[-n:]:
                _C.llama_sampler_accept(sampler, token)

    def sample(self, context: Context, row: int) -> int:
        """Draw a token from the logits of the batch's entry `row`, and remember it."""
        return int(_C.llama_sampler_sample(self.handle, context.handle, row))

    def apply(self, rows: Any) -> tuple[int, int]:
        """Choose among candidates; see `apply`."""
        return apply(self.handle, rows)

    def accept(self, token: int) -> None:
        """Tell the chain of a token that it did not draw itself (penalties look back at it)."""
        _C.llama_sampler_accept(self.handle, token)


def _bias_arguments(n_vocab: int, pairs: Sequence[tuple[int, float]]) -> tuple[Any, ...]:
    return n_vocab, len(pairs), (_C.llama_logit_bias * len(pairs))(*pairs)


def _dry_arguments(
    weights: Weights,
    multiplier: float,
    base: float,
    allowed_length: int,
    last_n: int,
    breakers: Sequence[str],
) -> tuple[Any, ...]:
    words = (ctypes.c_char_p * len(breakers))(*(word.encode() for word in breakers))
    vocab = weights._vocab
    return vocab, multiplier, base, allowed_length, last_n, words, len(breakers)


# What llama.cpp's samplers take that plain numbers do not express.
_NATIVE_ARGUMENTS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "logit_bias": _bias_arguments,
    "dry": _dry_arguments,
}
