"""Print one answer on standard output: as text, as one JSON object, or as a stream of them."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import sys
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli import INTERRUPTED
from edgesppo.cli.output import emit_json, has_terminal, say
from edgesppo.system.sanitize import Printable
from edgesppo.terminal.format import speed_line

if TYPE_CHECKING:
    from edgesppo.chat.chat import Chat
    from edgesppo.chat.result import Chunk
    from edgesppo.chat.structured import AnswerFormat
    from edgesppo.loaded_model import LoadedModel


class Form(enum.Enum):
    """How an answer is printed: as text, as one JSON object, or as one for each piece."""

    TEXT = "text"
    JSON = "json"
    LINES = "lines"


def answer(
    loaded: LoadedModel,
    chat: Chat,
    prompt: str,
    *,
    form: Form = Form.TEXT,
    wanted: AnswerFormat | None = None,
) -> None:
    """Stream one answer to standard output, or print it as one JSON object.

    Ctrl-C stops the answer, prints what was generated, and exits with 130. An answer with a schema
    is printed as text when it is complete or interrupted; if it is cut off, IncompleteAnswer is
    raised and no text is printed.
    """
    interrupted = False
    sent = _Sent(form if wanted is None or form is not Form.TEXT else None)
    schema: Any = wanted
    try:
        # Closed at once if the reader of a pipe is gone: the partial answer is kept.
        with contextlib.closing(chat.stream(prompt, schema=schema)) as chunks:
            for chunk in chunks:
                sent.put(chunk)
    except KeyboardInterrupt:
        interrupted = True
        if not chat.answered:
            raise
    result = chat.last
    value = {} if wanted is None or interrupted else {"value": wanted.value(result)}
    if form is Form.TEXT:
        sent.finish(result.text)
        say(speed_line(result))
    else:
        emit_json({**_described(loaded, chat, sent), **value})
    if interrupted:
        sys.exit(INTERRUPTED)


class _Sent:
    """Prints the pieces of an answer as they come, in a form; prints none if that is None or JSON.

    Counts what was printed: the characters of the text, and the log-probabilities.
    """

    def __init__(self, form: Form | None) -> None:
        self._form = form
        self._safe = Printable() if has_terminal(sys.stdout) else None
        self.n_characters = 0
        self.n_logprobs = 0

    def put(self, chunk: Chunk) -> None:
        """Print a piece. Those of the prefill have nothing to print."""
        if self._form is Form.TEXT:
            click.echo(self._shown(chunk.text), nl=False)
            self.n_characters += len(chunk.text)
        elif self._form is Form.LINES and chunk.finish_reason is None:
            tokens = [entry.to_dict() for entry in chunk.logprobs]
            if chunk.text or tokens:
                emit_json({"text": chunk.text, **({"logprobs": tokens} if tokens else {})})
                self.n_characters += len(chunk.text)
                self.n_logprobs += len(tokens)

    def finish(self, text: str) -> None:
        """Print what is left of a text, and end the line."""
        rest = self._shown(text[self.n_characters :])
        click.echo(rest if self._safe is None else rest + self._safe.flush())

    def _shown(self, text: str) -> str:
        return text if self._safe is None else self._safe.decode(text)


def _described(loaded: LoadedModel, chat: Chat, sent: _Sent) -> dict[str, Any]:
    """The last answer as --json prints it; with log-probabilities only if they were requested.

    What was already printed is left out.
    """
    result = chat.last
    logprobs = [entry.to_dict() for entry in result.logprobs[sent.n_logprobs :]]
    return {
        "text": result.text[sent.n_characters :],
        "finish_reason": result.finish_reason,
        "usage": dataclasses.asdict(result.usage),
        "timings": {"load_s": loaded.load_s, **dataclasses.asdict(result.timings)},
        "model": {"name": loaded.name, "path": str(loaded.path)},
        **({} if chat.params.logprobs is None else {"logprobs": logprobs}),
    }
