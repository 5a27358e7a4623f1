"""Many clients at once: batching, the queue, clients that go away, and the end of the server."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import edgesppo
from edgesppo.engine import request
from edgesppo.engine.runner import Runner
from edgesppo.errors import BadModelFile, OutOfMemory
from edgesppo.server import backend, jobs, worker
from edgesppo.server.backend import Backend
from edgesppo.server.settings import Deadlines
from tests.support.command_line import CAPITAL
from tests.support.live_server import CHAT, GREEDY, Live, events, live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.sampling.params import SamplingParams

QUESTIONS = [CAPITAL, "What is 2 plus 3?", "Who are you?", "What is the capital of Italy?"]
ENDLESS = {"temperature": 0, "max_tokens": 8000}
SOON = Deadlines(header_s=0.3, body_s=0.3, write_s=0.5, total_s=60, drain_s=20)


@pytest.fixture(scope="module")
def server(babbler: Path) -> Iterator[Live]:
    """One that answers two at a time, endlessly if asked, with two more waiting."""
    with live(babbler, parallel=2, max_queue=2, deadlines=SOON) as running:
        yield running


def body(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **ENDLESS, **more}


@pytest.fixture
def raw(server: Live) -> Iterator[Callable[..., socket.socket]]:
    """Opens connections, which are closed at the end."""
    with contextlib.ExitStack() as opened:
        yield lambda *args: opened.enter_context(connect(server, *args))


def connect(server: Live, asked: dict[str, Any], n_bytes: int | None = None) -> socket.socket:
    """A connection on which a request was sent, or the first bytes of one."""
    data = json.dumps(asked).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    connection.sendall(request[:n_bytes])
    return connection


def closed_by_server(connection: socket.socket) -> bool:
    connection.settimeout(30)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_answers_at_the_same_time_are_those_of_lone_requests(demo_gguf: Path) -> None:
    with live(demo_gguf, parallel=4) as server:
        with edgesppo.load(demo_gguf) as alone:
            expected = [alone.ask(question, **GREEDY) for question in QUESTIONS]

        def ask(n: int) -> str:
            found = events(server.chat(QUESTIONS[n % 4], stream=bool(n % 2)))
            if not n % 2:
                return ""
            return "".join(e["choices"][0]["delta"].get("content", "") for e in found[:-1])

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(16)))
        for n in range(1, 16, 2):
            assert answers[n] == expected[n % 4]
        server.wait_idle()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_sequence(server: Live, raw: Any, stream: bool) -> None:
    connection = raw(body("Hello", stream=stream))
    server.wait_until(lambda: server.worker.n_running == 1)
    if stream:
        assert connection.recv(10)
    connection.close()
    server.wait_idle()
    assert server.worker.n_running == 0


def test_a_client_that_goes_away_in_prefill_frees_its_sequence(server: Live, raw: Any) -> None:
    connection = raw(body("word " * 1000, stream=True))
    server.wait_until(lambda: server.worker.n_running == 1)
    connection.close()
    server.wait_idle()


def test_a_full_queue_refuses_and_who_waits_may_leave(server: Live, raw: Any) -> None:
    running = [raw(body("Hello", stream=True)) for _ in range(2)]
    server.wait_until(lambda: server.worker.n_running == 2)
    waiting = [raw(body("Hello", stream=True)) for _ in range(2)]
    server.wait_until(lambda: server.worker.n_waiting == 2)
    refused = server.chat("Hello")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert int(refused.headers["Retry-After"]) > 0
    waiting[0].close()
    server.wait_until(lambda: server.worker.n_waiting == 1)
    for connection in [*running, waiting[1]]:
        connection.close()
    server.wait_idle()


def test_without_a_queue_as_many_are_answered_as_there_are_sequences(demo_gguf: Path) -> None:
    with live(demo_gguf, parallel=8, max_queue=0) as server, ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: server.chat("Hi"), range(8))]
    assert [answer.status_code for answer in answers] == [200] * 8


def test_a_request_for_more_answers_than_there_are_sequences_waits(server: Live) -> None:
    answer = server.chat("Hello", n=4, max_tokens=5)
    assert answer.status_code == 200
    assert len({choice["message"]["content"] for choice in answer.json()["choices"]}) == 1
    assert answer.json()["usage"]["completion_tokens"] == 20


def test_a_question_does_not_wait_for_answers_that_wait_for_their_prompt(
    babbler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, asked = Backend.step, threading.Event()
    seen = set()  # how many answers have a sequence, and how many wait

    def watched(backend: Backend) -> None:
        step(backend)
        seen.add((server.worker.n_running, server.worker.n_waiting))
        asked.wait(30)

    monkeypatch.setattr(Backend, "step", watched)
    with live(babbler, parallel=3) as server, ThreadPoolExecutor() as pool:
        three = pool.submit(server.chat, "word " * 500, n=3, max_tokens=3)
        server.wait_until(lambda: server.worker.n_running == 1)
        short = pool.submit(server.chat, "Hello", max_tokens=3)
        server.wait_until(lambda: server.worker.n_waiting == 3)
        asked.set()
        assert (three.result().status_code, short.result().status_code) == (200, 200)
    assert (2, 2) in seen


def test_a_reader_that_takes_nothing_is_dropped_and_holds_nobody_up(server: Live, raw: Any) -> None:
    connection = raw(body("Hello", stream=True, max_tokens=7000))
    server.wait_until(lambda: server.worker.n_running == 1)
    assert server.chat("Hi", max_tokens=20).status_code == 200
    server.wait_idle()  # although nothing was read
    assert closed_by_server(connection)


@pytest.mark.parametrize("n_bytes", [0, 1, 30])
def test_headers_that_do_not_come_in_time_end_the_connection(raw: Any, n_bytes: int) -> None:
    assert closed_by_server(raw(body("Hello"), n_bytes))


def test_a_connection_that_is_kept_has_to_send_its_next_headers_in_time(raw: Any) -> None:
    connection = raw(body("Hello", max_tokens=1))
    connection.settimeout(30)
    assert b"200 OK" in connection.recv(65536)
    connection.sendall(b"GET /health HTTP/1.1\r\n")
    assert closed_by_server(connection)


def test_a_body_that_does_not_come_in_time_is_a_408(raw: Any) -> None:
    connection = raw(body("Hello"), -5)
    connection.settimeout(30)
    assert b" 408 " in connection.recv(65536)
    assert closed_by_server(connection)


def test_an_answer_that_takes_too_long_is_a_504(babbler: Path) -> None:
    with live(babbler, parallel=1, deadlines=Deadlines(total_s=0.1)) as server:
        response = server.client.post(CHAT, json=body("Hello"))
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        server.wait_idle()
        found = events(server.client.post(CHAT, json=body("Hello", stream=True)))
        assert found[-1]["error"]["code"] == "timeout"


def test_it_answers_while_the_model_loads_and_then_drains(babbler: Path) -> None:
    go = threading.Event()

    def load() -> Any:
        assert go.wait(60)
        return edgesppo.load(babbler)

    with live(load, ready=False, parallel=1, deadlines=SOON) as server:
        loading = server.client.get("/health")
        assert (loading.status_code, loading.json()["status"]) == (503, "loading")
        refused = server.chat("Hello")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_loading")
        assert refused.headers["Retry-After"]
        go.set()
        server.wait_until(lambda: server.client.get("/health").json()["status"] == "ok")
        with server.client.stream("POST", CHAT, json=body("Hi", stream=True, max_tokens=300)) as s:
            lines = s.iter_lines()
            next(lines)
            server.server.handle_exit(signal.SIGTERM, None)
            server.server.handle_exit(signal.SIGHUP, None)  # a terminal that is closed then
            assert server.client.get("/health").json()["status"] == "draining"
            refused = server.chat("Hello")
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
            assert [line for line in lines if line][-1] == "data: [DONE]"
        server.wait_until(lambda: not server.worker._thread.is_alive())
        with pytest.raises(httpx.TransportError):
            server.wait_until(lambda: not server.client.get("/health"))


def test_a_second_signal_ends_the_answers_at_once(babbler: Path) -> None:
    with live(babbler, parallel=1, deadlines=SOON) as server:
        with server.client.stream("POST", CHAT, json=body("Hi", stream=True)) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.server.handle_exit(signal.SIGTERM, None)
            server.server.handle_exit(signal.SIGTERM, None)
            last = [line for line in lines if line][-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "server_stopped"


@pytest.mark.parametrize("where", [(Backend, "step"), (Backend, "begin"), (Runner, "sample")])
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(MemoryError(), 503, "out_of_memory"), (ValueError("a bug"), 500, "internal_error")],
)
def test_a_fault_ends_an_answer_and_not_the_server(
    server: Live,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[Any, str],
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
    status: int,
    code: str,
) -> None:
    monkeypatch.setattr(logging.getLogger("edgesppo.server"), "propagate", True)
    monkeypatch.setattr(backend, "_TRIED_S", 0)

    def fail(*_: object) -> None:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(*where, fail)
        refused = server.chat("Hi", max_tokens=5)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert caplog.text.count("ValueError: a bug") == (code == "internal_error")
    assert server.worker.backend._engine._schedule.requests() == []
    assert server.chat("Hi", max_tokens=5).status_code == 200


def test_a_step_is_tried_again_where_memory_was_short_for_a_moment(
    server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_RECOVERY_S", 0)
    run, faults = Runner.run, [MemoryError(), OutOfMemory("of the test")]

    def short(runner: Runner, *args: Any) -> None:
        if faults:
            raise faults.pop()
        run(runner, *args)

    monkeypatch.setattr(Runner, "run", short)
    assert server.chat("Hi", max_tokens=5).json()["usage"]["completion_tokens"] == 5
    assert not faults


def test_who_goes_away_while_memory_is_short_ends_the_wait_for_it(
    server: Live, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_TRIED_S", 600)
    monkeypatch.setattr(worker, "_RECOVERY_S", 600)

    def short(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Runner, "run", short)
    connection = raw(body("Hello", stream=True))
    server.wait_until(lambda: server.worker.n_running == 1)
    connection.close()
    server.wait_idle()


def test_a_model_file_that_was_written_to_ends_the_server(demo_gguf: Path, tmp_path: Path) -> None:
    """It can answer nobody any more; what started it may start it again."""
    path = Path(shutil.copy(demo_gguf, tmp_path / "own.gguf"))
    with live(path) as server:
        assert server.chat("Hi").status_code == 200
        os.utime(path, (1, 1))
        assert server.chat("Hi").json()["error"]["code"] == "server_failed"
        assert isinstance(server.worker.failure, BadModelFile)
        server.wait_until(lambda: server.server.should_exit)


def test_more_answers_than_can_ever_wait_are_a_400(server: Live) -> None:
    refused = server.chat("Hi", n=5, max_tokens=1)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")


def test_samplers_that_take_long_to_build_hold_up_no_answer(
    server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only so many wait for them."""
    go_on, build = threading.Event(), request.build_chain

    def build_slowly(params: SamplingParams, *args: Any, **more: Any) -> Any:
        assert not params.dry_multiplier or go_on.wait(30)
        return build(params, *args, **more)

    monkeypatch.setattr(request, "build_chain", build_slowly)
    planners = server.server.service._planners
    most, slow = planners._most(), {"dry_multiplier": 0.5, "max_tokens": 2}
    with ThreadPoolExecutor(most) as pool:
        first = pool.submit(server.chat, "Hi", **slow)
        server.wait_until(lambda: planners._n_planned.total() == 1)
        assert server.chat("Hi", max_tokens=5).status_code == 200
        assert not first.done()
        others = [pool.submit(server.chat, "Hi", **slow) for _ in range(most - 1)]
        server.wait_until(lambda: planners._n_planned.total() == most)
        refused = server.chat("Hi", max_tokens=5)
        go_on.set()
        statuses = [one.result().status_code for one in (first, *others)]
    assert statuses.count(200) >= 4, "two are computed, and two may wait"
    assert {*statuses} <= {200, 429}
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")


def test_the_first_answer_begins_with_those_that_are_being_planned(
    server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_GATHER_S", 60)
    found = server.server.service._jobs
    server.wait_idle()
    with ThreadPoolExecutor(2) as pool:
        with found.planned():
            first = pool.submit(server.chat, "Hi", max_tokens=2)
            server.wait_until(lambda: found.n_waiting == 1)
            second = pool.submit(server.chat, "Hello", max_tokens=2)
            server.wait_until(lambda: found.n_waiting == 2)
            assert found.n_running == 0
        assert [one.result().status_code for one in (first, second)] == [200, 200]
