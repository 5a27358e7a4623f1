"""What fails without warning: told to the client in its dialect, logged, and counted."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.server.service import Answers
from tests.support.live_server import CHAT, Live, events, live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

HI = [{"role": "user", "content": "Hi"}]
FRIEND = "https://friend.example"
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HI},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/api/chat": {"messages": HI},
    "/api/generate": {"prompt": "Hi"},
}


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    with live(demo_gguf, access_log=True, origins=(FRIEND,)) as running:
        yield running


@pytest.fixture(autouse=True)
def failing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("of the test")

    monkeypatch.setattr(Answers, "_next", fail)
    for name in ("edgesppo.access", "edgesppo.server"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    caplog.set_level(logging.INFO)


def ask(server: Live, path: str, **more: Any) -> httpx.Response:
    asked = {"model": server.worker.backend.name, **ASKED[path], **more}
    return server.client.post(path, json=asked, headers={"Origin": FRIEND})


def count(server: Live, sample: str) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample))


def logged(server: Live, caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    """The status and the error in the access log; the traceback is in the server's."""

    def lines() -> list[Any]:
        found = [record for record in caplog.records if record.name == "edgesppo.access"]
        found = [json.loads(record.message) for record in found]
        return [line for line in found if line["error"]]

    server.wait_until(lambda: bool(lines()))
    (unexpected,) = {record for record in caplog.records if record.name == "edgesppo.server"}
    assert "in fail\n" in (unexpected.exc_text or "")  # where it came from
    return lines()[0]["status"], lines()[0]["error"]


@pytest.mark.parametrize("path", ASKED)
def test_a_stream_that_fails_says_so_and_is_logged_and_counted(
    server: Live, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    before = count(server, 'edgesppo_errors_total{code="internal_error"}')
    caplog.clear()
    response = ask(server, path, stream=True)
    assert response.status_code == 200
    assert logged(server, caplog) == (200, "internal_error")
    assert count(server, 'edgesppo_errors_total{code="internal_error"}') == before + 1
    if path.startswith("/api/"):
        last = json.loads(response.text.splitlines()[-1])
        assert "internal error" in last["error"]
        return
    last = events(response)[-1]
    assert last["error"]["code"] == "internal_error"
    if path == "/v1/responses":
        assert (last["type"], last["code"], last["sequence_number"]) == (
            "error",
            "internal_error",
            2,
        )
        assert "event: error\n" in response.text
        whole = server.client.get("/openapi.json").json()["components"]["schemas"]
        assert last.keys() <= whole["ResponseEvent"]["properties"].keys()


def test_an_unexpected_failure_is_a_500_with_all_headers(
    server: Live, caplog: pytest.LogCaptureFixture
) -> None:
    before = count(server, f'edgesppo_requests_total{{path="{CHAT}",status="500"}}')
    caplog.clear()
    response = ask(server, CHAT)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert response.headers["Access-Control-Allow-Origin"] == FRIEND
    assert response.headers["X-Request-Id"].startswith("req-")
    assert logged(server, caplog) == (500, "internal_error")
    assert count(server, f'edgesppo_requests_total{{path="{CHAT}",status="500"}}') == before + 1
