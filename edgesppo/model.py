"""Owns `Model`: the weights and vocabulary of one GGUF file; tokens <-> bytes.

Knows nothing of sequences, sampling or chats.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo import preflight
from edgesppo._llama import Weights, can_offload
from edgesppo.errors import BadModelFile, Closed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgesppo.preflight import Summary

_ALL_LAYERS = -1
# SentencePiece writes a space as U+2581 and treats the two alike in its input.
_SPACE_MARK = "▁"


class Model:
    """A Gemma-2 model file, loaded. Close it after the engines that use it.

    Raises ModelNotFound or BadModelFile when `path` is not a whole Gemma-2 GGUF. `gpu` is "auto"
    (all layers, where the build and the device can), "off", or a number of layers.
    `vocabulary_only` loads no weights: enough to tokenise. `summary` saves a second preflight.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        gpu: str | int = "auto",
        vocabulary_only: bool = False,
        summary: Summary | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.summary = summary or preflight.check(self.path)
        self.n_gpu_layers = _gpu_layers(gpu)
        self._weights: Weights | None = Weights(
            self.path,
            n_gpu_layers=self.n_gpu_layers,
            vocabulary_only=vocabulary_only,
            progress=progress,
        )
        self.bos = self.weights.bos
        self.n_vocab = self.weights.n_vocab
        try:
            self.start_of_turn = self._control("<start_of_turn>")
            self.end_of_turn = self._control("<end_of_turn>")
            self._check_bos()
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
    def name(self) -> str:
        """The model's own name, else its file's."""
        return str(self.summary.keys.get("general.name") or self.path.stem)

    @property
    def n_ctx_train(self) -> int:
        """The number of tokens that the model was trained to see at once."""
        return self.weights.n_ctx_train

    def close(self) -> None:
        """Free the weights; harmless when repeated."""
        weights, self._weights = self._weights, None
        self.piece.cache_clear()
        if weights is not None:
            weights.close()

    def tokenize(self, text: str | bytes) -> list[int]:
        """Token ids of plain text, the same as SentencePiece's. Never a control token's id.

        Text that looks like a control token is spelled in ordinary pieces. Raises UsageError for
        bytes that are not UTF-8 and for lone surrogates.
        """
        data = _as_utf8(text)
        ids = self.weights.tokenize(data, special=False)
        if self._is_faithful(ids, data):
            return ids
        letters = [letter.encode() for letter in data.decode("utf-8")]
        return [id_ for letter in letters for id_ in self.weights.tokenize(letter, special=False)]

    def _is_faithful(self, ids: list[int], data: bytes) -> bool:
        """Whether the ids spell the text and do nothing else.

        llama.cpp merges pieces by their text alone, so a vocabulary with the pieces "<eo" and
        "s>" would give the control token <eos>, and one with "<0x" and "0A>" a line feed.
        """
        if any(self.is_control(id_) for id_ in set(ids)):
            return False
        return b"<0x" not in data or self.detokenize(ids) == data

    def detokenize(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids stand for; control tokens give nothing."""
        return b"".join(self.piece(id_) for id_ in ids if not self.is_control(id_))

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - cleared by close()
    def piece(self, token: int) -> bytes:
        """The bytes of one token; a control token gives its name."""
        if not 0 <= token < self.n_vocab:
            raise UsageError(f"token {token} is not in the vocabulary of {self.n_vocab}")
        return self.weights.piece(token)

    def is_control(self, token: int) -> bool:
        """Whether the token steers the model instead of standing for text."""
        return self.weights.is_control(token)

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer: `<eos>` or `<end_of_turn>`."""
        return token == self.end_of_turn or self.weights.is_end(token)

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


def _gpu_layers(gpu: str | int) -> int:
    if isinstance(gpu, int) and not isinstance(gpu, bool) and gpu >= 0:
        return gpu
    if gpu == "off":
        return 0
    if gpu == "auto":
        return _ALL_LAYERS if can_offload() else 0
    raise UsageError(f"gpu is {gpu!r}, expected 'auto', 'off' or a number of layers")


def _as_utf8(text: str | bytes) -> bytes:
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return decoded.replace(_SPACE_MARK, " ").encode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start : error.start + 1]
        raise UsageError(
            f"the text is not UTF-8: byte {byte!r} at position {error.start}; re-encode it"
        ) from None
    except UnicodeEncodeError as error:
        letter = error.object[error.start]
        raise UsageError(
            f"the text has a lone surrogate, U+{ord(letter):04X}, at position {error.start}; "
            "it stands for no character"
        ) from None
