"""Owns how commands keep their chats on disk: options, which session, and what is said of it."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.loading import chosen
from edgesppo.cli.output import say
from edgesppo.errors import EdgesppoError, ModelNotFound, OutputError
from edgesppo.store import locate
from edgesppo.system.sanitize import printable
from edgesppo.system.signals import shielded
from edgesppo.terminal.format import resumed_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.api import LoadedModel
    from edgesppo.sessions.persistent_chat import PersistentChat
    from edgesppo.sessions.session import Session

    _Kind = click.ParamType[int]
else:  # older releases of click do not say of what
    _Kind = click.ParamType

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE | re.ASCII)


class Size(_Kind):
    """A number of bytes: 2GB, 500MB (thousands), 1.5GiB (1024s), 1000000; 0 is none."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None or (match[3] and not match[2]):
            self.fail(
                f"{value!r} is no size; write it like 2GB, 500MB, 1.5GiB or 0 (none)", param, ctx
            )
        number, letter, binary = match.groups()
        power = " kmgt".index(letter.lower() or " ")
        return int(float(number) * (1024 if binary else 1000) ** power)


def session_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where a chat is kept; they arrive as `session` and `snapshots`."""
    named = click.option(
        "--session", metavar="NAME", help="Keep the chat under this name; goes on with it if there."
    )
    capped = click.option(
        "--snapshots",
        type=Size(),
        default="2GB",
        show_default=True,
        metavar="SIZE",
        help="What the KV states of all saved chats may take, the oldest go first: 500MB, 1.5GiB;"
        " 0 writes none.",
    )
    return named(capped(command))


@contextlib.contextmanager
def kept(
    name: str | None, *, resume: bool = False, unnamed: bool = False
) -> Iterator[Session | None]:
    """The session to chat in, held until left: by name, the latest, or one without a name.

    None where none was asked for, and where an unnamed one cannot be had: that is said.
    """
    session = _session(name, resume=resume, unnamed=unnamed)
    if session is None:
        yield None
        return
    with session:
        for notice in session.notices:
            say(f"edgesppo: {printable(notice)}")
        yield session


def _session(name: str | None, *, resume: bool, unnamed: bool) -> Session | None:
    from edgesppo.sessions.folder import Sessions

    if name is not None and resume:
        raise click.UsageError("--session names a chat, --resume takes the latest: give only one")
    sessions = Sessions()
    if name is not None:
        return sessions.open(name)
    if resume:
        return sessions.latest()
    if not unnamed:
        return None
    try:
        return sessions.unnamed()
    except EdgesppoError as error:
        say(f"edgesppo: this chat is not saved: {printable(str(error))}")
        return None


def chosen_for(model: str | None, session: Session | None) -> locate.Found:
    """The model that was asked for; without one, that of the session."""
    if model is not None or session is None or session.transcript is None:
        return chosen(model)
    by = session.transcript.by
    if Path(by.path).is_file():
        return locate.Found(by.name, Path(by.path), is_checkpoint=False)
    if by.name == locate.DEMO:
        return locate.demo()
    raise ModelNotFound(
        f"{by.path}, the model of the chat {session.name!r}, is no longer there; name another: "
        f"edgesppo chat MODEL --session {session.name!r}"
    )


@contextlib.contextmanager
def chatting(
    loaded: LoadedModel, session: Session, *, snapshots: int, **options: Any
) -> Iterator[PersistentChat]:
    """Chat in a session, with a word on what came back; all is on the disk when it is left.

    Where that fails, it is said beside the answers, which stand; exits with 1.
    """
    given = {name: value for name, value in options.items() if value is not None}
    saved = loaded.keep(session, snapshots=snapshots, **given)
    try:
        if saved.resumed is not None:
            say(printable(resumed_line(session.name, saved.resumed)))
        yield saved
    finally:
        try:
            with shielded():
                saved.close()
        except OutputError as error:
            say(f"edgesppo: the end of this chat is not saved: {error}")
            sys.exit(1)
