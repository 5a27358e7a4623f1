"""Keys take turns: what one of them runs makes way for another, and goes on afterwards."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo.engine import request
from edgesppo.server import api_keys
from edgesppo.server.backend import Backend
from tests.support.live_server import CHAT, Live, live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = ("ada", "bob", "cleo")
KEYS = tuple(api_keys.parse(enumerate((f"{n}:secret-of-{n}" for n in NAMES), 1), "here"))
N_CTX = 1024


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "TURN_S", 0.05)


@contextmanager
def serving(babbler: Path, parallel: int) -> Iterator[Live]:
    def load() -> Any:
        return edgesppo.load(babbler, n_seqs=parallel, n_ctx=N_CTX)

    with live(load, keys=KEYS) as server:
        yield server


def ask(server: Live, name: str, text: str, max_tokens: int, **more: Any) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": text}], "temperature": 0}
    headers = {"Authorization": f"Bearer secret-of-{name}"}
    body = {**asked, "max_tokens": max_tokens, **more}
    response = server.client.post(CHAT, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return json.loads(response.text)


def running(server: Live) -> list[str]:
    return [job.owner for job in server.worker._jobs.running() if job.generation.request.slot]


def texts(answer: dict[str, Any]) -> list[str]:
    return [choice["message"]["content"] for choice in answer["choices"]]


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_key_that_holds_every_sequence_makes_way_and_goes_on_where_it_was(
    babbler: Path, parallel: int
) -> None:
    n = 900 // parallel
    with serving(babbler, parallel) as server, ThreadPoolExecutor() as pool:
        alone = texts(ask(server, "ada", "Hi", n, n=parallel))
        first = pool.submit(ask, server, "ada", "Hi", n, n=parallel)
        server.wait_until(lambda: running(server) == ["ada"] * parallel)
        ask(server, "bob", "Hello", 3)
        assert not first.done()
        answer = first.result()
    assert texts(answer) == alone
    assert answer["usage"]["completion_tokens"] == n * parallel


def test_a_key_that_holds_the_whole_context_makes_way(babbler: Path) -> None:
    with serving(babbler, 2) as server, ThreadPoolExecutor() as pool:
        first = pool.submit(ask, server, "ada", prompt(server, 500), 500)
        server.wait_until(lambda: running(server) == ["ada"])
        (job,) = server.worker._jobs.running()
        ask(server, "bob", prompt(server, 600), 3)
        assert not first.done()
        assert first.result()["usage"]["completion_tokens"] == 500
    assert job.generation.request.turn_s > request.TURN_S, "it was put back"


def test_a_short_prompt_does_not_wait_behind_the_long_one_of_another_key(
    babbler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "TURN_S", 3600.0)
    step = Backend.step

    def unhurried(backend: Backend) -> None:
        """Take a step of at least 2 ms: the answer that runs must not end before the test."""
        time.sleep(0.002)
        step(backend)

    monkeypatch.setattr(Backend, "step", unhurried)
    with serving(babbler, 3) as server, ThreadPoolExecutor() as pool:
        first = pool.submit(ask, server, "ada", prompt(server, 500), 500)
        server.wait_until(lambda: running(server) == ["ada"])
        long = pool.submit(ask, server, "bob", prompt(server, 600), 3)
        crowded = server.worker.backend._engine._schedule
        server.wait_until(lambda: crowded._crowded)
        assert (server.worker.n_running, server.worker.n_waiting) == (1, 1)
        ask(server, "cleo", "Hello", 3)
        assert not first.done()
        assert not long.done()
        assert long.result()["usage"]["completion_tokens"] == 3
        assert first.done()


def prompt(server: Live, n_tokens: int) -> str:
    """A text of about so many tokens."""
    word = " b a"
    return word * (n_tokens // len(server.worker.backend.tokenize(word)))
