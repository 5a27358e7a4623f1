"""Tells whether a failed connection means that there is no network at all.

A host's name that does not resolve, and an address without a route, fail again at every attempt:
waiting helps only where the network was there a moment ago.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    import urllib.error
    import urllib.request

# No network interface is up, or none leads there; the system says so at once.
_NO_ROUTE = (errno.ENETUNREACH, errno.ENETDOWN)
_SHOWN = 100  # characters of a host's name in a message


class Unreachable(OSError):
    """There is no way to a host; give up after `attempts` of them. `host` may be a proxy."""

    def __init__(self, message: str, *, host: str, attempts: int) -> None:
        super().__init__(message)
        self.host = host
        self.attempts = attempts


def unreachable(
    request: urllib.request.Request, error: urllib.error.URLError
) -> Unreachable | None:
    """What a failed request says of the network; None if trying again may help."""
    reason = error.reason
    host = _host(request)
    if isinstance(reason, socket.gaierror):
        # Without a network, a resolver may call its failure a temporary one: it gets one retry.
        attempts = 2 if reason.errno == socket.EAI_AGAIN else 1
        fault = f"the name {host} cannot be resolved ({_words(reason)})"
    elif isinstance(reason, OSError) and reason.errno in _NO_ROUTE:
        attempts, fault = 1, f"{host} cannot be reached ({_words(reason)})"
    else:
        return None
    message = (
        f"{fault}; check the network connection, and HF_ENDPOINT and HTTPS_PROXY if you set them,"
        " then run the same command again"
    )
    return Unreachable(message, host=host, attempts=attempts)


def _host(request: urllib.request.Request) -> str:
    """The host that was to be connected to, without its port and without a password."""
    host = request.host.rpartition("@")[2]
    name, colon, port = host.rpartition(":")
    return one_line(name if colon and port.isdecimal() else host, _SHOWN)


def _words(error: OSError) -> str:
    return one_line(error.strerror or type(error).__name__)
