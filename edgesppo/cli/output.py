"""What commands print: answers on standard output, all else on standard error, JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

from edgesppo.system.sanitize import printable
from edgesppo.terminal.output import aside
from edgesppo.terminal.progress import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.lockfile.entries import PinnedModel


def say(text: str = "", *, newline: bool = True) -> None:
    """A word to the person, beside the answer: standard error, and nothing in it is obeyed.

    The answer stands where it cannot be said.
    """
    aside(printable(text), newline=newline)


def tell(text: str) -> None:
    """A line of the answer: standard output, and nothing in it is obeyed."""
    click.echo(printable(text))


def emit_json(value: Any) -> None:
    """One JSON object on standard output; what a terminal would obey is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    click.echo("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text))


def is_interactive() -> bool:
    """Whether a person sits at both ends."""
    return has_terminal(sys.stdin) and has_terminal(sys.stdout)


def has_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; one that was closed before we began is None."""
    return stream is not None and stream.isatty()


@contextlib.contextmanager
def hashing(entry: PinnedModel) -> Iterator[Callable[[int, int], None]]:
    """A callback for what hashes a model's files: a bar, or a line."""
    with contextlib.closing(Meter(f"Hashing {entry.name}")) as meter:
        yield meter.update
