"""Who may use the server: Host, Origin, API keys and their budgets, and who shares a cache."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.errors import UsageError
from edgesppo.sampling.params import SamplingParams
from edgesppo.server import api_keys, guard
from edgesppo.server.backend import Backend
from edgesppo.server.errors import ApiError
from edgesppo.server.fair_queue import FairQueue
from edgesppo.server.job import Job
from edgesppo.server.jobs import Jobs
from edgesppo.server.settings import Limits
from tests.support.live_server import Live, live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYS = tuple(
    api_keys.parse(enumerate(["ada:secret-of-ada", "bob:secret-of-bob requests=3"], 1), "here")
)
ADA, BOB = ({"Authorization": f"Bearer secret-of-{name}"} for name in ("ada", "bob"))


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    with live(demo_gguf, keys=KEYS, origins=("https://friend.example",)) as running:
        yield running


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.7", "", "[::1"],
)
def test_a_name_that_is_not_this_machines_is_refused(server: Live, host: str) -> None:
    response = server.client.get("/health", headers={"Host": host})
    assert response.status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:9", "[::1]:80"])
def test_this_machines_names_are_accepted(server: Live, host: str) -> None:
    assert server.client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["pi.local:18471", "http://nas.local", "*", "pi.local/", ""])
def test_a_host_that_no_request_could_name_is_refused_at_the_start(host: str) -> None:
    with pytest.raises(UsageError, match=r"--allow-host is .*, expected a name alone"):
        guard.check_names([host], [])


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "app.example.org",
        "https://app.example.org/",
        "https://A.example",
        "http://a.example:80",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(UsageError, match=r"--allow-origin is .*, expected an origin as browsers"):
        guard.check_names([], [origin])


def test_hosts_and_origins_as_requests_name_them_are_accepted() -> None:
    hosts = ["pi.local", "NAS", "my_pi", "192.168.0.7", "fd00::7"]
    guard.check_names(
        hosts, ["null", "https://a.example", "http://[::1]:3000", "app://obsidian.md"]
    )


def test_pages_of_other_sites_are_refused_unless_named(server: Live) -> None:
    def ask(origin: str) -> tuple[int, str | None]:
        response = server.client.get("/health", headers={"Origin": origin})
        return response.status_code, response.headers.get("Access-Control-Allow-Origin")

    assert ask("https://evil.example") == (403, None)
    assert ask("null") == (403, None)
    assert ask(server.url)[0] == 200
    assert ask(server.url.replace("http:", "https:"))[0] == 200  # a proxy makes it so
    assert ask(server.url.replace("http:", "ftp:"))[0] == 403
    assert ask("http://127.0.0.1:1")[0] == 403
    assert ask("https://friend.example") == (200, "https://friend.example")


def test_openais_client_in_a_page_that_was_named_is_let_through(server: Live) -> None:
    """A browser asks first, with the headers that the client will send."""
    asked = {
        "Origin": "https://friend.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-stainless-lang,x-stainless-os",
        "Access-Control-Request-Private-Network": "true",
    }
    for origin, status in ((asked["Origin"], 200), ("https://evil.example", 400)):
        headers = {**asked, "Origin": origin}
        response = server.client.options("/v1/chat/completions", headers=headers)
        assert response.status_code == status, response.text
    response = server.client.options("/v1/chat/completions", headers=asked)
    assert "x-stainless-os" in response.headers["Access-Control-Allow-Headers"]
    assert response.headers["Access-Control-Allow-Private-Network"] == "true"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/chat", {}, 200),
        ("/api/chat", {"Content-Type": ""}, 200),
        ("/api/chat", {"Content-Type": "text/plain"}, 200),
        ("/api/chat", {"Origin": "https://evil.example"}, 403),
        ("/api/chat", {"Origin": "https://friend.example"}, 415),
        ("/api/chat", {"Sec-Fetch-Site": "cross-site"}, 415),
        ("/api/chat", {"Sec-Fetch-Site": "none"}, 415),
        ("/v1/chat/completions", {}, 415),
    ],
)
def test_only_ollamas_routes_take_json_of_another_type_and_from_no_browser(
    server: Live, path: str, headers: dict[str, str], status: int
) -> None:
    """As curl -d sends it, and as a page of another site could."""
    body = json.dumps({"model": server.worker.backend.name, "messages": []}).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded", **ADA}
    response = server.client.post(path, content=body, headers={**form, **headers})
    assert response.status_code == status, response.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer secret-of-ad"},
        {"Authorization": "Bearer secret-of-adA"},
        {"Authorization": "Bearer secret-of-ada2"},
        {"Authorization": "Basic secret-of-ada"},
        {"Authorization": "Bearer ada:secret-of-ada"},
        {"Authorization": "Bearer s\u00e9cret".encode("latin-1").decode("latin-1")},
        {"X-Api-Key": "secret"},
    ],
)
def test_without_a_right_key_nothing_is_answered(server: Live, headers: dict[str, str]) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    for path in ("/v1/models", "/metrics", "/openapi.json"):
        response = server.client.get(path, headers=encoded)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert server.client.get("/health").status_code == 200


def test_a_right_key_is_accepted_in_both_headers(server: Live) -> None:
    for headers in (ADA, {"X-Api-Key": "secret-of-ada"}):
        assert server.client.get("/v1/models", headers=headers).status_code == 200


def test_keys_share_no_cache_and_their_budgets_end(server: Live) -> None:
    asked = {"messages": [{"role": "user", "content": "What is 2 plus 3?"}], "max_tokens": 1}

    def cached(headers: dict[str, str]) -> int:
        response = server.client.post("/v1/chat/completions", json=asked, headers=headers)
        assert response.status_code == 200, response.text
        found: int = response.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        return found

    assert cached(ADA) == 0
    assert cached(ADA) > 5
    assert [cached(BOB) > 5 for _ in range(3)] == [False, True, True]
    assert cached(ADA) > 5
    refused = server.client.post("/v1/chat/completions", json=asked, headers=BOB)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "short",
        "a:short",
        "a b:secret-of-c",
        "x:secret-of-x tokens=0",
        "x:secret-of-x lives=9",
        "x:secret-of-ünal",
        "x:secret-of-x\nx:secret-of-y",
        "x:secret-of-x\ny:secret-of-x",
    ],
)
def test_a_bad_file_of_keys_is_refused_without_showing_a_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        api_keys.read_file(path)
    assert "secret" not in str(refused.value)


def test_a_missing_file_of_keys_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        api_keys.read_file(tmp_path / "none")


def test_several_keys_are_read_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\nada:secret-of-ada tokens=5\n\nsecret-alone\n", encoding="utf-8")
    ada, other = api_keys.read_file(path)
    assert (ada.name, ada.tokens, ada.requests, other.name) == ("ada", 5, None, "key-2")
    assert api_keys.find([ada, other], "secret-alone") == other


def test_owners_take_turns_whoever_asks_most() -> None:
    def job(owner: str) -> Job:
        return Job([1], SamplingParams(), owner=owner)

    queue = FairQueue()
    for owner in ("ada", "ada", "ada", "bob", "eve"):
        queue.add(job(owner))
    order, running = [], {"eve": 1}
    while (next_ := queue.pop(running)) is not None:
        order.append(next_.owner)
    assert order == ["ada", "bob", "ada", "ada", "eve"]
    assert not len(queue)


def test_every_key_finds_a_place_in_the_queue_however_many_there_are() -> None:
    jobs = Jobs(12, n_keys=8)
    for owner in "abcdefgh":
        n_waiting = jobs.n_waiting
        with contextlib.suppress(ApiError):
            for _ in range(12):
                jobs.add([Job([1], SamplingParams(), owner=owner)], n_seqs=0)
        assert jobs.n_waiting > n_waiting
    assert jobs.n_waiting <= 12


@pytest.mark.parametrize(
    ("host", "name"),
    [("a.b:80", "a.b"), ("A.b.", "a.b"), ("[::1]:80", "::1"), ("a:b", None), ("[::1]x", None)],
)
def test_the_name_is_found_in_a_host_header(host: str, name: str | None) -> None:
    assert guard.host_name(host) == name


def test_a_restart_keeps_the_cache_for_its_own_key(demo_gguf: Path, tmp_path: Path) -> None:
    text = "What is the capital of France? " * 6
    asked = {"messages": [{"role": "user", "content": text}], "max_tokens": 4, "temperature": 0}
    options: dict[str, Any] = {"snapshot_folder": tmp_path / "kv", "snapshot_bytes": 1 << 30}

    def ask(server: Live, key: dict[str, str]) -> tuple[str, int]:
        body = server.client.post("/v1/chat/completions", json=asked, headers=key).json()
        cached: int = body["usage"]["prompt_tokens_details"]["cached_tokens"]
        return body["choices"][0]["message"]["content"], cached

    with live(demo_gguf, keys=KEYS, **options) as server:
        answer, cached = ask(server, ADA)
        assert cached == 0
        server.end()
    (path,) = (tmp_path / "kv").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    with live(demo_gguf, keys=KEYS, **options) as server:
        assert ask(server, BOB) == (answer, 0)
        again, cached = ask(server, ADA)
        assert again == answer
        assert cached > 32
    others = tuple(api_keys.parse([(1, "ada:another-secret")], "here"))
    with live(demo_gguf, keys=others, **options) as server:
        headers = {"Authorization": "Bearer another-secret"}
        assert ask(server, headers) == (answer, 0)


@pytest.mark.skipif(sys.platform == "darwin", reason="this machine is only 127.0.0.1 there")
def test_one_address_without_a_key_does_not_shut_others_out(demo_gguf: Path) -> None:
    """Who has shown a right key goes on, and so does who comes from another address."""

    def connect(address: str) -> socket.socket:
        port = int(server.url.rpartition(":")[2])
        return socket.create_connection(("127.0.0.1", port), 30, (address, 0))

    def status(connection: socket.socket) -> int:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return int(connection.recv(99).split()[1])

    limits = Limits(connections=9, keyless=3)
    with live(demo_gguf, keys=KEYS, limits=limits) as server, ExitStack() as open_:
        assert server.client.get("/v1/models", headers=ADA).status_code == 200
        idle = [open_.enter_context(connect("127.0.0.1")) for _ in range(12)]
        assert status(open_.enter_context(connect("127.0.0.2"))) == 200
        assert [status(one) for one in idle] == [200] * 3 + [503] * 9
        assert server.client.get("/v1/models", headers=ADA).status_code == 200
        text = server.client.get("/metrics", headers=ADA).text
        assert 'refused_connections_total{reason="too_many_of_address"} 9' in text


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="this system has no such options")
def test_the_system_asks_whether_a_silent_client_is_there(server: Live) -> None:
    server.client.get("/health")
    (connection, *_) = server.server.server_state.connections
    found = connection.transport.get_extra_info("socket")
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    options = [found.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
    assert options == [30, 10, 3]


def test_a_key_that_asks_for_much_leaves_room_for_others(
    babbler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Backend.step

    def unhurried(backend: Backend) -> None:
        """Take a step of at least 2 ms: the answer that runs must not end before the test."""
        time.sleep(0.002)
        step(backend)

    monkeypatch.setattr(Backend, "step", unhurried)
    greedy = {"temperature": 0, "max_tokens": 8000}  # else it may end at any token
    asked = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, **greedy}
    with live(babbler, parallel=1, keys=KEYS, max_queue=4) as server, ExitStack() as open_:

        def ask(headers: dict[str, str], n: int) -> int:
            path, body = "/v1/chat/completions", {**asked, "n": n}
            stream = server.client.stream("POST", path, json=body, headers=headers)
            return open_.enter_context(stream).status_code

        assert ask(ADA, 3) == 200  # one runs, two wait
        server.wait_until(lambda: server.worker.n_running == 1)
        assert ask(ADA, 1) == 429
        assert server.worker.n_waiting == 2
        with ThreadPoolExecutor() as pool:  # it waits, so its headers come late
            waiting = pool.submit(ask, BOB, 1)
            server.wait_until(lambda: server.worker.n_waiting == 3)
            server.server.handle_exit(signal.SIGTERM, None)
            server.server.handle_exit(signal.SIGTERM, None)
            assert waiting.result() == 503
