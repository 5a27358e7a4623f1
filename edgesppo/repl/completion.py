"""Completion of commands and their arguments at the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_toolkit.completion import Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from edgesppo.errors import EdgesppoError
from edgesppo.lockfile import layers
from edgesppo.repl import file_names, sampling_settings
from edgesppo.repl.commands.registry import COMMANDS, named
from edgesppo.sampling.params import SamplingParams
from edgesppo.system.sanitize import one_line
from edgesppo.terminal.format import ago

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prompt_toolkit.completion import CompleteEvent

    from edgesppo.repl.state import ReplState


class CommandCompleter(Completer):
    """Completes a line that begins with a slash, with a description of each choice."""

    def __init__(self, state: ReplState) -> None:
        self._state = state
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        """The completions of the word before the cursor."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        word, space, argument = text.partition(" ")
        if not space:
            yield from _matching(_commands(), word)
            return
        command = named(word)
        if command is None:
            return
        if command.takes in ("path", "model"):
            yield from self._files(argument, event)
        if " " not in argument or command.takes == "session":
            yield from _matching(self._choices(command.takes), argument)

    def _files(self, argument: str, event: CompleteEvent) -> Iterator[Completion]:
        """The file names that the last word may become, quoted as it is."""
        words, quote = file_names.split(argument)
        begun = words[-1].text
        for found in self._paths.get_completions(Document(begun, len(begun)), event):
            text = found.text if quote else file_names.escaped(found.text)
            shown = one_line(found.display_text)
            yield Completion(text, found.start_position, shown, found.display_meta)

    def _choices(self, kind: str) -> Iterator[tuple[str, str]]:
        """(text, description) of every argument of a kind; see `Command.takes`."""
        if kind == "session":
            for name, last_used in self._state.setup.sessions.last_used():
                yield name, ago(last_used)
        elif kind == "parameter":
            params = self._state.chat.params if self._state.ready else SamplingParams()
            for one in sampling_settings.settings(params):
                yield one.name, f"currently {one.value}; {one.meaning}"
        elif kind == "model":
            try:
                models = layers.read().models
            except EdgesppoError:
                return
            for name, model in models.items():
                yield name, model.description
        elif kind == "command":
            yield from _commands()
        elif kind == "copy":
            yield "code", "the last code block instead of the whole answer"


def _commands() -> Iterator[tuple[str, str]]:
    for command in COMMANDS:
        yield command.name, command.help


def _matching(choices: Iterable[tuple[str, str]], prefix: str) -> Iterator[Completion]:
    for text, meaning in choices:
        if text.startswith(prefix):
            yield Completion(text, -len(prefix), one_line(text), one_line(meaning))
