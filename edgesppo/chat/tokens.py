"""Text and messages as token ids, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.chat import template
from edgesppo.chat.messages import Message, split_system
from edgesppo.errors import UsageError
from edgesppo.llama.tokenizer import as_utf8
from edgesppo.system import validate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgesppo.chat.messages import MessageLike
    from edgesppo.llama.model import Model


def ids_of(model: Model, text: str | bytes | Iterable[MessageLike], *, chat: bool) -> list[int]:
    """The ids of plain text; with `chat`, of the prompt that asks it; or of messages' prompt.

    Raises UsageError and Closed.
    """
    if not isinstance(text, str | bytes):
        system, turns = split_system(text)
        first = [] if system is None else [Message("system", system)]
        if first and not turns:  # the system text goes in front of a question
            turns = [Message("user", "")]
        return template.encode(model, [*first, *turns], answering=False)
    if not chat:
        return model.tokenize(text)
    return template.encode(model, [Message("user", as_utf8(text).decode("utf-8"))])


def text_of(model: Model, ids: Iterable[int]) -> str:
    """The text that ids stand for. Raises UsageError for what is none, and Closed."""
    tokens = validate.plain_list(ids if hasattr(ids, "tolist") else _items(ids))
    if tokens is None:
        raise UsageError(f"ids is {validate.quoted(ids)}, expected a list of token ids")
    most = model.n_vocab - 1
    found = [validate.integer("a token id", token, 0, most) for token in tokens]
    return model.detokenize(found).decode("utf-8", "replace")


def _items(ids: Any) -> Any:
    """The items of anything that can be iterated over, but for a text."""
    if isinstance(ids, str | bytes) or not hasattr(ids, "__iter__"):
        return ids
    return list(ids)
