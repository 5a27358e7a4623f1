"""Where the server listens: a TCP address, or a unix socket."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.server.guard import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.server.settings import ServerSettings

_BACKLOG = 512


def on_address(host: str, port: int) -> socket.socket:
    """A socket that listens on a host and port. Raises UsageError if that is not possible.

    If the name has several addresses, the first one of IPv4 is taken: `localhost` may be both `::1`
    and 127.0.0.1, and not every client tries both.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        # With the protocol: only so does asyncio turn off Nagle's algorithm, which would hold
        # every second piece of an answer back for 40 ms.
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"--host {host} is no address of this machine: {error.strerror}") from None
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif sys.platform == "win32":  # else any program may listen there, too, and get what comes
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror}; another port: --port N"
        ) from None
    return listener


def on_unix_socket(path: Path) -> socket.socket:
    """A socket that listens on a path, for this user alone. Raises UsageError.

    A socket that an earlier server left there is replaced; anything else is not.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("--unix-socket: this system has no unix sockets; use --port")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise UsageError(f"cannot listen on the unix socket {path}: {reason}") from None
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket that nothing listens on any more."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(None, "there is a file of that name")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
        raise OSError(None, "another server listens there")


def notes(listener: socket.socket, settings: ServerSettings, *, tls: bool) -> Iterator[str]:
    """What to tell about an address that other machines can reach: where, and how safely."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or is_loopback(settings.host):
        return
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::") and (own := _own_address()):
        names = "" if settings.allowed_hosts else "; by a name only with --allow-host NAME"
        yield f"From other machines: {'https' if tls else 'http'}://{own}:{port}{names}"
    if not tls:
        yield "Without --tls-cert everyone on the way can read the API keys and the chats."


def _own_address() -> str | None:
    """This machine's address in its network; None if it is in none."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; it only finds the way out
        return str(probe.getsockname()[0])
    return None


def url_of(listener: socket.socket, *, tls: bool) -> str:
    """The address that a listening socket can be asked at."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"
