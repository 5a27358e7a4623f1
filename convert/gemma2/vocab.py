"""Owns the vocabulary: SentencePiece pieces and added tokens -> GGUF's tokens, scores and types.

The types decide what llama.cpp does with a token in text: CONTROL is matched only where special
tokens are asked for, USER_DEFINED always and before any merging (as SentencePiece does with its
own), NORMAL by merging. Knows nothing of tensors.
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
# Gemma's own control tokens. Some checkpoints mark them special, some do not, some list none.
CONTROL_TEXTS = frozenset(
    ("<pad>", "<eos>", BOS, "<mask>", "<2mass>", "[@BOS@]", "<start_of_turn>", END_OF_TURN)
)
ADDED_SCORE = -1000.0  # as llama.cpp's converter scores added tokens and padding
PAD_SCORE = -10000.0
MAX_TEMPLATE = 1 << 20


@dataclass(frozen=True)
class Vocabulary:
    """Every token by id, the ids with a duty, and the chat template."""

    tokens: list[Piece]
    duties: dict[str, int]  # GGUF key -> id
    template: str | None
    laid: dict[int, bool]  # id of every added token -> whether it is called special


def read_vocabulary(checkpoint: Checkpoint, size: int) -> Vocabulary:
    """The vocabulary of a checkpoint whose embedding has `size` rows."""
    where = checkpoint.place(TOKENIZER)
    pieces = read_pieces(checkpoint.required(TOKENIZER, MAX_BYTES), where)
    if len(pieces) > size:
        raise BadCheckpoint(
            f"{where} has {len(pieces):,} pieces, but the config's vocab_size is {size:,}"
        )
    tokens = [_retyped(piece) for piece in pieces]
    tokens += [_padding(index) for index in range(len(pieces), size)]
    config = checkpoint.json("tokenizer_config.json")
    laid = _lay_added(tokens, checkpoint.json("added_tokens.json"), config)
    duties = _duties(tokens, _index(tokens, where), checkpoint.config)
    return Vocabulary(tokens, duties, _read_template(checkpoint, config), laid)


def _retyped(piece: Piece) -> Piece:
    """A piece of the model as a token, before anything is known of added tokens."""
    plain = piece.type in (PieceType.NORMAL, PieceType.USER_DEFINED)
    if plain and looks_control(piece.text):
        return Piece(piece.text, ADDED_SCORE, PieceType.CONTROL)
    if piece.type is PieceType.USER_DEFINED:
        return Piece(_as_written(piece.text), ADDED_SCORE, PieceType.USER_DEFINED)
    return piece


def _padding(index: int) -> Piece:
    """An embedding row that no piece uses."""
    return Piece(f"[PAD{index}]", PAD_SCORE, PieceType.UNUSED)


def looks_control(text: str) -> bool:
    """Whether a text is one of Gemma's control tokens, used or not."""
    return text in CONTROL_TEXTS or (text.startswith("<unused") and text.endswith(">"))


def _as_written(text: str) -> str:
    """A user-defined piece is matched in the text itself, where a space is a space."""
    return text.replace("\u2581", " ")


def _lay_added(
    tokens: list[Piece], added: JsonObject | None, config: JsonObject | None
) -> dict[int, bool]:
    """Lay the added tokens of both files over the pieces; their ids, and which are special."""
    laid: dict[int, bool] = {}
    if added is not None:
        for text in added:
            index = added.integer(text, 0, len(tokens) - 1)
            _place(tokens, index, text, special=False)
            laid[index] = False
    if config is None or config.raw("added_tokens_decoder") is None:
        return laid
    decoder = config.object("added_tokens_decoder")
    for key in decoder:
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < len(tokens)):
            raise BadCheckpoint(f"{decoder.where}: {show(key)} is no id below {len(tokens):,}")
        entry = decoder.object(key)
        laid[int(key)] = entry.flag("special", False)
        _place(tokens, int(key), entry.text("content"), special=laid[int(key)])
    return laid


def _place(tokens: list[Piece], index: int, text: str, *, special: bool) -> None:
    kind = tokens[index].type
    if kind in (PieceType.UNKNOWN, PieceType.BYTE):
        return  # SentencePiece's own duty weighs more than a list of added tokens
    if special or kind is PieceType.CONTROL or looks_control(text):
        tokens[index] = Piece(text, ADDED_SCORE, PieceType.CONTROL)
    else:
        tokens[index] = Piece(_as_written(text), ADDED_SCORE, PieceType.USER_DEFINED)


def _index(tokens: list[Piece], where: str) -> dict[str, int]:
    """Text -> id; refuses what llama.cpp would answer by ending the process."""
    ids: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if not token.text or "\0" in token.text or not is_text(token.text):
            raise BadCheckpoint(f"token {index} of {where} is {show(token.text)}: not a text")
        if ids.setdefault(token.text, index) != index:
            raise BadCheckpoint(
                f"tokens {ids[token.text]} and {index} of {where} are both {show(token.text)}"
            )
    for byte in range(256):
        text = f"<0x{byte:02X}>"
        if text not in ids or tokens[ids[text]].type is not PieceType.BYTE:
            raise BadCheckpoint(f"{where} lacks the byte piece {text}; Gemma's model has all 256")
    return ids


def _duties(tokens: list[Piece], ids: dict[str, int], config: JsonObject) -> dict[str, int]:
    """The ids of the tokens with a duty; all but `<unk>` must be control tokens."""
    duties = {
        Keys.Tokenizer.BOS_ID: _configured(config, "bos_token_id", len(tokens), ids.get(BOS)),
        Keys.Tokenizer.EOS_ID: _configured(config, "eos_token_id", len(tokens), ids.get("<eos>")),
        Keys.Tokenizer.PAD_ID: _configured(config, "pad_token_id", len(tokens), ids.get("<pad>")),
    }
    if END_OF_TURN in ids:
        duties[Keys.Tokenizer.EOT_ID] = ids[END_OF_TURN]
    for key, index in duties.items():
        if tokens[index].type is not PieceType.CONTROL:
            raise BadCheckpoint(
                f"token {index}, {show(tokens[index].text)}, should serve as {key}, but is of type"
                f" {tokens[index].type.name}, not CONTROL"
            )
    if tokens[duties[Keys.Tokenizer.BOS_ID]].text != BOS:
        config.refuse("bos_token_id", f"the id of {BOS}, {ids.get(BOS)}")
    unknown = [index for index, token in enumerate(tokens) if token.type is PieceType.UNKNOWN]
    if len(unknown) != 1:
        raise BadCheckpoint(f"{TOKENIZER} has {len(unknown)} unknown pieces; expected one")
    return {**duties, Keys.Tokenizer.UNK_ID: unknown[0]}


def _configured(config: JsonObject, key: str, size: int, otherwise: int | None) -> int:
    """The id that the config gives; of a list (all that end a text) the first."""
    value = config.raw(key)
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None:
        value = otherwise
    if type(value) is not int or not 0 <= value < size:
        config.refuse(key, f"a token id below {size:,}")
    return value


def _read_template(checkpoint: Checkpoint, config: JsonObject | None) -> str | None:
    """The chat template: its own file first, as transformers has it, then the config's."""
    data = checkpoint.small(TEMPLATE, MAX_TEMPLATE)
    if data is not None:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise BadCheckpoint(f"{checkpoint.place(TEMPLATE)} is not UTF-8") from None
    for holder in (config, checkpoint.json("chat_template.json")):
        if holder is not None and holder.raw("chat_template") is not None:
            return _default_template(holder)
    return None


def _default_template(holder: JsonObject) -> str:
    """One template, or of a list of named ones the one named `default`."""
    templates = holder.raw("chat_template")
    if isinstance(templates, list):
        for entry in templates:
            if isinstance(entry, dict) and entry.get("name") == "default":
                return JsonObject(holder.where, entry).text("template")
        holder.refuse("chat_template", "one text, or a list with a template named 'default'")
    return holder.text("chat_template")
