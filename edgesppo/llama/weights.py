"""The weights and the vocabulary of one GGUF file, as loaded by llama.cpp (`llama_model`)."""

from __future__ import annotations

import ctypes
import os
import re
import weakref
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadModelFile, OutOfMemory
from edgesppo.gguf.lenient_utf8 import is_utf8
from edgesppo.llama import fork
from edgesppo.llama.library import (
    C,
    has_amx_kernels,
    lacks_memory,
    log,
    reason,
    start,
    system_info,
)
from edgesppo.system import memory_guard
from edgesppo.system.signals import deferred_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_TEXT = C.LLAMA_TOKEN_ATTR_NORMAL | C.LLAMA_TOKEN_ATTR_USER_DEFINED | C.LLAMA_TOKEN_ATTR_BYTE
# A space in a token's name.
_SPACE_MARK, _SPACE = "▁".encode(), ord(" ")
# The name of the token of a byte, which some files type as text.
_BYTE = re.compile(rb"<0x([0-9A-F]{2})>")
# Values of `first_bytes` beside the 256 bytes: a token without text, and one that ends an answer.
NO_TEXT, ENDS = 256, 257


class Weights:
    """The weights and the vocabulary of one GGUF file (`llama_model`).

    `repack` lets llama.cpp rearrange the weights in memory; `vocabulary_only` loads none. With
    `n_entries`, a vocabulary of so many empty entries is put in place of the file's: enough to
    compute with ids. Without `mmap` the weights are read into memory of this process' own, where
    they can be overwritten. `progress` is called with the loaded fraction. Raises BadModelFile or
    OutOfMemory.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_gpu_layers: int = 0,
        repack: bool = True,
        vocabulary_only: bool = False,
        n_entries: int | None = None,
        mmap: bool = True,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        start()
        fork.check_library(system_info())
        params = C.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.use_extra_bufts = repack and not has_amx_kernels()
        params.vocab_only = vocabulary_only
        overrides = _overrides(n_entries)
        params.kv_overrides = overrides
        if not mmap:
            params.load_mode = C.LLAMA_LOAD_MODE_NONE
        handle = _load(path, params, progress)
        del overrides  # needed only while loading
        memory_guard.return_freed()  # what reading the vocabulary left behind
        self._handle = handle
        self.vocab = C.llama_model_get_vocab(handle)  # native; valid until `close()`
        self._finalizer = weakref.finalize(self, C.llama_model_free, handle)
        fork.track(self)
        self.n_vocab: int = C.llama_vocab_n_tokens(self.vocab)
        self.n_ctx_train: int = C.llama_model_n_ctx_train(handle)
        self.n_swa: int = C.llama_model_n_swa(handle)
        self.n_params: int = C.llama_model_n_params(handle)
        self.n_bytes: int = C.llama_model_size(handle)
        self.bos: int = C.llama_vocab_bos(self.vocab)
        # Tokens that steer the model, whatever type the file gives them; set by the model.
        self.reserved: frozenset[int] = frozenset()

    @property
    def handle(self) -> Any:
        """The native `llama_model` pointer; valid until `close()`."""
        return self._handle

    def after_fork(self, parent: int) -> None:  # noqa: ARG002
        """Never free what belongs to the parent process."""
        self._finalizer.detach()

    def close(self) -> None:
        """Free the weights. Close every context made from them first."""
        self._finalizer()

    def tokenize(self, text: bytes, *, special: bool) -> list[int]:
        """The token ids of UTF-8 `text`, without `<bos>`.

        `special` turns the names of control tokens in it into those tokens. Raises OutOfMemory.
        """
        memory_guard.require_reserve("splitting a text into tokens")
        capacity = len(text) + 8
        while True:
            ids = (ctypes.c_int32 * capacity)()
            n = C.llama_tokenize(self.vocab, text, len(text), ids, capacity, False, special)
            if n >= 0:
                return ids[:n]
            capacity = -n

    def piece(self, token: int) -> bytes:
        """The bytes of one token; a control token gives its name, `<0x0A>` always that byte."""
        byte = _BYTE.fullmatch(self.name(token))
        if byte is not None:
            return bytes.fromhex(byte[1].decode())
        buffer = ctypes.create_string_buffer(64)
        n = C.llama_token_to_piece(self.vocab, token, buffer, 64, 0, True)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = C.llama_token_to_piece(self.vocab, token, buffer, -n, 0, True)
        return buffer.raw[:n]

    def is_control(self, token: int) -> bool:
        """Whether the token steers the model instead of standing for text."""
        return token in self.reserved or bool(C.llama_vocab_is_control(self.vocab, token))

    def is_text(self, token: int) -> bool:
        """Whether the token stands for text: not a control, unknown or unused token."""
        return token not in self.reserved and _is_text(C.llama_vocab_get_attr(self.vocab, token))

    def is_user_defined(self, token: int) -> bool:
        """Whether the token is user-defined: matched in a text before pieces are merged."""
        attributes = C.llama_vocab_get_attr(self.vocab, token)
        return bool(attributes & C.LLAMA_TOKEN_ATTR_USER_DEFINED)

    def find(self, name: str) -> int | None:
        """The token that the vocabulary writes so, whatever its type; None if there is none."""
        ids = self.tokenize(name.encode(), special=True)
        if len(ids) == 1 and self.name(ids[0]) == name.encode():
            return ids[0]
        everything = range(self.n_vocab)
        names = map(C.llama_vocab_get_text, [self.vocab] * self.n_vocab, everything)
        return next(
            (
                token
                for token, found in zip(everything, names, strict=True)
                if found == name.encode()
            ),
            None,
        )

    def name(self, token: int) -> bytes:
        """The token as the vocabulary writes it, with U+2581 for a space."""
        return bytes(C.llama_vocab_get_text(self.vocab, token))

    def first_bytes(self) -> tuple[list[int], list[int]]:
        """The first byte of every token's text, and the byte tokens.

        Entry i of the first list is NO_TEXT for a token without text, ENDS for one that ends an
        answer. A token that is neither a byte nor UTF-8 counts as one without text: a grammar
        reads it as other characters than a decoder does. The second list holds the tokens that
        stand for a single byte each.
        """
        n, vocab = self.n_vocab, self.vocab
        attributes = list(map(C.llama_vocab_get_attr, [vocab] * n, range(n)))
        names = map(C.llama_vocab_get_text, [vocab] * n, range(n))
        found, single = [NO_TEXT] * n, []
        for token, (kind, name) in enumerate(zip(attributes, names, strict=True)):
            if token in self.reserved or not _is_text(kind):
                if self.is_end(token):
                    found[token] = ENDS
            elif kind & C.LLAMA_TOKEN_ATTR_BYTE:
                if piece := self.piece(token):
                    found[token] = piece[0]
                    single.append(token)
            elif _BYTE.fullmatch(name):
                continue  # the grammar would read a byte that is typed as text as its name
            elif kind & C.LLAMA_TOKEN_ATTR_NORMAL and name:
                if name.isascii() or is_utf8(name):
                    found[token] = _SPACE if name.startswith(_SPACE_MARK) else name[0]
            else:
                piece = self.piece(token)
                found[token] = piece[0] if piece and is_utf8(piece) else NO_TEXT
        return found, single

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer (`<eos>`, `<end_of_turn>`)."""
        return bool(C.llama_vocab_is_eog(self.vocab, token))


def _overrides(n_entries: int | None) -> Any:
    """Values that count instead of the file's: Gemma puts no space before a text.

    Without the key, which some converters leave out, llama.cpp would. With `n_entries`, the
    file's vocabulary is not read.
    """
    found = (C.llama_model_kv_override * 4)()  # the first with an empty key ends the list
    found[0].tag = C.LLAMA_KV_OVERRIDE_TYPE_BOOL
    found[0].key = b"tokenizer.ggml.add_space_prefix"
    found[0].value.val_bool = False
    if n_entries is not None:
        found[1].tag = C.LLAMA_KV_OVERRIDE_TYPE_STR
        found[1].key = b"tokenizer.ggml.model"
        found[1].value.val_str = b"no_vocab"
        found[2].tag = C.LLAMA_KV_OVERRIDE_TYPE_INT
        found[2].key = b"gemma2.vocab_size"
        found[2].value.val_i64 = n_entries
    return found


def _is_text(attributes: int) -> bool:
    """Whether a token of these attributes stands for text; llama.cpp adds "control" to some."""
    return bool(attributes & _TEXT) and not attributes & C.LLAMA_TOKEN_ATTR_CONTROL


def _load(path: Path, params: Any, progress: Callable[[float], None] | None) -> Any:
    """The native model, which the caller frees. Raises BadModelFile or OutOfMemory."""
    failure: list[BaseException] = []
    log.clear()
    handle = None
    try:
        # Ctrl-C must not raise inside the callback, which native code calls.
        with deferred_interrupts() as check_signals:
            callback = _progress_callback(progress, failure, check_signals)
            report = C.llama_progress_callback(callback)
            params.progress_callback = report
            handle = C.llama_model_load_from_file(os.fsencode(path), params)
        if failure:
            raise failure[0]
    except BaseException:
        if handle:
            C.llama_model_free(handle)
        raise
    if not handle:
        kind = OutOfMemory if lacks_memory() else BadModelFile
        raise kind(f"{path}: llama.cpp cannot load it: {reason()}")
    return handle


def _progress_callback(
    progress: Callable[[float], None] | None,
    failure: list[BaseException],
    check_signals: Callable[[], None],
) -> Callable[..., bool]:
    """A callback for llama.cpp that reports progress, and stops the load on an exception.

    An exception, KeyboardInterrupt included, must not pass through native code: it is put into
    `failure`, for the caller to raise.
    """

    def report(fraction: float, _data: object) -> bool:
        try:
            check_signals()
            if progress is not None:
                progress(fraction)
        except BaseException as error:
            failure.append(error)
        return not failure

    return report
