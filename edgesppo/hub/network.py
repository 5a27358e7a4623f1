"""Tells whether a connection failed in a way that is the same at every attempt.

A host's name that does not resolve, and an address without a route, are there again only if the
network was there a moment ago. A certificate that is not trusted stays so.
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
    import ssl  # loaded late: a connection has loaded it

    reason = error.reason
    host = _host(request)
    advice = "check the network connection, and HF_ENDPOINT and HTTPS_PROXY if you set them"
    if isinstance(reason, socket.gaierror):
        # Without a network, a resolver may call its failure a temporary one: it gets one retry.
        attempts = 2 if reason.errno == socket.EAI_AGAIN else 1
        fault = f"the name {host} cannot be resolved ({_words(reason)})"
    elif isinstance(reason, OSError) and reason.errno in _NO_ROUTE:
        attempts, fault = 1, f"{host} cannot be reached ({_words(reason)})"
    elif isinstance(reason, ssl.SSLCertVerificationError):
        attempts, fault = 1, f"the certificate of {host} is refused: {_words(reason)}"
        advice = (
            "set SSL_CERT_FILE to a file with the certificates to trust, which a company's network"
            " may have of its own, and check this machine's date"
        )
    else:
        return None
    message = f"{fault}; {advice}, then run the same command again"
    return Unreachable(message, host=host, attempts=attempts)


def _host(request: urllib.request.Request) -> str:
    """The host that was to be connected to, without its port and without a password."""
    host = request.host.rpartition("@")[2]
    name, colon, port = host.rpartition(":")
    return one_line(name if colon and port.isdecimal() else host, _SHOWN)


def _words(error: OSError) -> str:
    words = getattr(error, "verify_message", None) or error.strerror or type(error).__name__
    return one_line(words)
