"""Build the vocabulary: pieces and added tokens -> GGUF tokens, scores and types.

The pieces are those of tokenizer.json where there is one, else of SentencePiece's tokenizer.model.

The type decides how llama.cpp finds a token in text: CONTROL only where special tokens are to be
parsed; USER_DEFINED always, before any merging (as SentencePiece does); NORMAL by merging.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint
from edgesppo.gguf.gemma2 import BYTE_TOKENS
from edgesppo.system import notices
from edgesppo_convert.gemma2.added_tokens import read_added
from edgesppo_convert.gemma2.chat_template import read_template
from edgesppo_convert.gemma2.sentencepiece import MAX_BYTES, Piece, PieceType, read_pieces
from edgesppo_convert.gemma2.special_ids import BOS, END_OF_TURN, PAD, special_ids
from edgesppo_convert.gemma2.tokenizer_json import (
    TOKENIZER_JSON,
    AddedToken,
    TokenizerJson,
    read_tokenizer_json,
)
from edgesppo_convert.source.json_reader import check_content, is_text, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgesppo_convert.source.checkpoint import Checkpoint
    from edgesppo_convert.source.small_files import SmallFiles

TOKENIZER = "tokenizer.model"
TOKENIZERS = (TOKENIZER, TOKENIZER_JSON)  # the files of which one is needed
TOKENIZER_CONFIG = "tokenizer_config.json"
# Gemma's control tokens. Some checkpoints mark them as special, some do not, some list none.
CONTROL_TEXTS = frozenset(
    (PAD, "<eos>", BOS, "<mask>", "<2mass>", "[@BOS@]", "<start_of_turn>", END_OF_TURN)
)
# The scores that llama.cpp's converter gives to added tokens and to padding.
ADDED_SCORE = -1000.0
PAD_SCORE = -10000.0


@dataclass(frozen=True)
class Vocabulary:
    """Every token by id, the ids of the special tokens, and the chat template."""

    tokens: list[Piece]
    special_ids: dict[str, int]  # GGUF key -> id
    template: str | None
    added: dict[int, bool]  # id of each added token -> whether the checkpoint calls it special


def read_vocabulary(
    checkpoint: Checkpoint, size: int, holder: SmallFiles | None = None
) -> Vocabulary:
    """Read the vocabulary of a checkpoint whose embedding has `size` rows.

    `holder` is the folder of the tokenizer's files, by default the checkpoint's own.

    Where there is a tokenizer.json, names and types are its own; a notice says so where another
    file disagrees, and which tokens are left out because they have no row.
    """
    holder = holder or checkpoint
    model, spec = _read_model(holder), read_tokenizer_json(holder)
    where = holder.display_name(TOKENIZER) if spec is None else spec.where
    config = holder.read_json(TOKENIZER_CONFIG)
    others = read_added(holder.read_json("added_tokens.json"), config, size)
    if spec is None:
        if model is None:
            raise _no_tokenizer(checkpoint)
        added, tokens = others, _assemble(model, others)
    else:
        added = {**_undisputed(others, spec), **spec.added}
        tokens = _assemble(spec.pieces(model), added)
        if model is not None:
            _note_differences(spec.where, tokens, _assemble(model, others), range(len(tokens)))
        elif others:
            _note_differences(spec.where, tokens, _assemble(tokens, others), others)
    _note_left_out(tokens[size:], size)
    tokens = [*tokens[:size], *map(_padding, range(len(tokens), size))]
    ids = special_ids(tokens, _index_by_text(tokens, where), checkpoint.config)
    kept = {index: token.special for index, token in added.items() if index < size}
    template = read_template(holder, config)
    if template is None and holder is not checkpoint:
        template = read_template(checkpoint, checkpoint.read_json(TOKENIZER_CONFIG))
    return Vocabulary(tokens, ids, template, kept)


def _read_model(holder: SmallFiles) -> list[Piece] | None:
    data, where = holder.read_small(TOKENIZER, MAX_BYTES), holder.display_name(TOKENIZER)
    if data is None:
        return None
    check_content(data, where)
    return read_pieces(data, where)


def _no_tokenizer(checkpoint: Checkpoint) -> BadCheckpoint:
    return BadCheckpoint(
        f"{checkpoint.where} has no {TOKENIZER} and no {TOKENIZER_JSON}; copy either of them into"
        " it from the model that this one was made from, such as google/gemma-2-9b-it"
    )


def _assemble(pieces: Sequence[Piece | None], added: Mapping[int, AddedToken]) -> list[Piece]:
    """The token of each id: the piece, or what was added in its place; padding for none."""
    count = max(len(pieces), max(added, default=-1) + 1)
    tokens = [
        _padding(index) if piece is None else _token_of(piece)
        for index, piece in enumerate((*pieces, *[None] * (count - len(pieces))))
    ]
    for index, token in added.items():
        _apply_added(tokens, index, token.text, special=token.special)
    return tokens


def _undisputed(others: Mapping[int, AddedToken], spec: TokenizerJson) -> dict[int, AddedToken]:
    """The tokens that another file added, without those that the tokenizer.json contradicts."""
    texts = {**spec.names, **{index: token.text for index, token in spec.added.items()}}
    taken = set(texts.values())
    return {
        index: token
        for index, token in others.items()
        if texts.get(index) == token.text or (index not in texts and token.text not in taken)
    }


def _note_differences(
    where: str, tokens: Sequence[Piece], others: Sequence[Piece], ids: Iterable[int]
) -> None:
    """Say where the tokenizer.json and the other files disagree about the name or the type."""
    differing = [
        index
        for index in ids
        if index < len(tokens)
        and (index >= len(others) or tokens[index][::2] != others[index][::2])
    ]
    if not differing:
        return
    first = differing[0]
    theirs = f"{show(others[first].text)}" if first < len(others) else "no token"
    count = f"{len(differing):,} tokens" if len(differing) > 1 else "a token"
    notices.notify(
        f"{where} and the other tokenizer files disagree about {count}: {first} is"
        f" {show(tokens[first].text)} ({tokens[first].type.name.lower()}) there, {theirs} in the"
        f" others; {TOKENIZER_JSON} is used"
    )


def _note_left_out(tokens: Sequence[Piece], size: int) -> None:
    """Say which tokens have no row in the embedding, so that the model cannot know them."""
    left_out = [token.text for token in tokens if token.type is not PieceType.UNUSED]
    if not left_out:
        return
    names = ", ".join(show(text, 40) for text in left_out[:3])
    more = f" and {len(left_out) - 3:,} more" if len(left_out) > 3 else ""
    notices.notify(
        f"tokens left out, because the embedding has only {size:,} rows: {names}{more}, from id"
        f" {size:,} on"
    )


def _token_of(piece: Piece) -> Piece:
    """The token for a piece of the model, before the added tokens are applied."""
    plain = piece.type in (PieceType.NORMAL, PieceType.USER_DEFINED)
    if plain and is_control_text(piece.text):
        return Piece(piece.text, ADDED_SCORE, PieceType.CONTROL)
    if piece.type is PieceType.USER_DEFINED:
        return Piece(_with_spaces(piece.text), ADDED_SCORE, PieceType.USER_DEFINED)
    return piece


def _padding(index: int) -> Piece:
    """The token for an embedding row that no piece uses."""
    return Piece(f"[PAD{index}]", PAD_SCORE, PieceType.UNUSED)


def is_control_text(text: str) -> bool:
    """Whether a text is one of Gemma's control tokens, `<unused...>` ones included."""
    return text in CONTROL_TEXTS or (text.startswith("<unused") and text.endswith(">"))


def _with_spaces(text: str) -> str:
    """The text as it appears in a prompt, where user-defined tokens are matched: spaces for ▁."""
    return text.replace("\u2581", " ")


def _apply_added(tokens: list[Piece], index: int, text: str, *, special: bool) -> None:
    kind = tokens[index].type
    if kind in (PieceType.UNKNOWN, PieceType.BYTE):
        return  # SentencePiece needs these; a list of added tokens must not change them
    if special or kind is PieceType.CONTROL or is_control_text(text):
        tokens[index] = Piece(text, ADDED_SCORE, PieceType.CONTROL)
    else:
        tokens[index] = Piece(_with_spaces(text), ADDED_SCORE, PieceType.USER_DEFINED)


def _index_by_text(tokens: list[Piece], where: str) -> dict[str, int]:
    """Text -> id of every token; refuses vocabularies at which llama.cpp would abort."""
    ids: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if not token.text or "\0" in token.text or not is_text(token.text):
            raise BadCheckpoint(
                f"token {index} of {where} is {show(token.text)}; expected a text, not empty"
                " and without NUL"
            )
        if ids.setdefault(token.text, index) != index:
            raise BadCheckpoint(
                f"tokens {ids[token.text]} and {index} of {where} are both {show(token.text)}"
            )
    missing = set(BYTE_TOKENS)
    for index, token in enumerate(tokens):
        if token.type is PieceType.BYTE:
            if token.text not in BYTE_TOKENS:
                raise BadCheckpoint(
                    f"token {index} of {where}, {show(token.text)}, has the type BYTE; expected"
                    " that only of <0x00> to <0xFF>"
                )
            missing.discard(token.text)
    if missing:
        raise BadCheckpoint(f"{where} has no byte piece {min(missing)}; Gemma's model has all 256")
    return ids
