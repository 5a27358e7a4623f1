"""Text <-> token ids, under the vocabulary of one GGUF file.

llama.cpp's tokenizer gives SentencePiece's ids, with two exceptions that are put right here:

- It merges pieces by their text alone, so a vocabulary with the pieces "<eo" and "s>" turns the
  text "<eos>" into a control token, and one with "<0x" and "0A>" gives a line feed. Such tokens
  are replaced by the pieces that spell the text.
- Its time grows with the square of a text's length, so long texts are tokenised in parts, which
  `TextSplitter` cuts where that changes no token.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgesppo.errors import Closed, UsageError
from edgesppo.llama import fork
from edgesppo.llama.fork import closed_by_fork
from edgesppo.llama.text_splitter import TextSplitter
from edgesppo.system import validate

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgesppo.llama.weights import Weights

# Texts of more bytes are tokenised in parts of about this many characters.
_LONG, _PART = 8192, 512
# SentencePiece writes a space as U+2581 and treats the two alike in its input.
_SPACE_MARK = "▁"


class Tokenizer:
    """Turns text into token ids and back. Safe to use from several threads.

    `path` is the model file, for error messages. All methods that need the vocabulary raise Closed
    after `close()`.
    """

    def __init__(self, weights: Weights, path: Path) -> None:
        self.n_vocab = weights.n_vocab
        self._path = path
        self._open_weights: Weights | None = weights
        # Native code must not be inside the vocabulary while another thread frees it.
        self._lock = threading.RLock()
        self._parent: int | None = None  # the process that loaded the model, in a child of it
        fork.track(self)
        self._pieces: dict[int, bytes] = {}
        self._texts: dict[int, bytes] = {}
        self._known_splitter: TextSplitter | None = None

    def close(self) -> None:
        """Let go of the weights, once no thread is using them; they are not freed here."""
        with self._lock:
            self._open_weights = None

    def after_fork(self, parent: int) -> None:
        """Let go of the weights: a thread that no longer exists may hold the lock."""
        self._open_weights, self._parent, self._lock = None, parent, threading.RLock()

    def tokenize(self, text: str | bytes, *, enough: int | None = None) -> list[int]:
        """The token ids of plain text, equal to SentencePiece's; never a control token's id.

        Text that looks like a control token is spelled in ordinary pieces. The rest of a long text
        may be left out once there are `enough` ids. Raises UsageError for bytes that are not UTF-8
        and for lone surrogates.
        """
        data = as_utf8(text)
        if len(data) <= _LONG:
            return self._tokenize(data)
        ids: list[int] = []
        for part in self._splitter().parts(data.decode("utf-8"), _PART):
            ids += self._tokenize(part.encode("utf-8"))
            if enough is not None and len(ids) >= enough:
                break
        return ids

    def fewest_tokens(self, text: str) -> int:
        """A lower bound for a long text's number of tokens, from its length; 0 for a short one."""
        return -(-len(text) // self._splitter().longest) if len(text) > _LONG else 0

    def detokenize(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids stand for, without control tokens."""
        return b"".join(map(self.text, ids))

    def text(self, token: int) -> bytes:
        """The bytes that one token adds to an answer; a control token adds none."""
        known = self._texts.get(token)
        if known is None:
            piece = self.piece(token)
            known = self._texts[token] = b"" if self.is_control(token) else piece
        return known

    def piece(self, token: int) -> bytes:
        """The bytes of one token; a control token gives its name.

        Raises UsageError for an id outside the vocabulary.
        """
        known = self._pieces.get(token)
        if known is not None:
            return known
        if not 0 <= token < self.n_vocab:
            raise UsageError(f"token {token} is not in the vocabulary of {self.n_vocab}")
        with self._lock:
            return self._pieces.setdefault(token, self._weights.piece(token))

    def is_control(self, token: int) -> bool:
        """Whether the token steers the model instead of standing for text."""
        with self._lock:
            return self._weights.is_control(token)

    @property
    def _weights(self) -> Weights:
        if self._open_weights is None:
            raise model_closed(self._path) if self._parent is None else closed_by_fork(self._parent)
        return self._open_weights

    def _tokenize(self, data: bytes) -> list[int]:
        with self._lock:
            ids = self._weights.tokenize(data, special=False)
            return ids if self._is_faithful(ids, data) else self._respell(ids, data)

    def _splitter(self) -> TextSplitter:
        """The splitter of long texts, built for the first of them."""
        with self._lock:
            if self._known_splitter is None:
                weights, everything = self._weights, range(self.n_vocab)
                names = [_plain(weights.name(id_)) for id_ in everything]
                own = [name for id_, name in enumerate(names) if weights.is_user_defined(id_)]
                self._known_splitter = TextSplitter(names, own)
            return self._known_splitter

    def _is_faithful(self, ids: list[int], data: bytes) -> bool:
        """Whether the ids spell the text and do nothing else."""
        if not all(self._weights.is_text(id_) for id_ in set(ids)):
            return False
        return b"<0x" not in data or self.detokenize(ids) == data

    def _respell(self, ids: list[int], data: bytes) -> list[int]:
        """The ids, with every token that does not stand for its text replaced by ones that do."""
        spelled: list[int] = []
        at = 0
        for id_ in ids:
            piece = self.piece(id_)
            if self._weights.is_text(id_) and data.startswith(piece, at):
                spelled.append(id_)
            else:
                piece = self._weights.name(id_)
                spelled += self._unmerge(piece)
            at += len(piece)
        return spelled

    def _unmerge(self, name: bytes) -> list[int]:
        """A token's name in as few text tokens as two halves of it give, else letter by letter.

        The halves that it was merged from, if it was, are one token each.
        """
        text = name.decode("utf-8", "replace")
        best: list[int] = []
        for n in range(1, len(text)):
            halves = (text[:n].encode(), text[n:].encode())
            ids = [id_ for half in halves for id_ in self._weights.tokenize(half, special=False)]
            if all(map(self._weights.is_text, ids)) and not 0 < len(best) <= len(ids):
                best = ids
        letters = [self._weights.tokenize(letter.encode(), special=False) for letter in text]
        return best or [id_ for letter in letters for id_ in letter]


def model_closed(path: Path) -> Closed:
    """The error for using a model after `close()`, to be raised."""
    return Closed(f"the model {path} was closed; load it again")


def as_utf8(text: str | bytes) -> bytes:
    """The text as UTF-8, with U+2581 as the space it stands for.

    Raises UsageError for bytes that are not UTF-8 and for lone surrogates.
    """
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


def _plain(name: bytes) -> str:
    """A token's name as it reads in texts."""
    return name.decode("utf-8", "replace").replace(_SPACE_MARK, " ")
