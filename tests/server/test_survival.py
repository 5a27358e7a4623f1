"""What a server goes through in years, in minutes: crowds, clients that vanish, attacks.

Only with EDGESPPO_LONG=1. After each, memory, files, threads and sequences are as before, and a
greedy answer is byte for byte what it was.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import operator
import os
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from edgesppo.server.planners import PLANNERS
from edgesppo.server.settings import Deadlines
from tests.support.demo_questions import QUESTIONS
from tests.support.live_server import CHAT, GREEDY, Live, live
from tests.support.near_ties import is_near_tie
from tests.support.resources import native_handles, open_files, resident, threads
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel

pytestmark = pytest.mark.skipif(not LONG, reason="minutes; EDGESPPO_LONG=1 runs it")
FIRST = "What is the capital of France?"
N_CLIENTS = 500
CROWD = 64
CROWD_S = float(os.environ.get("EDGESPPO_CROWD_S", "300"))
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    soon = Deadlines(header_s=3, body_s=0.5, write_s=0.5, total_s=60)
    with live(demo_gguf, parallel=8, max_queue=200, deadlines=soon) as running:
        running.chat(FIRST)
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(server: Live) -> Iterator[None]:
    """The same resources, and the same answer, after the test as before it."""
    answer = said(server.chat(FIRST))
    before = settled(server)
    yield
    server.wait_idle()
    most = before[0], before[1], before[2] + PLANNERS
    server.wait_until(lambda: all(map(operator.le, settled(server), most)))
    assert settled(server)[3] < before[3] + 64 * MEBIBYTE
    assert said(server.chat(FIRST)) == answer


def settled(server: Live) -> tuple[int, int, int, int]:
    """Sequences and native handles, files, threads and memory."""
    gc.collect()
    return native_handles() + server.worker.n_running, open_files(), threads(), resident()


def said(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def test_a_crowd_gets_the_answers_that_each_would_get_alone(
    server: Live, demo: LoadedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    # pytest ends a test, and with it all, after 300 s.
    faulthandler.dump_traceback_later(CROWD_S + 300, exit=True, file=2)
    questions = [question.text for question in QUESTIONS[:20]]
    alone = {question: said(server.chat(question)) for question in questions}
    end = time.monotonic() + CROWD_S

    def ask(n: int) -> list[tuple[str, str]]:
        chance, found = random.Random(n), []
        with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
            while time.monotonic() < end:
                question = chance.choice(questions)
                body = {"messages": [{"role": "user", "content": question}], **GREEDY}
                found.append((question, said(client.post(CHAT, json=body))))
        return found

    with ThreadPoolExecutor(CROWD) as pool:
        answers = [answer for found in pool.map(ask, range(CROWD)) for answer in found]
    different = {(question, text) for question, text in answers if text != alone[question]}
    with capsys.disabled():
        print(f"\n{len(answers)} answers, {len(different)} of them parted at a near tie")
    for question, text in different:
        prompt = demo.tokenize(question, chat=True)
        one, other = (
            [*demo.tokenize(answer), demo._interior.engine.model.end_of_turn]
            for answer in (alone[question], text)
        )
        assert is_near_tie(demo._interior.engine.model, prompt, one, other, "q4_k_m"), (
            question,
            text,
        )


def test_clients_that_vanish_at_any_moment_leave_nothing_behind(server: Live) -> None:
    chance = random.Random(1)
    for _ in range(N_CLIENTS):
        vanish(server, chance)
    assert server.worker.n_waiting <= 200


def vanish(server: Live, chance: random.Random) -> None:
    """Connect, and leave before, in or after a request, or in the middle of its answer."""
    text = "word " * chance.choice([1, 50, 300])
    body = {"messages": [{"role": "user", "content": text}], "stream": chance.random() < 0.8}
    data = json.dumps({**body, "max_tokens": 100}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
        cut = chance.choice([0, 10, len(request) - 5, None, None, None])
        connection.sendall(request[:cut])
        if cut is None:
            if chance.random() < 0.3:
                connection.shutdown(socket.SHUT_WR)
            if chance.random() < 0.6:
                connection.settimeout(chance.choice([0.001, 0.02, 0.1]))
                with contextlib.suppress(OSError):
                    connection.recv(chance.choice([1, 100, 4096]))


def test_clients_of_a_byte_a_second_hold_nobody_up(server: Live) -> None:
    """Headers that come so slowly are cut off; answers that are read so slowly harm nobody."""
    asked = {"messages": [{"role": "user", "content": FIRST}], "stream": True, **GREEDY}
    data = json.dumps(asked).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
    with contextlib.ExitStack() as opened:

        def connect(first: bytes) -> socket.socket:
            connection = opened.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
            connection.sendall(first)
            return connection

        writers = [connect(request[:1]) for _ in range(100)]
        readers = [connect(request) for _ in range(50)]
        answer = said(server.chat(FIRST))
        for n in range(1, 8):
            for writer in writers:
                with contextlib.suppress(OSError):
                    writer.sendall(request[n : n + 1])
            assert {reader.recv(1) for reader in readers} == {b"HTTP/1."[n - 1 : n]}
            assert said(server.chat(FIRST)) == answer
            time.sleep(1)
        for writer in writers:  # the deadline is 3 s
            writer.settimeout(1)
            with contextlib.suppress(ConnectionError):
                while writer.recv(1000):
                    pass


HOSTILE_SCHEMAS: list[Any] = [
    {"$ref": "#"},
    {"$ref": "https://evil.example/schema"},
    {"type": "string", "pattern": "(a+)+$"},
    {"type": "string", "pattern": "(" * 5000},
    {"type": "string", "minLength": 10**9},
    {"type": "array", "minItems": 10**9, "items": {"type": "null"}},
    {"enum": [[]] * 5000},
    {"anyOf": [{"type": "object", "properties": {str(n): {}}} for n in range(3000)]},
    {"properties": {"a": {"properties": {"b": {"properties": {"c": {"$ref": "#"}}}}}}},
    {"type": "integer", "minimum": -(10**60), "maximum": 10**60},
    {"const": "root ::= x\n"},
    {
        "type": "object",
        "properties": {'"] ::= [^x': {"type": "string"}},
        "required": ['"] ::= [^x'],
    },
]


@pytest.mark.parametrize("number", range(len(HOSTILE_SCHEMAS)))
def test_hostile_schemas_are_followed_or_refused(server: Live, number: int) -> None:
    schema = HOSTILE_SCHEMAS[number]
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    tool = {"type": "function", "function": {"name": "x", "parameters": schema}}
    for more in ({"response_format": form}, {"tools": [tool], "tool_choice": "required"}):
        response = server.chat("Hi", **{**more, "max_tokens": 8})
        assert response.status_code in (200, 400), response.text


def test_bytes_that_are_no_request_are_answered_or_dropped(server: Live) -> None:
    chance = random.Random(2)
    port = int(server.url.rpartition(":")[2])
    for n in range(200):
        data = chance.choice(
            [
                chance.randbytes(chance.randrange(1, 3000)),
                b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
                b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: -5\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(n),
            ]
        )
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.settimeout(30)
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
                connection.recv(1)
