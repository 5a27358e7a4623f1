"""Deadlines of a connection, with a clock and a transport that the test moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from edgesppo.server.metrics import Metrics
from edgesppo.server.protocol import DeadlineProtocol, _refuse
from edgesppo.server.settings import Deadlines, ServerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER_S, WRITE_S, TOTAL_S = 10.0, 30.0, 100.0


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose timers end when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[tuple[float, asyncio.TimerHandle]] = []

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, **_: Any
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(0, callback, args, self)
        self.timers.append((delay, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers = [timer for timer in self.timers if timer[1] is not handle]

    def pass_time(self, seconds: float) -> None:
        """End the one timer of so many seconds."""
        (timer,) = (timer for timer in self.timers if timer[0] == seconds)
        self.timers.remove(timer)
        timer[1]._run()


class Transport(asyncio.Transport):
    """A connection of which the test says how much was not yet taken."""

    def __init__(self) -> None:
        super().__init__()
        self.unsent = 0
        self.end = ""

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return bool(self.end)

    def close(self) -> None:
        self.end = "closed"

    def abort(self) -> None:
        self.end = "aborted"

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@pytest.fixture
def clock() -> Iterator[Clock]:
    loop = Clock()
    yield loop
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def connect(clock: Clock) -> tuple[DeadlineProtocol, Transport]:
    """A connection that was just made."""
    deadlines = Deadlines(header_s=HEADER_S, write_s=WRITE_S, total_s=TOTAL_S, body_s=0)
    shared = {"settings": ServerSettings(deadlines=deadlines), "metrics": Metrics()}
    kind = type("P", (DeadlineProtocol,), shared)
    config = uvicorn.Config(_refuse, log_config=None)
    config.load()
    protocol = kind(config=config, server_state=ServerState(), app_state={}, _loop=clock)
    transport = Transport()
    protocol.connection_made(transport)
    return protocol, transport


def test_who_sends_no_headers_is_disconnected(clock: Clock) -> None:
    _, transport = connect(clock)
    clock.pass_time(HEADER_S)
    assert transport.end == "closed"
    assert [delay for delay, _ in clock.timers] == [WRITE_S], "to part, with TLS"


def test_who_still_takes_an_answer_is_not_late_with_the_next_request(clock: Clock) -> None:
    _, transport = connect(clock)
    transport.unsent = 9000
    clock.pass_time(HEADER_S)
    transport.unsent = 8000
    clock.pass_time(WRITE_S)
    clock.pass_time(HEADER_S)
    assert not transport.is_closing()
    transport.unsent = 0
    clock.pass_time(HEADER_S)
    assert transport.end == "closed"


def test_who_takes_the_end_of_an_answer_no_more_is_disconnected(clock: Clock) -> None:
    _, transport = connect(clock)
    transport.unsent = 9000
    clock.pass_time(HEADER_S)
    clock.pass_time(WRITE_S)
    assert transport.end == "aborted"


def test_a_slow_reader_is_given_more_time_as_long_as_it_reads(clock: Clock) -> None:
    protocol, transport = connect(clock)
    transport.unsent = 90_000
    protocol.pause_writing()
    for unsent in (80_000, 70_000, 60_000):
        transport.unsent = unsent
        clock.pass_time(WRITE_S)
        assert not transport.is_closing()
    clock.pass_time(WRITE_S)
    assert transport.end == "aborted"


def test_who_sips_at_an_answer_has_so_long_and_no_longer(clock: Clock) -> None:
    protocol, transport = connect(clock)
    protocol.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    transport.unsent = 9000
    protocol.on_response_complete()
    clock.pass_time(TOTAL_S + WRITE_S)
    assert transport.end == "aborted"


def test_who_has_the_whole_answer_may_ask_again(clock: Clock) -> None:
    protocol, transport = connect(clock)
    protocol.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    protocol.on_response_complete()
    assert TOTAL_S + WRITE_S not in [delay for delay, _ in clock.timers]
    assert not transport.is_closing()


def test_after_a_request_with_two_lengths_the_connection_is_closed(clock: Clock) -> None:
    """What stands between may have taken the other one."""
    protocol, _ = connect(clock)
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    protocol.data_received(head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert protocol.cycle is not None
    assert not protocol.cycle.keep_alive


def test_a_reader_that_caught_up_is_watched_no_more(clock: Clock) -> None:
    protocol, transport = connect(clock)
    transport.unsent = 90_000
    protocol.pause_writing()
    protocol.resume_writing()
    assert [delay for delay, _ in clock.timers] == [HEADER_S]
