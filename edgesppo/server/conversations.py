"""`Conversations`: which machine has a conversation's prefix in its KV cache."""

from __future__ import annotations

import collections
import hashlib
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST = 10_000  # conversations; far more than the KV caches hold


class Conversations:
    """The machines that had the last turns of conversations; forgets those of long ago."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._where: collections.OrderedDict[str, str] = collections.OrderedDict()

    def ranks(self, name: str, machines: Sequence[str]) -> list[list[str]]:
        """The machines to try for a conversation, best first; those of one list are as good.

        First the one that has it. The others, and all for one that is new or has no name, are in an
        order that depends on the name alone (rendezvous hashing): of machines that are equally busy
        the first is taken, so a gateway that has forgotten it may still find it.
        """
        key = name or secrets.token_hex(8)
        order = sorted(machines, key=lambda one: hashlib.sha256(f"{key} {one}".encode()).digest())
        here = self._where.get(name)
        if here not in order:
            return [order]
        return [[here], [one for one in order if one != here]]

    def remember(self, name: str, machine: str) -> None:
        """A machine has a turn of the conversation."""
        if not name:
            return
        self._where[name] = machine
        self._where.move_to_end(name)
        if len(self._where) > self._most:
            self._where.popitem(last=False)
