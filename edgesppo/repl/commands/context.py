"""Owns what commands may use of the chat's loop: the talk, and ways to show, say and ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from contextlib import AbstractContextManager

    from edgesppo.chat.generation import Chunk
    from edgesppo.repl.attachments import Attached
    from edgesppo.repl.state import ReplState
    from edgesppo.repl.stats import SessionStats


class CommandContext(Protocol):
    """The loop, as commands see it."""

    talk: ReplState
    totals: SessionStats
    attached: list[Attached]
    leaving: bool
    edits: bool  # whether there are keys to tell of
    asks: bool  # whether there is a person to be asked, at a terminal

    def say(self, text: str) -> None:
        """A line beside the answers."""

    def say_list(self, items: Sequence[Sequence[str]]) -> None:
        """Items in columns, beside the answers; the last column is broken where it must."""

    def recall(self) -> None:
        """Show where the chat was, to a person who comes back to it."""

    def write(self, text: str) -> None:
        """Straight to standard output: escapes of our own."""

    def show(self, chunks: Generator[Chunk, None, None], question: str) -> None:
        """An answer as it comes; Ctrl-C stops it."""

    def confirm(self, question: str) -> bool:
        """Whether the person says yes; a script said so by asking."""

    def free_keys(self) -> AbstractContextManager[None]:
        """Let another program have the keyboard."""

    def wait_for_model(self) -> None:
        """Return when there is a model to talk to; KeyboardInterrupt ends the wait."""

    def report(self, stage: str, share: float) -> None:
        """How far something long is."""
