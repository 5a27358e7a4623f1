"""Owns `edgesppo tokenize`: a text's token ids and pieces."""

from __future__ import annotations

from typing import Any

import click

from edgesppo.cli.loading import converted
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json
from edgesppo.store import locate


@click.command(name="tokenize")
@click.argument("model")
@click.argument("text")
@click.option("--chat", is_flag=True, help="The ids of a whole user turn, ready to be answered.")
@json_option
def tokenize_command(model: str, text: str, chat: bool, as_json: bool) -> None:
    """Show the token ids of TEXT in MODEL's vocabulary.

    TEXT is plain text: what looks like a control token is spelled in ordinary pieces.
    """
    from edgesppo.chat.template import Message, encode
    from edgesppo.llama.model import Model

    loaded = Model(converted(locate.find(model)), vocabulary_only=True)
    ids = encode(loaded, [Message("user", text)]) if chat else loaded.tokenize(text)
    pieces = [loaded.piece(id_).decode("utf-8", "backslashreplace") for id_ in ids]
    loaded.close()
    if as_json:
        found: dict[str, Any] = {"ids": ids, "pieces": pieces}
        emit_json(found)
        return
    for id_, piece in zip(ids, pieces, strict=True):
        click.echo(f"{id_:>7}  {piece!r}")
