"""The interface of the chat loop that commands use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from contextlib import AbstractContextManager

    from edgesppo.chat.result import Chunk
    from edgesppo.repl.attachments import Attachment
    from edgesppo.repl.state import ReplState
    from edgesppo.repl.stats import SessionStats


class CommandContext(Protocol):
    """What a command may read and call; the loop implements it."""

    state: ReplState
    stats: SessionStats
    attached: list[Attachment]
    leaving: bool
    rich: bool  # whether messages are read with a line editor
    interactive: bool  # whether there is a user at a terminal who can be asked

    def say(self, text: str) -> None:
        """Write a message to standard error."""

    def say_list(self, items: Sequence[Sequence[str]]) -> None:
        """Write a list in aligned columns to standard error; the last column is wrapped."""

    def recall(self) -> None:
        """Show the last turn of the chat to a user who resumes it."""

    def write(self, text: str) -> None:
        """Write to standard output unchanged; not for untrusted text."""

    def show(self, chunks: Generator[Chunk, None, None], question: str) -> None:
        """Stream an answer to the screen; Ctrl-C stops it. `question` is empty if unknown."""

    def put_back(self, text: str) -> None:
        """Offer a text that got no answer under the Up key; without a user do nothing."""

    def confirm(self, question: str) -> bool:
        """Ask a yes-or-no question; without a user the answer is yes."""

    def release_keyboard(self) -> AbstractContextManager[None]:
        """Restore the keyboard settings in the block, for another program."""

    def wait_for_model(self) -> None:
        """Wait until the model is loaded. Raises KeyboardInterrupt on Ctrl-C."""

    def report(self, stage: str, share: float) -> None:
        """Show the progress of a long operation: its step, and the share done from 0 to 1."""
