"""Run the server until it is told to stop: drain at the first signal, end at the second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn
from prometheus_client import disable_created_metrics

from edgesppo.server.app import create_app
from edgesppo.server.log_output import LogOutput
from edgesppo.server.protocol import DeadlineProtocol
from edgesppo.server.tls_listener import TlsListener
from edgesppo.server.worker import FAILED

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from types import FrameType

    from edgesppo.loaded_model import LoadedModel
    from edgesppo.server.service import Service
    from edgesppo.server.settings import ServerSettings

logger = logging.getLogger("edgesppo.server")
# For the clients to be told that the server has stopped.
_LAST_WORDS_S = 1.0


class Server(uvicorn.Server):
    """A server that goes on answering while it drains; new requests get a 503."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._drain_until: float | None = None
        self._told = False  # that it waits for answers
        self._is_late = False  # whether answers are cut off
        self.listeners: list[TlsListener] = []  # of TLS; others are uvicorn's

    @property
    def is_draining(self) -> bool:
        """Whether a signal has come."""
        return self._drain_until is not None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """At the first signal drain, at the second stop at once.

        It may interrupt anything, also the writing of the log: so it takes no lock. A terminal that
        is closed may say so twice.
        """
        if self._drain_until is None:
            self._drain_until = time.monotonic() + self.service.settings.deadlines.drain_s
            self.service.worker.drain()
        elif sig != getattr(signal, "SIGHUP", None):
            self.force_exit = self.should_exit = True
            self.service.worker.hurry()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but with TLS a client has to shake hands, and to part, in time.

        Connections that shake hands are counted.
        """
        if not self.config.is_ssl or sockets is None:
            await super().startup(sockets)
            return
        await super().startup([])  # without a socket
        deadlines = self.service.settings.deadlines
        limits: dict[str, Any] = {"ssl_handshake_timeout": deadlines.header_s}
        if sys.version_info >= (3, 11):
            limits["ssl_shutdown_timeout"] = deadlines.write_s

        def connect() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )

        self.listeners = [
            TlsListener(
                listener,
                connect,
                connected=self.server_state.connections,
                most=self.service.settings.limits.connections,
                most_of_address=self.service.settings.limits.keyless,
                on_refused=lambda why: self.service.metrics.refused_connections.labels(why).inc(),
                ssl=self.config.ssl,
                **limits,
            )
            for listener in sockets
        ]

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop: when all answers are whole, or the time for them is over."""
        if self.service.worker.status == FAILED:
            self.should_exit = True
        if self._drain_until is not None and not self.should_exit:
            self._tell_draining()
            self._is_late = time.monotonic() >= self._drain_until
            self.should_exit = self._is_late or self.service.is_idle
        return await super().on_tick(counter)

    def _tell_draining(self) -> None:
        if not self._told and not self.service.is_idle:
            self._told = True
            logger.info(
                "Waiting at most %g s for the answers under way (Ctrl-C again: not)",
                self.service.settings.deadlines.drain_s,
            )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop the worker, which ends what is still computed, then close the connections."""
        await asyncio.to_thread(self.service.worker.stop)
        if self.server_state.tasks:
            await asyncio.wait([*self.server_state.tasks], timeout=_LAST_WORDS_S)
        self.force_exit = self.force_exit or self._is_late  # only now: what is cached is saved
        for listener in self.listeners:
            await listener.close()
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn leaves it out
            await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs. They are not raised again: it ended well."""
        handled = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            handled.append(signal.SIGHUP)  # the terminal was closed; nohup has it ignored
        if sys.platform == "win32":
            handled.append(signal.SIGBREAK)  # Ctrl-Break, or the window was closed
        try:
            before = {number: signal.signal(number, self.handle_exit) for number in handled}
        except ValueError:  # not the main thread
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def build_server(
    load: Callable[[], LoadedModel], settings: ServerSettings, **options: Any
) -> Server:
    """A server for the sockets that `run` gets; `options` are uvicorn's, for TLS."""
    app = create_app(load, settings)
    shared = {"settings": settings, "metrics": app.state.service.metrics}
    disable_created_metrics()  # type: ignore[no-untyped-call]  # each would double a counter, for the time when it began
    protocol = type("Protocol", (DeadlineProtocol,), shared)
    config = uvicorn.Config(
        app,
        http=protocol,
        loop="asyncio",  # as `run` makes it, also where uvloop is installed
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client could name any address
        timeout_keep_alive=int(max(1, settings.deadlines.header_s)),
        timeout_graceful_shutdown=int(settings.deadlines.write_s) + 1,
        h11_max_incomplete_event_size=32 << 10,
        **options,
    )
    return Server(config, app.state.service)


@contextlib.contextmanager
def log_to_stderr(*, quiet: bool = False) -> Iterator[None]:
    """Write the access log, what the server is about and what goes wrong to standard error.

    `quiet` leaves out what the server is about.
    """
    handler = LogOutput(sys.stderr)
    before = []
    for name, level in (
        ("edgesppo.access", logging.INFO),
        ("edgesppo.server", logging.WARNING if quiet else logging.INFO),
        ("uvicorn.error", logging.ERROR),
    ):
        log = logging.getLogger(name)
        before.append((log, log.handlers, log.propagate, log.level))
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)
    try:
        yield
    finally:
        for log, handlers, propagate, level in before:
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)
        handler.flush()
        handler.close()


def end_with_input(server: Server) -> None:
    """Have the server drain as at a signal when standard input ends; what comes in is dropped."""

    def wait() -> None:
        with contextlib.suppress(OSError, ValueError):
            # The descriptor: a thread that waits in a buffered read would hold up the exit.
            while sys.stdin is not None and os.read(sys.stdin.fileno(), 1 << 12):
                pass
        if not server.is_draining:  # a parent that sends a signal, and ends, means it once
            server.handle_exit(signal.SIGTERM, None)

    threading.Thread(target=wait, daemon=True).start()


def run(server: Server, listener: socket.socket) -> None:
    """Serve on a listening socket until a signal ends it. Raises what loading the model raised."""
    asyncio.run(server.serve(sockets=[listener]))
    failure = server.service.worker.failure
    if failure is not None:
        raise failure
