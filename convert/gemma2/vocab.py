"""Build the vocabulary: SentencePiece pieces and added tokens -> GGUF tokens, scores and types.

The type decides how llama.cpp finds a token in text: CONTROL only where special tokens are to be
parsed; USER_DEFINED always, before any merging (as SentencePiece does); NORMAL by merging.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gguf import Keys

from edgesppo.errors import BadCheckpoint
from edgesppo_convert.gemma2.sentencepiece import MAX_BYTES, Piece, PieceType, read_pieces
from edgesppo_convert.source.json_reader import JsonObject, is_text, show

if TYPE_CHECKING:
    from edgesppo_convert.source.checkpoint import Checkpoint

TOKENIZER = "tokenizer.model"
TEMPLATE = "chat_template.jinja"
BOS, END_OF_TURN = "<bos>", "<end_of_turn>"
# Gemma's control tokens. Some checkpoints mark them as special, some do not, some list none.
CONTROL_TEXTS = frozenset(
    ("<pad>", "<eos>", BOS, "<mask>", "<2mass>", "[@BOS@]", "<start_of_turn>", END_OF_TURN)
)
BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
# The scores that llama.cpp's converter gives to added tokens and to padding.
ADDED_SCORE = -1000.0
PAD_SCORE = -10000.0
MAX_TEMPLATE = 1 << 20


@dataclass(frozen=True)
class Vocabulary:
    """Every token by id, the ids of the special tokens, and the chat template."""

    tokens: list[Piece]
    special_ids: dict[str, int]  # GGUF key -> id
    template: str | None
    added: dict[int, bool]  # id of each added token -> whether the checkpoint calls it special


def read_vocabulary(checkpoint: Checkpoint, size: int) -> Vocabulary:
    """Read the vocabulary of a checkpoint whose embedding has `size` rows."""
    where = checkpoint.display_name(TOKENIZER)
    pieces = read_pieces(checkpoint.read_required(TOKENIZER, MAX_BYTES), where)
    if len(pieces) > size:
        raise BadCheckpoint(
            f"{where} has {len(pieces):,} pieces; expected at most the config's vocab_size,"
            f" {size:,}"
        )
    tokens = [_token_of(piece) for piece in pieces]
    tokens += [_padding(index) for index in range(len(pieces), size)]
    config = checkpoint.read_json("tokenizer_config.json")
    added_ids = _apply_added_tokens(tokens, checkpoint.read_json("added_tokens.json"), config)
    special_ids = _special_ids(tokens, _index_by_text(tokens, where), checkpoint.config)
    return Vocabulary(tokens, special_ids, _read_template(checkpoint, config), added_ids)


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


def _apply_added_tokens(
    tokens: list[Piece], added: JsonObject | None, config: JsonObject | None
) -> dict[int, bool]:
    """Replace tokens by the added ones of both files; their ids, and which are special."""
    added_ids: dict[int, bool] = {}
    if added is not None:
        for text in added:
            index = added.integer(text, 0, len(tokens) - 1)
            _apply_added(tokens, index, text, special=False)
            added_ids[index] = False
    if config is None or config.raw("added_tokens_decoder") is None:
        return added_ids
    decoder = config.object("added_tokens_decoder")
    for key in decoder:
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < len(tokens)):
            raise BadCheckpoint(
                f"{decoder.where}: {show(key)} is not a token id; expected 0 to {len(tokens) - 1:,}"
            )
        entry = decoder.object(key)
        added_ids[int(key)] = entry.flag("special", False)
        _apply_added(tokens, int(key), entry.text("content"), special=added_ids[int(key)])
    return added_ids


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
    missing = set(BYTES)
    for index, token in enumerate(tokens):
        if token.type is PieceType.BYTE:
            if token.text not in BYTES:
                raise BadCheckpoint(
                    f"token {index} of {where}, {show(token.text)}, has the type BYTE; expected"
                    " that only of <0x00> to <0xFF>"
                )
            missing.discard(token.text)
    if missing:
        raise BadCheckpoint(f"{where} has no byte piece {min(missing)}; Gemma's model has all 256")
    return ids


def _special_ids(tokens: list[Piece], ids: dict[str, int], config: JsonObject) -> dict[str, int]:
    """The ids of the special tokens, by GGUF key; all but `<unk>` must be control tokens."""
    special_ids = {
        Keys.Tokenizer.BOS_ID: _token_id(config, "bos_token_id", len(tokens), ids.get(BOS)),
        Keys.Tokenizer.EOS_ID: _token_id(config, "eos_token_id", len(tokens), ids.get("<eos>")),
        Keys.Tokenizer.PAD_ID: _token_id(config, "pad_token_id", len(tokens), ids.get("<pad>")),
    }
    if END_OF_TURN in ids:
        special_ids[Keys.Tokenizer.EOT_ID] = ids[END_OF_TURN]
    for key, index in special_ids.items():
        if tokens[index].type is not PieceType.CONTROL:
            raise BadCheckpoint(
                f"token {index}, {show(tokens[index].text)}, is the {key}, but has the type"
                f" {tokens[index].type.name}; expected CONTROL"
            )
    if tokens[special_ids[Keys.Tokenizer.BOS_ID]].text != BOS:
        config.refuse("bos_token_id", f"the id of {BOS}, {ids.get(BOS)}")
    unknown = [index for index, token in enumerate(tokens) if token.type is PieceType.UNKNOWN]
    if len(unknown) != 1:
        raise BadCheckpoint(f"{TOKENIZER} has {len(unknown)} pieces of type UNKNOWN; expected one")
    return {**special_ids, Keys.Tokenizer.UNK_ID: unknown[0]}


def _token_id(config: JsonObject, key: str, size: int, default: int | None) -> int:
    """The token id at `key` of the config; of a list (several ends of a text), the first."""
    value = config.raw(key)
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None:
        value = default
    if type(value) is not int or not 0 <= value < size:
        config.refuse(key, f"a token id below {size:,}")
    return value


def _read_template(checkpoint: Checkpoint, config: JsonObject | None) -> str | None:
    """The chat template: from its own file first, as in transformers, then from the config."""
    data = checkpoint.read_small(TEMPLATE, MAX_TEMPLATE)
    if data is not None:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise BadCheckpoint(f"{checkpoint.display_name(TEMPLATE)} is not UTF-8") from None
    for holder in (config, checkpoint.read_json("chat_template.json")):
        if holder is not None and holder.raw("chat_template") is not None:
            return _default_template(holder)
    return None


def _default_template(holder: JsonObject) -> str:
    """The template, or of a list of named templates the one named `default`."""
    templates = holder.raw("chat_template")
    if isinstance(templates, list):
        for entry in templates:
            if isinstance(entry, dict) and entry.get("name") == "default":
                return JsonObject(holder.where, entry).text("template")
        holder.refuse("chat_template", "a string, or a list with a template named 'default'")
    return holder.text("chat_template")
