"""Owns `Chat`: a conversation's history, and how its next answer comes about.

Knows nothing of terminals or HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo import prompt
from edgesppo.errors import UsageError
from edgesppo.generate import Generation
from edgesppo.prompt import Message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.engine import Engine
    from edgesppo.generate import Chunk, Result
    from edgesppo.sampler import SamplingParams


class Chat:
    """A conversation. What it holds is always a whole number of turns, each answered.

    An answer that was interrupted stays, as far as it came, and `last.finish_reason` says
    "cancelled". A turn that was interrupted before its first token, or failed, leaves the history
    as it was.
    """

    def __init__(
        self, engine: Engine, params: SamplingParams, *, system: str | None = None
    ) -> None:
        self._engine = engine
        self.params = params
        self.system = system
        self.messages: list[Message] = []
        self._last: Result | None = None

    @property
    def answered(self) -> bool:
        """Whether there is a `last` answer, if only a part of one."""
        return self._last is not None

    @property
    def last(self) -> Result:
        """The latest answer: text, finish reason, usage, timings. UsageError before the first."""
        if self._last is None:
            raise UsageError("this chat has no answer yet; call ask() or stream() first")
        return self._last

    def stream(self, text: str, **sampling: Any) -> Iterator[Chunk]:
        """Ask, and get the answer piece by piece.

        `sampling` overrides the chat's parameters for this answer (see SamplingParams). Nothing
        happens before the first `next()`. Leaving the loop early cancels the answer and keeps
        what came.
        """
        params = self.params.replace(**sampling)
        asked = Message("user", text)
        generation = Generation(self._engine, self.encode([asked]), params)
        try:
            yield from generation
        finally:
            self._last = result = generation.result()
            if result.finish_reason != "cancelled" or result.text:
                answer = Message("assistant", result.text, result.ids or None)
                self.messages += [asked, answer]

    def ask(self, text: str, **sampling: Any) -> str:
        """Ask, and wait for the whole answer."""
        return "".join(chunk.text for chunk in self.stream(text, **sampling))

    def regenerate(self, **sampling: Any) -> Iterator[Chunk]:
        """Answer the last question anew; the old answer is gone once the new one begins."""
        return self.stream(self.undo(), **sampling)

    def undo(self) -> str:
        """Take back the last turn; returns what had been asked."""
        if not self.messages:
            raise UsageError("this chat has no turn to take back")
        asked, _ = self.messages[-2:]
        del self.messages[-2:]
        return asked.content

    def clear(self) -> None:
        """Forget every turn; the system text stays."""
        self.messages.clear()

    def encode(self, more: list[Message] | None = None) -> list[int]:
        """The token ids of the history and `more` messages, ready for an answer."""
        head = [Message("system", self.system)] if self.system else []
        return prompt.encode(self._engine.model, [*head, *self.messages, *(more or [])])
