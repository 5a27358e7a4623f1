"""The ids of the special tokens: begin and end of a text, end of a turn, padding, unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gguf import Keys

from edgesppo.errors import BadCheckpoint
from edgesppo.system import notices
from edgesppo_convert.gemma2.sentencepiece import Piece, PieceType
from edgesppo_convert.source.json_reader import JsonObject, show

if TYPE_CHECKING:
    from collections.abc import Sequence

PAD_KEY = "pad_token_id"
BOS, PAD, END_OF_TURN = "<bos>", "<pad>", "<end_of_turn>"


def special_ids(tokens: list[Piece], ids: dict[str, int], config: JsonObject) -> dict[str, int]:
    """The ids of the special tokens, by GGUF key; all but `<unk>` must be control tokens."""
    found = {
        Keys.Tokenizer.BOS_ID: _token_id(config, "bos_token_id", len(tokens), ids.get(BOS)),
        Keys.Tokenizer.EOS_ID: _token_id(config, "eos_token_id", len(tokens), ids.get("<eos>")),
        Keys.Tokenizer.PAD_ID: _pad_id(config, tokens, ids.get(PAD)),
    }
    if END_OF_TURN in ids:
        found[Keys.Tokenizer.EOT_ID] = ids[END_OF_TURN]
    for key, index in found.items():
        if tokens[index].type is not PieceType.CONTROL:
            raise BadCheckpoint(
                f"token {index}, {show(tokens[index].text)}, is the {key}, but has the type"
                f" {tokens[index].type.name}; expected CONTROL"
            )
    if tokens[found[Keys.Tokenizer.BOS_ID]].text != BOS:
        config.refuse("bos_token_id", f"the id of {BOS}, {ids.get(BOS)}")
    unknown = [index for index, token in enumerate(tokens) if token.type is PieceType.UNKNOWN]
    if len(unknown) != 1:
        raise BadCheckpoint(
            f"the tokenizer has {len(unknown)} pieces of type UNKNOWN; expected one"
        )
    return {**found, Keys.Tokenizer.UNK_ID: unknown[0]}


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


def _pad_id(config: JsonObject, tokens: Sequence[Piece], default: int | None) -> int:
    """The id of the token for padding; Gemma's own where the config's is not to be used.

    Those who train set another one, such as `<unk>`, -1, or one that has no row in the embedding.
    """
    value = config.raw(PAD_KEY)
    is_id = type(value) is int and value >= 0
    is_left_out = is_id and value >= len(tokens)  # which is told already
    if is_id and not is_left_out and tokens[value].type is PieceType.CONTROL:
        return int(value)
    if default is None:
        config.refuse(PAD_KEY, f"the id of a control token, below {len(tokens):,}")
    if value is not None and not is_left_out:
        notices.notify(
            f"{config.where}: {PAD_KEY} is {show(value)}, which is no control token; {PAD}"
            f" ({default}) is used"
        )
    return default
