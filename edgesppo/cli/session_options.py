"""How `chat` and `run` use saved chats: --session and --snapshots, and opening a session."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.completion import complete_sessions
from edgesppo.cli.loading import choose_model
from edgesppo.cli.output import say
from edgesppo.errors import EdgesppoError, ModelNotFound, OutputError
from edgesppo.lockfile import layers
from edgesppo.store import layout, locate
from edgesppo.system.shell import shell_word
from edgesppo.terminal.format import resumed_line, saving_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.loaded_model import LoadedModel
    from edgesppo.sessions.persistent_chat import PersistentChat
    from edgesppo.sessions.session import Session

    _Kind = click.ParamType[int]
else:  # not generic in older releases of click
    _Kind = click.ParamType

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE | re.ASCII)


class Size(_Kind):
    """An option type for a number of bytes: 2GB, 500MB (powers of 1000), 1.5GiB (of 1024), 0."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a size; returns the number of bytes."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None or (match[3] and not match[2]):
            self.fail(
                f"{value!r} is not a size; expected one like 2GB, 500MB, 1.5GiB or 0", param, ctx
            )
        number, letter, binary = match.groups()
        power = " kmgt".index(letter.lower() or " ")
        return int(float(number) * (1024 if binary else 1000) ** power)


def session_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --session and --snapshots; the command receives them as `session` and `snapshots`."""
    named = click.option(
        "--session",
        metavar="NAME",
        shell_complete=complete_sessions,
        help="Save the chat under this name, or resume it if it exists.",
    )
    capped = click.option(
        "--snapshots",
        type=Size(),
        default="2GB",
        show_default=True,
        metavar="SIZE",
        help="Disk space for the KV caches of all saved chats, such as 500MB or 1.5GiB; the oldest"
        " are removed first, and 0 saves none.",
    )
    return named(capped(command))


@contextlib.contextmanager
def held_session(
    name: str | None, *, resume: bool = False, unnamed: bool = False
) -> Iterator[Session | None]:
    """Open the session to chat in and hold it: by name, the latest, or a new one named by date.

    Yields None if no session was requested, or if an unnamed one cannot be opened, with a warning.
    """
    session = _session(name, resume=resume, unnamed=unnamed)
    if session is None:
        yield None
        return
    with session:
        for notice in session.notices:
            say(f"edgesppo: {notice}", matters=True)
        yield session


def _session(name: str | None, *, resume: bool, unnamed: bool) -> Session | None:
    from edgesppo.sessions.folder import Sessions

    if name is not None and resume:
        raise click.UsageError("--session names a chat, --resume takes the latest; give only one")
    sessions = Sessions()
    if name is not None:
        session = sessions.open(name)
        if session.transcript is None and (near := sessions.did_you_mean(name)):
            say(f"{name!r} is a new chat{near}")
        return session
    if resume:
        return sessions.latest()
    if not unnamed:
        return None
    try:
        return sessions.unnamed()
    except EdgesppoError as error:
        say(f"edgesppo: this chat will not be saved: {error}", matters=True)
        return None


def choose_model_for(model: str | None, session: Session | None) -> locate.Found:
    """The model that the user named, else the session's model, else the default one.

    The session's model is found by its name where its file has moved, and its file is checked as
    that of the name. Raises ModelNotFound if it no longer exists, or is a server's.
    """
    if model is not None or session is None or session.transcript is None:
        return choose_model(model)
    by, name = session.transcript.by, shell_word(session.name)
    if "://" in by.path:
        raise ModelNotFound(
            f"the chat {session.name!r} is with {by.name} at {by.path}; to continue it: edgesppo"
            f" chat --url {by.path} --session {name}, or edgesppo chat MODEL --session {name}"
        )
    path, pinned = Path(by.path), layers.read().models.get(by.name)
    if (
        pinned is not None
        and pinned.is_pinned
        and (not path.is_file() or path == layout.model_file(pinned))
    ):
        return locate.checked(pinned)
    if path.is_file():
        return locate.Found(by.name, path, is_checkpoint=False)
    raise ModelNotFound(
        f"{by.path}, the model of the chat {session.name!r}, no longer exists; name another: "
        f"edgesppo chat MODEL --session {name}"
    )


@contextlib.contextmanager
def session_chat(
    loaded: LoadedModel, session: Session, *, snapshots: int, **options: Any
) -> Iterator[PersistentChat]:
    """Chat in a session, with a message if it is resumed; saves it at the end of the block.

    If saving fails, prints a message and exits with 1; the answers were printed before.
    """
    given = {name: value for name, value in options.items() if value is not None}
    saved = loaded.keep(session, snapshots=snapshots, **given)
    try:
        if saved.resumed is not None:
            say(resumed_line(session.name, saved.resumed))
        yield saved
    finally:
        try:
            with contextlib.suppress(KeyboardInterrupt):  # it ends the writing of the KV state
                saved.close(lambda n_bytes: say(saving_line(n_bytes)))
        except OutputError as error:
            say(f"edgesppo: the end of this chat could not be saved: {error}", matters=True)
            sys.exit(1)
