"""How a server is set up: its limits and deadlines, and who may use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.server.api_keys import ApiKey


@dataclass(frozen=True)
class Limits:
    """The most that one request may ask for."""

    body_bytes: int = 1 << 20
    depth: int = 64  # of nested JSON
    messages: int = 1024
    n: int = 8
    tools: int = 128
    max_tokens: int = 8192
    connections: int = 512
    keyless: int = 128  # of those, from one address and without a right key, where keys are used


@dataclass(frozen=True)
class Deadlines:
    """Seconds after which a connection is given up.

    Attributes:
        header_s: For a request's headers to arrive.
        body_s: For its body to arrive.
        write_s: For a reader to take some of what was sent.
        total_s: For the whole answer, waiting included.
        drain_s: For running answers to end when the server is told to stop.
    """

    header_s: float = 10
    body_s: float = 30
    write_s: float = 30
    total_s: float = 1800
    drain_s: float = 30


@dataclass(frozen=True)
class ServerSettings:
    """The settings of a server.

    `allowed_hosts` are the names beside addresses and localhost under which it may be asked;
    `origins` the web pages that may use it, beside its own. What the KV cache holds is kept in
    `snapshot_folder` from one run to the next, in at most `snapshot_bytes`. The model answers to
    its own name, and to `aliases`.
    """

    host: str = "127.0.0.1"
    max_queue: int = 64
    keys: tuple[ApiKey, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    access_log: bool = True
    aliases: tuple[str, ...] = ()
    snapshot_folder: Path | None = None
    snapshot_bytes: int = 0
    limits: Limits = field(default_factory=Limits)
    deadlines: Deadlines = field(default_factory=Deadlines)
