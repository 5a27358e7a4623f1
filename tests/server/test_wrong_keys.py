"""Who tries many API keys: they are not looked at any more, and nobody else waits for long."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from edgesppo.server import api_keys, wrong_keys
from edgesppo.server.errors import ApiError
from edgesppo.server.wrong_keys import PER_MINUTE, WrongKeys, peer
from tests.support.live_server import Live, live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYS = tuple(api_keys.parse([(1, "ada:secret-of-ada")], "here"))
ADA = {"Authorization": "Bearer secret-of-ada"}
MODELS = "/v1/models"


@pytest.fixture
def server(demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """A server whose clock, for wrong keys, stands still."""
    monkeypatch.setattr(WrongKeys.__init__, "__defaults__", (lambda: 0.0, 4096))
    with live(demo_gguf, keys=KEYS, access_log=True) as running:
        yield running


def scope(host: str) -> dict[str, Any]:
    return {"client": (host, 1234)}


def is_refused(wrong: WrongKeys, host: str) -> bool:
    try:
        wrong.require_few(scope(host))
    except ApiError:
        return True
    return False


def on_its_own(server: Live, key: str) -> int:
    """The status of a request with a key, on a connection of its own."""
    headers = {"X-Api-Key": key, "Connection": "close"}
    return server.client.get(MODELS, headers=headers).status_code


def guess(server: Live, n: int) -> list[int]:
    """Send `n` wrong keys."""
    return [on_its_own(server, f"secret-of-{i}") for i in range(n)]


def test_after_many_wrong_keys_none_is_looked_at(
    server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert guess(server, PER_MINUTE + 2) == [401] * PER_MINUTE + [429] * 2
    monkeypatch.setattr(api_keys, "find", lambda *_: pytest.fail("a key was compared"))
    refused = server.client.post("/v1/chat/completions", content=b"{", headers=ADA)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
    assert refused.json()["error"]["code"] == "too_many_wrong_keys"
    for path, status in (("/health", 200), ("/", 200), (MODELS, 401)):
        assert server.client.get(path).status_code == status, "without a key"


def test_a_connection_that_showed_a_right_key_goes_on_until_it_shows_a_wrong_one(
    server: Live,
) -> None:
    kept = httpx.Limits(keepalive_expiry=None)
    with httpx.Client(base_url=server.url, limits=kept, trust_env=False) as client:

        def ask(key: str) -> int:
            return client.get(MODELS, headers={"X-Api-Key": key}).status_code

        assert ask("secret-of-ada") == 200
        guess(server, PER_MINUTE)
        assert on_its_own(server, "secret-of-ada") == 429
        assert [ask("secret-of-ada") for _ in range(3)] == [200] * 3
        assert [ask("wrong-one"), ask("secret-of-ada")] == [401, 429]


def test_the_owner_sees_wrong_keys_in_the_figures_and_the_log(
    server: Live, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("edgesppo.access"), "propagate", True)
    with caplog.at_level(logging.INFO, "edgesppo.access"):
        assert server.client.get(MODELS, headers={"Connection": "close"}).status_code == 401
        guess(server, PER_MINUTE + 1)
        server.wait_until(lambda: len(set(caplog.messages)) >= PER_MINUTE + 2)
    lines = [*map(json.loads, dict.fromkeys(caplog.messages))]
    codes = ["invalid_api_key"] * (PER_MINUTE + 1) + ["too_many_wrong_keys"]
    assert sorted(line["error"] for line in lines) == codes  # a line comes after its answer
    assert {(line["client"], line["key"]) for line in lines} == {("127.0.0.1", None)}
    assert "secret-of" not in caplog.text
    figures = server.server.service.metrics.render().decode()
    assert f'edgesppo_requests_total{{path="{MODELS}",status="429"}} 1.0' in figures
    for reason, n in (("missing", 1), ("wrong", PER_MINUTE), ("too_many", 1)):
        assert f'edgesppo_key_refusals_total{{reason="{reason}"}} {n}.0' in figures


def test_an_address_waits_two_seconds_and_no_other_one_does() -> None:
    now = [0.0]
    wrong = WrongKeys(lambda: now[0])
    for _ in range(PER_MINUTE):
        assert not is_refused(wrong, "192.0.2.1")
        wrong.count(scope("192.0.2.1"))
    assert is_refused(wrong, "192.0.2.1")
    assert is_refused(wrong, "::ffff:192.0.2.1"), "the same address, written as of IPv6"
    assert not is_refused(wrong, "192.0.2.2")
    now[0] = 2.0
    assert not is_refused(wrong, "192.0.2.1")
    wrong.count(scope("192.0.2.1"))
    assert is_refused(wrong, "192.0.2.1")


def test_what_is_remembered_does_not_grow_with_the_addresses() -> None:
    wrong = WrongKeys(lambda: 0.0, most=8)
    for n in range(100):
        wrong.count(scope(f"192.0.2.{n}"))
    assert [*wrong._buckets] == [f"192.0.2.{n}" for n in range(92, 100)]


@pytest.mark.parametrize(
    ("client", "name"),
    [
        (None, wrong_keys._UNIX),
        (("192.0.2.1", 1), "192.0.2.1"),
        (("2001:db8::1", 1), "2001:db8::/64"),
        (("2001:db8::ffff:1", 1), "2001:db8::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (("::ffff:192.0.2.1", 1), "192.0.2.1"),
        (("testclient", 1), "testclient"),
    ],
)
def test_a_network_of_ipv6_is_one_address(client: Any, name: str) -> None:
    assert peer(client) == name
