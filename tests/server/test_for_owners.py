"""What the owner of a server sees: its log, its figures, its state; and forgiving addresses."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.server import listen
from edgesppo.server.backend import Backend
from edgesppo.server.normalize_path import normalize_path
from edgesppo.server.settings import ServerSettings
from tests.support.live_server import CHAT, live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.live_server import Live


def body(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    with live(demo_gguf, aliases=("gpt-4o-mini",), access_log=True) as running:
        yield running


def test_the_log_tells_what_was_asked_for(
    server: Live, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("edgesppo.access"), "propagate", True)
    with caplog.at_level(logging.INFO, "edgesppo.access"):
        server.client.get("/v1/modelz")
        server.client.get("/v1/models", headers={"Host": "evil.example"})
        server.client.get("/" + "x" * 300)
        for file in re.findall(r'"(/page/[^"]+)"', server.client.get("/").text)[:3]:
            assert server.client.get(file).status_code == 200
        server.client.get("/v1/models")
        server.wait_until(lambda: len(set(caplog.messages)) >= 5)
    lines = map(json.loads, dict.fromkeys(caplog.messages))
    paths = [line["path"] for line in lines]
    assert paths == ["/v1/modelz", "/v1/models", "/" + "x" * 79 + "...", "/", "/v1/models"]


def test_figures_tell_model_version_and_readiness_once(server: Live) -> None:
    figures = server.client.get("/metrics").text
    assert re.search(r'edgesppo_info\{model="demo-q4_k_m",version="[\d.]+"\} 1', figures)
    assert figures.count("edgesppo_info{") == 1
    assert "edgesppo_ready 1.0" in figures


def test_times_between_tokens_are_those_of_tokens(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not of what ends an answer. An answer that fails has none."""

    def fail(*_: object) -> None:
        raise MemoryError

    with live(demo_gguf) as server:
        with monkeypatch.context() as patch:
            patch.setattr(Backend, "step", fail)
            assert server.chat("Hi").status_code == 503
        usage = server.chat("Hi", max_tokens=9).json()["usage"]
        figures = server.client.get("/metrics").text
    assert "edgesppo_time_to_first_token_seconds_count 1.0" in figures
    between = usage["completion_tokens"] - 1
    assert f"edgesppo_inter_token_seconds_count {float(between)}" in figures


def test_a_step_has_an_age_only_while_something_is_computed(babbler: Path) -> None:
    with live(babbler) as server:
        check_age(server)


def check_age(server: Live) -> None:
    assert server.client.get("/health").json()["last_step_age_s"] is None
    endless = {"max_tokens": 400, "logit_bias": {"1": -100, "107": -100}}
    with server.client.stream("POST", CHAT, json=body("Hi", stream=True, **endless)) as answer:
        lines = answer.iter_lines()  # kept: httpx closes what nobody iterates any more
        next(lines)
        found = server.client.get("/health").json()
        assert (found["active"], type(found["last_step_age_s"])) == (1, float)


def test_an_alias_is_the_model_and_another_name_is_not(server: Live) -> None:
    for model, status in (("gpt-4o-mini", 200), ("demo-q4_k_m", 200), ("gpt-4o", 404)):
        asked = server.client.post(CHAT, json=body("Hi", model=model, max_tokens=1))
        assert asked.status_code == status


def test_slashes_too_many_are_forgiven_and_a_missing_v1_is_named(server: Live) -> None:
    for path in ("/v1/models/", "//v1/models", "/v1//models"):
        assert server.client.get(f"{server.client.base_url}".rstrip("/") + path).status_code == 200
    missing = server.client.post("/chat/completions", json=body("Hi")).json()["error"]["message"]
    assert "did you mean /v1/chat/completions?" in missing
    assert [normalize_path(path) for path in ("/", "//", "/page/", "/a/")] == [
        "/",
        "/",
        "/page/",
        "/a",
    ]


def test_what_the_model_cannot_do_is_said(server: Live) -> None:
    for path in ("/api/embed", "/api/embeddings"):
        answer = server.client.post(path, json={"model": "demo", "input": "x"})
        assert (answer.status_code, "no embeddings" in answer.json()["error"]) == (501, True)
    for more, param in (({"n": 100}, "n"), ({"max_tokens": 10**6}, "max_tokens")):
        error = server.client.post(CHAT, json=body("Hi", **more)).json()["error"]
        assert (error["code"], error["param"]) == ("invalid_value", param)


def test_an_address_for_other_machines_is_told_with_its_dangers() -> None:
    settings = ServerSettings(host="0.0.0.0")
    with listen.on_address("0.0.0.0", 0) as listener:
        *_, plain = listen.notes(listener, settings, tls=False)
        assert "can read the API keys" in plain
        for note in listen.notes(listener, settings, tls=True):
            assert re.match(r"From other machines: https://[\d.]+:\d+; by a name only with", note)
    with listen.on_address("127.0.0.1", 0) as listener:
        assert not [*listen.notes(listener, ServerSettings(), tls=False)]
    if hasattr(socket, "AF_UNIX") and os.name == "posix":
        with socket.socket(socket.AF_UNIX) as unix:
            assert not [*listen.notes(unix, settings, tls=False)]
