"""`edgesppo tokenize`: print the token ids and pieces of a text."""

from __future__ import annotations

from typing import Any

import click

from edgesppo.cli.completion import complete_models
from edgesppo.cli.loading import gguf_path
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json
from edgesppo.store import locate


@click.command(name="tokenize")
@click.argument("model", shell_complete=complete_models)
@click.argument("text")
@click.option("--chat", is_flag=True, help="Format TEXT as a user turn, ready to be answered.")
@json_option
def tokenize_command(model: str, text: str, chat: bool, as_json: bool) -> None:
    """Show the token ids of TEXT in MODEL's vocabulary.

    TEXT is plain text: whatever looks like a control token is split into ordinary pieces.
    """
    from edgesppo.chat.messages import Message
    from edgesppo.chat.template import encode
    from edgesppo.llama.model import Model

    loaded = Model(gguf_path(locate.find(model)), vocabulary_only=True)
    ids = encode(loaded, [Message("user", text)]) if chat else loaded.tokenize(text)
    pieces = [loaded.piece(id_).decode("utf-8", "backslashreplace") for id_ in ids]
    loaded.close()
    if as_json:
        found: dict[str, Any] = {"ids": ids, "pieces": pieces}
        emit_json(found)
        return
    for id_, piece in zip(ids, pieces, strict=True):
        click.echo(f"{id_:>7}  {piece!r}")
