"""Connect to a Ray cluster, and say in our own errors what Ray raises.

Ray is imported only here, and only when a cluster is asked for.
"""

from __future__ import annotations

import importlib
import re
import socket
from typing import Any

from edgesppo.errors import EdgesppoError, UsageError
from edgesppo.system.sanitize import one_line
from edgesppo.system.signals import kept_termination

_INSTALL = 'in the clone, pip install ".[ray]"'
_CONNECT_S = 10.0
_VERSIONS = re.compile(r"Ray: *(\S+)\s+Python: *(\S+)")


def connect(address: str) -> Any:
    """Connect to a cluster; returns the module `ray`. Raises UsageError."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise UsageError(f"Ray is not installed on this machine: {_INSTALL}") from None
    if not is_listening(address):  # Ray itself would try for many minutes
        raise _no_cluster(address)
    try:
        with kept_termination():
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except ConnectionError:
        raise _no_cluster(address) from None
    except ValueError:
        raise UsageError(
            f"--ray is {address!r}, expected HOST:6379, or auto for a cluster with this machine"
        ) from None
    except RuntimeError as error:
        versions = _VERSIONS.findall(str(error))
        if len(versions) < 2:
            raise UsageError(f"Ray at {address}: {one_line(str(error))[:300]}") from None
        (theirs, python), (ours, our_python) = versions[:2]
        raise UsageError(
            f"the cluster at {address} runs Ray {theirs} with Python {python}, this machine Ray "
            f'{ours} with Python {our_python}; on this machine: pip install "ray=={theirs}", or '
            "the same Ray and Python on all machines"
        ) from None
    return ray


def is_listening(address: str) -> bool:
    """Whether something listens at HOST:PORT; True for an address of another form."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdecimal()) or "/" in host:
        return True  # "auto", or ray://
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError):
        return False
    return True


def _no_cluster(address: str) -> UsageError:
    return UsageError(
        f"no Ray cluster answers at {address}; start one with `ray start --head --port 6379`, "
        "on each other machine `ray start --address HOST:6379`, and give HOST:6379"
    )


def is_refusal(error: BaseException) -> bool:
    """Whether an actor's error is what its class raised as it was made, and no crash."""
    return "creation task" in str(error)


def cause(error: BaseException) -> EdgesppoError:
    """Our own error that a machine raised; or what Ray says of it."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, EdgesppoError):
        return cause
    text = str(error)
    if "No module named 'edgesppo'" in text:
        return UsageError(f"edgesppo is not installed there: {_INSTALL}")
    for line in reversed(text.splitlines()):
        if line.strip().startswith("edgesppo.errors."):
            return UsageError(one_line(line.partition(": ")[2]))
    return UsageError(f"Ray: {one_line(text)[:300]}")
