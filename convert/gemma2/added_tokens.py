"""Collect the tokens that were added to a vocabulary, from every file that may list them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint
from edgesppo_convert.gemma2.sentencepiece import MAX_PIECES
from edgesppo_convert.gemma2.tokenizer_json import AddedToken
from edgesppo_convert.source.json_reader import show

if TYPE_CHECKING:
    from edgesppo_convert.source.json_reader import JsonObject


def read_added(
    listed: JsonObject | None, config: JsonObject | None, size: int
) -> dict[int, AddedToken]:
    """The added tokens by id: of added_tokens.json, then of tokenizer_config.json.

    `size` is the number of ids that the model has, for messages; an id may lie beyond.
    """
    added: dict[int, AddedToken] = {}
    for text in listed or ():
        assert listed is not None
        index = listed.integer(text, 0, MAX_PIECES - 1)
        added[index] = AddedToken(text, special=False)
    if config is None or config.raw("added_tokens_decoder") is None:
        return added
    decoder = config.object("added_tokens_decoder")
    for key in decoder:
        is_id = key.isascii() and key.isdigit() and len(key) < 10 and int(key) < MAX_PIECES
        if not is_id:
            raise BadCheckpoint(
                f"{decoder.where}: {show(key)} is not a token id; expected 0 to {size - 1:,}"
            )
        entry = decoder.object(key)
        added[int(key)] = AddedToken(entry.text("content"), entry.flag("special", False))
    return added
