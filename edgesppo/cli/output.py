"""How commands print: answers and JSON on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

from edgesppo.system import notices
from edgesppo.system.sanitize import printable
from edgesppo.terminal.output import say
from edgesppo.terminal.progress import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.lockfile.entries import PinnedModel

__all__ = [
    "emit_json",
    "has_terminal",
    "hashing",
    "is_interactive",
    "say",
    "say_notices",
    "tell",
]


def say_notices() -> None:
    """Print the notices that were collected so far, before what is said of the result."""
    for line in notices.take():
        say(f"Note: {line}")


def tell(text: str) -> None:
    """Print a line of the answer on standard output, with control characters escaped."""
    click.echo(printable(text))


def emit_json(value: Any) -> None:
    """Print one JSON object on standard output, with unprintable characters escaped."""
    text = json.dumps(value, ensure_ascii=False)
    click.echo("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text))


def is_interactive() -> bool:
    """Whether standard input and standard output are both terminals."""
    return has_terminal(sys.stdin) and has_terminal(sys.stdout)


def has_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; None, a stream that is closed, is not."""
    return stream is not None and stream.isatty()


@contextlib.contextmanager
def hashing(entry: PinnedModel) -> Iterator[Callable[[int, int], None]]:
    """A progress callback for hashing a model's files: a bar on a terminal, else one line."""
    with contextlib.closing(Meter(f"Hashing {entry.name}")) as meter:
        yield meter.update
