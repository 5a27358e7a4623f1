"""Owns `Model`: the weights and vocabulary of one GGUF file; tokens <-> bytes.

Knows nothing of sequences, sampling or chats.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import BadModelFile, Closed, UsageError
from edgesppo.gguf import gemma2
from edgesppo.llama.library import can_offload
from edgesppo.llama.mapped_file import MappedFile
from edgesppo.llama.text_splitter import TextSplitter
from edgesppo.llama.weights import Weights
from edgesppo.system import memory_guard, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgesppo.gguf.gemma2 import Summary

_ALL_LAYERS = -1
_MAX_LAYERS = 10_000
# Bytes of a text that is tokenised at once, and characters of the parts that a longer one goes in.
_LONG, _PART = 8192, 512
# Bytes that llama.cpp takes for each entry of the vocabulary, its own text included.
_ENTRY_BYTES = 300
# GGUF's types of the tokens that are nothing but text: normal, byte.
_ORDINARY = (1, 6)
# SentencePiece writes a space as U+2581 and treats the two alike in its input.
_SPACE_MARK = "▁"


class Model:
    """A Gemma-2 model file, loaded. Close it after the engines that use it.

    Raises ModelNotFound or BadModelFile when `path` is not a whole Gemma-2 GGUF. `gpu` is "auto"
    (all layers, where the build and the device can), "off", or a number of layers.
    `repack` lets llama.cpp keep the weights in an order of its own, which is faster or slower,
    depending on the processor. `vocabulary_only` loads no weights: enough to tokenise. `summary`
    saves a second gemma2.

    `end_tokens` are the ids that end an answer. `newline` and `answer_head` are the ids of "\\n"
    and of "model\\n", which every turn's prompt repeats: tokenised once, here.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        gpu: str | int = "auto",
        repack: bool = True,
        vocabulary_only: bool = False,
        summary: Summary | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.summary = summary or gemma2.load_summary(self.path)
        self.n_gpu_layers = gpu_layers(gpu)
        self._pieces: dict[int, bytes] = {}
        self._texts: dict[int, bytes] = {}
        self._cuts: TextSplitter | None = None
        # Native code must not be inside the vocabulary while another thread frees it.
        self._lock = threading.RLock()
        self._weights: Weights | None = None
        self.file = MappedFile(self.path)
        try:
            self._ask_for_memory()
            self._weights = Weights(
                self.path,
                n_gpu_layers=self.n_gpu_layers,
                repack=repack,
                vocabulary_only=vocabulary_only,
                progress=progress,
            )
            self._check_file()
            self.bos = self.weights.bos
            self.n_vocab = self.weights.n_vocab
            self.start_of_turn = self._control("<start_of_turn>")
            self.end_of_turn = self._control("<end_of_turn>")
            self._check_bos()
            self.end_tokens = self._find_ends()
            self.newline = self.tokenize("\n")
            self.answer_head = self.tokenize("model\n")
        except BaseException:
            self.close()
            raise

    @property
    def weights(self) -> Weights:
        """The native handle, for the engine."""
        if self._weights is None:
            raise Closed(f"the model {self.path} was closed; load it again")
        return self._weights

    @property
    def n_ctx_train(self) -> int:
        """The number of tokens that the model was trained to see at once."""
        return self.weights.n_ctx_train

    def close(self) -> None:
        """Free the weights; harmless when repeated."""
        with self._lock:
            weights, self._weights = self._weights, None
            if weights is not None:
                weights.close()
        self.file.close()

    def _ask_for_memory(self) -> None:
        """Raises OutOfMemory where loading would end the process."""
        tokens = self.summary.keys.get("tokenizer.ggml.tokens")
        memory_guard.require(
            f"{self.path}: loading it",
            memory=_ENTRY_BYTES * (tokens if isinstance(tokens, int) else 0)
            + memory_guard.LOADING_RESERVE,
            mapped=self.summary.file_bytes,
            advice="end other programs, or use a smaller model or type",
        )

    def _check_file(self) -> None:
        """Raises BadModelFile unless what was checked, what was loaded and what is held agree."""
        self.file.check_place()
        if self.file.n_bytes != self.summary.file_bytes:
            raise BadModelFile(
                f"{self.path}: was replaced while it was being loaded; load it again"
            )

    def tokenize(self, text: str | bytes) -> list[int]:
        """Token ids of plain text, the same as SentencePiece's. Never a control token's id.

        Text that looks like a control token is spelled in ordinary pieces. Raises UsageError for
        bytes that are not UTF-8 and for lone surrogates.
        """
        data = as_utf8(text)
        if len(data) <= _LONG:
            return self._tokenize(data)
        parts = self._find_cuts().parts(data.decode("utf-8"), _PART)
        return [id_ for part in parts for id_ in self._tokenize(part.encode("utf-8"))]

    def fewest_tokens(self, text: str) -> int:
        """How many tokens a text has at least, told from its length; 0 for a short one."""
        return -(-len(text) // self._find_cuts().longest) if len(text) > _LONG else 0

    def _tokenize(self, data: bytes) -> list[int]:
        with self._lock:
            ids = self.weights.tokenize(data, special=False)
            return ids if self._is_faithful(ids, data) else self._spelled(ids, data)

    def _find_cuts(self) -> TextSplitter:
        """Where long texts can be cut; found when the first one comes."""
        with self._lock:
            if self._cuts is None:
                weights, everything = self.weights, range(self.n_vocab)
                names = [_plain(weights.name(id_)) for id_ in everything]
                own = [name for id_, name in enumerate(names) if weights.is_user_defined(id_)]
                self._cuts = TextSplitter(names, own)
            return self._cuts

    def _is_faithful(self, ids: list[int], data: bytes) -> bool:
        """Whether the ids spell the text and do nothing else.

        llama.cpp merges pieces by their text alone, so a vocabulary with the pieces "<eo" and
        "s>" would give the control token <eos>, and one with "<0x" and "0A>" a line feed.
        """
        if not all(self.weights.is_text(id_) for id_ in set(ids)):
            return False
        return b"<0x" not in data or self.detokenize(ids) == data

    def _spelled(self, ids: list[int], data: bytes) -> list[int]:
        """The ids with every one that does not stand for its text replaced by those that do."""
        spelled: list[int] = []
        at = 0
        for id_ in ids:
            piece = self.piece(id_)
            if self.weights.is_text(id_) and data.startswith(piece, at):
                spelled.append(id_)
            else:
                piece = self.weights.name(id_)
                spelled += self._unmerged(piece)
            at += len(piece)
        return spelled

    def _unmerged(self, name: bytes) -> list[int]:
        """A token's name in the two pieces it was merged from, else letter by letter."""
        text = name.decode("utf-8", "replace")
        halves = [(text[:n].encode(), text[n:].encode()) for n in range(1, len(text))]
        for pair in halves:
            ids = [id_ for half in pair for id_ in self.weights.tokenize(half, special=False)]
            if len(ids) == 2 and all(self.weights.is_text(id_) for id_ in ids):
                return ids
        letters = [self.weights.tokenize(letter.encode(), special=False) for letter in text]
        return [id_ for letter in letters for id_ in letter]

    def detokenize(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids stand for; control tokens give nothing."""
        return b"".join(map(self.text, ids))

    def text(self, token: int) -> bytes:
        """What one token adds to an answer: its bytes; a control token adds nothing."""
        known = self._texts.get(token)
        if known is None:
            piece = self.piece(token)
            known = self._texts[token] = b"" if self.is_control(token) else piece
        return known

    def piece(self, token: int) -> bytes:
        """The bytes of one token; a control token gives its name."""
        known = self._pieces.get(token)
        if known is not None:
            return known
        if not 0 <= token < self.n_vocab:
            raise UsageError(f"token {token} is not in the vocabulary of {self.n_vocab}")
        with self._lock:
            return self._pieces.setdefault(token, self.weights.piece(token))

    def is_control(self, token: int) -> bool:
        """Whether the token steers the model instead of standing for text."""
        with self._lock:
            return self.weights.is_control(token)

    def _find_ends(self) -> frozenset[int]:
        """`<end_of_turn>` and what else llama.cpp takes for an end.

        It is asked about the tokens that the file marks as something else than text, or names in
        a key of their own: to ask about all 256,000 takes a tenth of a second.
        """
        kinds = gemma2.read_array(self.summary, gemma2.TOKEN_TYPES, file=self.file.open())
        marked = {id_ for id_, kind in enumerate(kinds) if kind not in _ORDINARY}
        for key, value in self.summary.keys.items():
            if gemma2.TOKEN_ID.fullmatch(key) and value in range(self.n_vocab):
                marked.add(value)
        return frozenset(filter(self.weights.is_end, marked)) | {self.end_of_turn}

    def _control(self, name: str) -> int:
        ids = self.weights.tokenize(name.encode(), special=True)
        if len(ids) != 1 or not self.weights.is_control(ids[0]):
            raise BadModelFile(
                f"{self.path}: {name} is not a control token of this file, so its turns cannot be "
                "told from text; convert the checkpoint again with edgesppo convert"
            )
        return ids[0]

    def _check_bos(self) -> None:
        if not 0 <= self.bos < self.n_vocab:
            raise BadModelFile(
                f"{self.path}: its <bos> is {self.bos}, expected a token below {self.n_vocab}; "
                "convert the checkpoint again with edgesppo convert"
            )


def gpu_layers(gpu: str | int) -> int:
    """Layers to offload, -1 for all: as asked, as far as build and device can. UsageError."""
    if isinstance(gpu, int) and not isinstance(gpu, bool) and 0 <= gpu <= _MAX_LAYERS:
        return gpu if can_offload() else 0
    if gpu == "off":
        return 0
    if gpu == "auto":
        return _ALL_LAYERS if can_offload() else 0
    raise validate.invalid_value("gpu", gpu, "'auto', 'off' or a number of layers")


def _plain(name: bytes) -> str:
    """A piece as it stands in texts."""
    return name.decode("utf-8", "replace").replace(_SPACE_MARK, " ")


def as_utf8(text: str | bytes) -> bytes:
    """The text as UTF-8, U+2581 as the space it stands for. Raises UsageError."""
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return decoded.replace(_SPACE_MARK, " ").encode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start : error.start + 1]
        raise UsageError(
            f"the text is not UTF-8: byte {byte!r} at position {error.start}; re-encode it"
        ) from None
    except UnicodeEncodeError as error:
        raise validate.surrogate_error("the text", error) from None
