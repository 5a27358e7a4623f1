"""The output of a response: one message, or calls of functions, as far as they are known."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from edgesppo.openai_api import tools

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgesppo.server.openai.response_types import OutputItem, OutputText, Status


class Item:
    """One item of the output: a call if it has a name, else a message."""

    def __init__(self, index: int, name: str | None = None) -> None:
        self.index = index
        self.name = name
        self.id = f"{'msg' if name is None else 'fc'}_{secrets.token_hex(12)}"
        self._call_id = tools.call_id()
        self.text = ""  # of a call, its arguments

    @property
    def is_call(self) -> bool:
        """Whether it is a call of a function."""
        return self.name is not None

    def part(self) -> OutputText:
        """The text as the content of a message."""
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def json(self, status: Status, *, empty: bool = False) -> OutputItem:
        """The item as the API writes it; `empty` is how a stream announces it."""
        if self.name is not None:
            return {
                "type": "function_call",
                "id": self.id,
                "call_id": self._call_id,
                "name": self.name,
                "arguments": "" if empty else self.text,
                "status": status,
            }
        return {
            "type": "message",
            "id": self.id,
            "role": "assistant",
            "status": status,
            "content": [] if empty else [self.part()],
        }


class Items:
    """The items of one answer, which grow as it comes."""

    def __init__(self, functions: Collection[str]) -> None:
        """`functions` are the names of those that it may call."""
        self._parser = tools.AnswerParser(functions) if functions else None
        self._items: list[Item] = []

    def add(self, piece: str) -> list[tuple[Item, str]]:
        """Add a piece of the answer; what is certain of it: each item, and what it gains."""
        if self._parser is None:
            return self._add_text(piece)
        text, calls = self._parser.add(piece)
        found = self._add_text(text)
        for _, name, arguments in calls:
            if name is not None:
                self._items.append(Item(len(self._items), name))
            self._items[-1].text += arguments
            found.append((self._items[-1], arguments))
        return found

    def end(self) -> list[tuple[Item, str]]:
        """Take the answer as whole; what has become certain. From now on there is an item."""
        rest = "" if self._parser is None else self._parser.rest()
        return [] if self._items and not rest else self._add_text(rest, even_empty=True)

    def json(self, status: Status) -> list[OutputItem]:
        """All items; only the last one may have been cut off."""
        return [
            item.json(status if item is self._items[-1] else "completed") for item in self._items
        ]

    def _add_text(self, text: str, *, even_empty: bool = False) -> list[tuple[Item, str]]:
        if not text and not even_empty:
            return []
        if not self._items:
            self._items.append(Item(0))
        self._items[-1].text += text
        return [(self._items[-1], text)]
