"""The HTTP protocol of uvicorn, with deadlines, limits, and errors in the form of all others.

A client is disconnected if it does not send its headers in time, if it reads next to nothing of
what was sent (less than some 2 kB a second looks to us like nothing), or if it has not read the
whole answer some time after that had to be ready. Any other slow reader is served to the end.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING, cast

import h11
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgesppo.server.errors import RETRY_S, ApiError, bad_request
from edgesppo.server.guard import PROVEN
from edgesppo.server.wrong_keys import peer

if TYPE_CHECKING:
    import asyncio

    from starlette.types import Receive, Scope, Send

    from edgesppo.server.metrics import Metrics
    from edgesppo.server.settings import ServerSettings


_SEND_BUFFER = 64 << 10
# So many connections too many are told so; beyond that, they are closed at once.
_TOLD = 64
_PROBES = 3  # for the system, until it takes a silent client for gone


class DeadlineProtocol(H11Protocol):
    """A connection that has to send its headers, and to take the answer, in time."""

    # Set by a subclass, as uvicorn makes the instances.
    settings: ServerSettings
    metrics: Metrics
    address = ""  # whose it is
    is_refused = False  # it is one too many, and is told so
    _late: asyncio.TimerHandle | None = None
    _slow: asyncio.TimerHandle | None = None
    _whole: asyncio.TimerHandle | None = None  # for a request and all of its answer
    _unsent = 0  # bytes, when it was last looked whether the reader takes any

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the headers of the first request."""
        super().connection_made(transport)
        # What the requests of this connection have in common, beside what all have.
        self.app_state = {**self.app_state, "connection": {}}
        self.address = peer(self.client)
        if reason := self._reason_to_refuse():
            self.metrics.refused_connections.labels(reason).inc()
            self.app, self.is_refused = _refuse, True
            if sum(one.is_refused for one in self._all()) > _TOLD:
                transport.abort()
                return
        _watch_peer(transport, self.settings.deadlines.write_s)
        self._expect_headers()

    def _reason_to_refuse(self) -> str | None:
        """Why a connection is one too many; None if it is not.

        Refused ones that are still open do not count: they would shut others out.
        """
        limits = self.settings.limits
        served = [one for one in self._all() if not one.is_refused]
        if len(served) > limits.connections:
            return "too_many"
        if not self.settings.keys:
            return None
        alike = sum(not one.has_key and one.address == self.address for one in served)
        return "too_many_of_address" if alike > limits.keyless else None

    def _all(self) -> set[DeadlineProtocol]:
        """All connections of the server, this one included."""
        return cast("set[DeadlineProtocol]", self.connections)

    @property
    def has_key(self) -> bool:
        """Whether the last API key on this connection was right."""
        return bool(self.app_state["connection"].get(PROVEN))

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of the headers, until they have all come."""
        if self.transport.is_closing():  # with TLS, until the other side parts
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._begin_request()
        if self._is_between_requests():
            self._expect_headers()
        else:
            self._late = _stop(self._late)
            if not self.flow.write_paused:
                self._slow = _stop(self._slow)

    def on_response_complete(self) -> None:
        """Begin to wait for the next request on this connection."""
        before = self.cycle
        super().on_response_complete()
        if self.cycle is not before:  # the next request had come already
            self._begin_request()
        elif not _count_unsent(self.transport):
            self._whole = _stop(self._whole)
        if self._is_between_requests() and not self.transport.is_closing():
            self._late = _stop(self._late)
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        for timer in (self._late, self._slow, self._whole):
            _stop(timer)
        self._late = self._slow = self._whole = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The reader is behind: give it some time."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The reader has caught up."""
        self._slow = _stop(self._slow)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and close the connection."""
        self.metrics.refused_connections.labels("invalid_http").inc()
        body = json.dumps(bad_request(msg, code="invalid_http").body()).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        answer = (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        with contextlib.suppress(h11.LocalProtocolError):  # in the midst of an answer
            for event in answer:
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_headers(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.settings.deadlines.header_s, self._miss_headers)

    def _miss_headers(self) -> None:
        """Close the connection, unless the last answer is still on its way."""
        self._late = None
        if _count_unsent(self.transport):
            self._watch_reader()
            self._expect_headers()
        else:
            self.transport.close()
            # With TLS, Python 3.10 waits for the other side to part, without a limit.
            self._late = self.loop.call_later(self.settings.deadlines.write_s, self.transport.abort)

    def _begin_request(self) -> None:
        """Begin to wait for its end. After one with two lengths the connection is closed.

        A proxy in front may have taken the other one, and see the next request elsewhere (RFC 9112,
        6.1).
        """
        self._expect_whole()
        names = {name for name, _ in self.scope["headers"]}
        if self.cycle is not None and names >= {b"content-length", b"transfer-encoding"}:
            self.cycle.keep_alive = False

    def _expect_whole(self) -> None:
        """Begin to wait for the end of a request, until its reader has all of the answer."""
        _stop(self._whole)
        times = self.settings.deadlines
        longest = times.body_s + times.total_s + times.write_s
        self._whole = self.loop.call_later(longest, self._miss_whole)

    def _miss_whole(self) -> None:
        self._whole = None
        if not self._is_between_requests() or _count_unsent(self.transport):
            self.transport.abort()

    def _watch_reader(self) -> None:
        """Begin to look whether the reader takes anything."""
        if self._slow is None:
            self._unsent = _count_unsent(self.transport)
            self._slow = self.loop.call_later(self.settings.deadlines.write_s, self._judge_reader)

    def _judge_reader(self) -> None:
        """Drop a reader that has taken nothing since the last look."""
        self._slow = None
        unsent = _count_unsent(self.transport)
        if unsent >= self._unsent:
            self.transport.abort()
        elif unsent:
            self._watch_reader()


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request on a connection that is one too many."""
    error = ApiError(
        503,
        "there are too many connections; ask again later",
        code="too_many_connections",
        headers={"Retry-After": str(RETRY_S), "Connection": "close"},
    )
    response = JSONResponse(error.body(scope["path"]), error.status_code, error.headers)
    await response(scope, receive, send)


def _stop(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stop a timer; what is left of it is None."""
    if timer is not None:
        timer.cancel()
    return None


def _count_unsent(transport: asyncio.Transport) -> int:
    """The bytes that the system has not yet taken."""
    # Under TLS asyncio counts only those that are not encrypted yet.
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    encrypted = 0 if below is None else below.get_write_buffer_size()
    return int(transport.get_write_buffer_size() + encrypted)


def _watch_peer(transport: asyncio.Transport, seconds: float) -> None:
    """Let the system find out that the other side is gone without a word."""
    found = transport.get_extra_info("socket")
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # The system would take megabytes for a reader who takes nothing, and hide that.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            found.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(seconds * 1000))
            )
        # A client that waits for its answer sends nothing: the system asks whether it is there.
        times = {"TCP_KEEPIDLE": seconds, "TCP_KEEPALIVE": seconds}  # its name on macOS
        times |= {"TCP_KEEPINTVL": seconds / _PROBES, "TCP_KEEPCNT": _PROBES}
        for name, value in times.items():
            if hasattr(socket, name):
                found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), max(1, int(value)))
