"""The answer of a chat that is under way: one at a time, and what becomes of one that was left."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from edgesppo.errors import ChatInUse
from edgesppo.llama import fork

if TYPE_CHECKING:
    from edgesppo.chat.answer_stream import AnswerStream


class CurrentAnswer:
    """The stream of a chat that has begun and not ended, if any.

    It is referred to weakly: a stream that everybody forgot ends by itself.
    """

    def __init__(self) -> None:
        self._stream: weakref.ref[AnswerStream] | None = None
        self._guard = fork.ForkSafeLock()  # held while a stream takes its turn

    def get(self) -> AnswerStream | None:
        """The stream that is under way; None if there is none."""
        stream = None if self._stream is None else self._stream()
        return None if stream is None or stream.over else stream

    def left(self) -> AnswerStream | None:
        """The stream that was left early, if any. Raises ChatInUse if one is still being read."""
        stream = self.get()
        if stream is None or stream.cancelled or stream.is_left:
            return stream
        raise ChatInUse(
            "this chat is answering in another thread or task; wait for it, call cancel(), or close"
            " its stream if nobody reads that any more"
        )

    def begin(self, stream: AnswerStream) -> AnswerStream | None:
        """Let a stream be the current one. Returns the one that was left before, to be closed.

        Raises ChatInUse while another thread or task is reading an answer.
        """
        with self._guard:
            before = self.left()
            self._stream = weakref.ref(stream)
        return before

    def settle(self) -> None:
        """End a stream that was left early. Raises ChatInUse if one is still being read."""
        left = self.left()
        if left is not None:
            left.close()

    def cancel(self) -> None:
        """Stop the answer that is under way, if any, from any thread or task."""
        stream = self.get()
        if stream is not None:
            stream.cancel()
