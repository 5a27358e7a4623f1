"""Read a SentencePiece `tokenizer.model`: a small, bounded protobuf reader.

Reads the few fields that a conversion needs, by their numbers in sentencepiece_model.proto:

    ModelProto      1 pieces*  2 trainer_spec  3 normalizer_spec
    SentencePiece   1 piece    2 score (f32)   3 type
    TrainerSpec     3 model_type               24 treat_whitespace_as_suffix
    NormalizerSpec  2 charsmap 3 add_dummy_prefix  4 remove_extra_whitespaces  5 escape_whitespaces

Malformed data is refused, and so is a model whose text handling llama.cpp cannot reproduce.
"""

from __future__ import annotations

import math
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    Value = int | float | bytes

MAX_BYTES = 64 << 20
MAX_PIECES = 1 << 20
MAX_FIELDS = MAX_PIECES + 1024  # per message
MAX_PARTS = 64  # into which a trainer's or normaliser's message may be split
PIECES, TRAINER, NORMALIZER = 1, 2, 3  # fields
VARINT, F64, BYTES, F32 = 0, 1, 2, 5  # wire types
BPE = 2


class PieceType(IntEnum):
    """Types of pieces; GGUF's token types have the same numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_TYPES: dict[object, PieceType] = {int(kind): kind for kind in PieceType}
_SCORE = struct.Struct("<f")


class Piece(NamedTuple):
    """One piece of the vocabulary: its text, its score and its type."""

    text: str
    score: float
    type: PieceType


class _MalformedError(ValueError):
    """The bytes are not a protobuf message of the expected kind."""


def read_pieces(data: bytes, where: str) -> list[Piece]:
    """Read the vocabulary; `where` names the file. BadCheckpoint, UnsupportedCheckpoint."""
    parts: dict[int, list[bytes]] = {PIECES: [], TRAINER: [], NORMALIZER: []}
    try:
        for number, value in _fields(data):
            if number in parts and isinstance(value, bytes):
                parts[number].append(value)
            if len(parts[PIECES]) > MAX_PIECES:
                raise _MalformedError(f"it has more than {MAX_PIECES:,} pieces")
            if max(len(parts[TRAINER]), len(parts[NORMALIZER])) > MAX_PARTS:
                raise _MalformedError(f"it has a message in more than {MAX_PARTS} parts")
        if not parts[PIECES]:
            raise _MalformedError("it has no pieces")
        pieces = [_piece(part) for part in parts[PIECES]]
        # Protobuf allows a message to be split: it is the concatenation of its parts.
        trainer, normalizer = b"".join(parts[TRAINER]), b"".join(parts[NORMALIZER])
        _check_behaviour(where, dict(_fields(trainer)), dict(_fields(normalizer)))
    except _MalformedError as error:
        raise BadCheckpoint(f"{where} is not a valid SentencePiece model: {error}") from error
    return pieces


def _piece(data: bytes) -> Piece:
    fields = _usual_fields(data) or dict(_fields(data))
    text, score, kind = fields.get(1, b""), fields.get(2, 0.0), fields.get(3, 1)
    if not isinstance(text, bytes) or not isinstance(score, float) or kind not in _TYPES:
        raise _MalformedError(f"it has a malformed piece: {data[:40]!r}")
    if not math.isfinite(score):
        raise _MalformedError(
            f"the score of piece {text[:40]!r} is {score}, expected a finite number"
        )
    try:
        return Piece(text.decode("utf-8"), score, _TYPES[kind])
    except UnicodeDecodeError:
        raise _MalformedError(f"piece {text[:40]!r} is not UTF-8") from None


def _usual_fields(data: bytes) -> dict[int, Value] | None:
    """The fields of a piece as SentencePiece usually writes it; None if it is written otherwise.

    Takes a third of the time of `_fields`:

    | 0A | length | text | 15 | score: f32 | 18, type: or neither |
    """
    length = data[1] if len(data) > 1 else 0
    after = 2 + length
    remaining = len(data) - after - 5
    if remaining not in (0, 2) or length > 127 or data[0] != 0x0A or data[after] != 0x15:
        return None
    kind = 1
    if remaining:
        kind = data[-1]
        if data[-2] != 0x18 or kind > 127:
            return None
    score: float = _SCORE.unpack_from(data, after + 1)[0]
    return {1: data[2:after], 2: score, 3: kind}


def _check_behaviour(where: str, trainer: dict[int, Value], normalizer: dict[int, Value]) -> None:
    """Refuse a model whose text handling llama.cpp would silently do differently."""
    requirements = (
        (trainer.get(3, 1) == BPE, "is not a BPE model"),
        (not trainer.get(24, 0), "treats spaces as suffixes"),
        (not normalizer.get(2, b""), "rewrites text before splitting it"),
        (not normalizer.get(3, 1), "adds a space before the text"),
        (not normalizer.get(4, 1), "removes extra spaces"),
        (normalizer.get(5, 1), "does not mark spaces"),
    )
    for is_met, fault in requirements:
        if not is_met:
            raise UnsupportedCheckpoint(
                f"{where} {fault}; Gemma-2's tokeniser does not, and llama.cpp cannot do it"
            )


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Number and value of each field: int for a varint, float for 32 bits, bytes otherwise."""
    at, end = 0, len(data)
    for _ in range(MAX_FIELDS):
        if at == end:
            return
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        start, at = _span(data, at, wire)
        if at > end:
            raise _MalformedError(f"a field of {at - start:,} bytes is longer than its message")
        yield number, struct.unpack_from("<f", data, start)[0] if wire == F32 else data[start:at]
    raise _MalformedError(f"it has more than {MAX_FIELDS:,} fields")


def _span(data: bytes, at: int, wire: int) -> tuple[int, int]:
    """Where the value of a field begins and ends in `data`."""
    if wire == BYTES:
        length, at = _varint(data, at)
        return at, at + length
    if wire in (F32, F64):
        return at, at + (4 if wire == F32 else 8)
    raise _MalformedError(f"unknown wire type {wire} before byte {at:,}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Decode a varint: 7 bits a byte, lowest first, the high bit set on all but the last byte."""
    if at < len(data) and data[at] < 0x80:  # most of them
        return data[at], at + 1
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _MalformedError("it ends in the middle of a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _MalformedError(f"a number of more than ten bytes before byte {at:,}")
