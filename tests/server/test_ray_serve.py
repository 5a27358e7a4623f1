"""A server on each machine of a Ray cluster: its parts; with EDGESPPO_LONG=1 all of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.errors import BadModelFile, UsageError
from edgesppo.server import api_keys, ray_serve
from edgesppo.server.ray_serve import Gateway, MachineServer, conversation
from edgesppo.server.settings import ServerSettings
from edgesppo.store import verify
from tests.support.command_line import CAPITAL
from tests.support.ray_processes import actors
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

PARIS = "The capital of France is Paris."
ADA = {b"authorization": b"Bearer secret-of-ada"}


def body(*texts: str, **more: Any) -> bytes:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return json.dumps({"messages": messages, **more}).encode()


def test_a_conversation_has_one_name_from_turn_to_turn() -> None:
    first = conversation(ADA, body("Hi"))
    assert first
    assert conversation(ADA, body("Hi", "Hello", "And now?", temperature=0)) == first
    assert conversation(ADA, body("Ho", "Hello", "And now?")) != first
    assert conversation({b"x-api-key": b"secret-of-bob"}, body("Hi")) != first
    system = [{"role": "system", "content": "s"}]
    names = {
        conversation(
            ADA, json.dumps({"messages": [*system, {"role": "user", "content": text}]}).encode()
        )
        for text in ("Hi", "Ho")
    }
    assert len(names) == 2


@pytest.mark.parametrize("data", [b"", b"no", b"[1]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_conversation_has_no_name(data: bytes) -> None:
    assert conversation({}, data) == ""


def scope(path: str = "/v1/chat/completions", method: str = "POST") -> dict[str, Any]:
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    named = {"type": "http", "method": method, "path": path, "raw_path": path.encode()}
    fixed = {"http_version": "1.1", "scheme": "http", "query_string": b"", "root_path": ""}
    return {**named, **fixed, "headers": headers, "client": ("127.0.0.1", 1), "server": ("h", 1)}


class _Handle:
    """Ray's handle of machines, with one machine, which is here."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine
        self.names: list[str] = []
        self.answer = self

    def options(self, *, stream: bool, session_id: str) -> _Handle:
        assert stream
        self.names.append(session_id)
        return self

    def remote(self, sent: dict[str, Any], data: bytes) -> AsyncIterator[Any]:
        return self._machine.answer(sent, data)


class _Lost(Exception):
    """What Ray raises if a machine is lost."""


class _Losing:
    """Machines that are lost one after the other, each after so many messages."""

    def __init__(self, *n_messages: int) -> None:
        self._left = [*n_messages]

    async def answer(self, _scope: Any, _body: bytes) -> AsyncIterator[str]:
        n = self._left.pop(0)
        for i in range(min(n, 3)):
            yield f"message {i}"
        if n < 3:
            raise _Lost


@pytest.mark.parametrize(
    ("n_messages", "n_sent", "n_left", "fails"),
    [
        ((3, 3), 3, 1, False),
        ((0, 0, 3, 3), 3, 1, False),  # lost before they began
        ((0, 0, 0, 3), 0, 1, True),
        ((1, 3), 1, 1, True),  # what was sent cannot be sent again
    ],
)
def test_a_request_whose_machine_is_lost_before_it_answers_goes_to_another(
    n_messages: tuple[int, ...], n_sent: int, n_left: int, *, fails: bool
) -> None:
    machines = _Losing(*n_messages)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": body("Hi")}

    gateway = Gateway(_Handle(machines), 1 << 20, lost=(_Lost,))
    with pytest.raises(_Lost) if fails else contextlib.nullcontext():
        asyncio.run(gateway({**scope(), "state": {}}, receive, send))
    assert (len(sent), len(machines._left)) == (n_sent, n_left)


def test_a_gateway_hands_a_request_to_a_machine_and_its_answer_back(demo_gguf: Path) -> None:
    keys = api_keys.parse([(1, "ada:secret-of-ada")], "here")

    async def talk() -> tuple[list[Any], list[str]]:
        machine = MachineServer(str(demo_gguf), 2, ServerSettings(access_log=False))
        handle = _Handle(machine)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        asked: list[tuple[dict[str, Any], Any]] = [
            ({}, *ADA.items()),
            ({"stream": True}, *ADA.items()),
        ]
        for more, header in [*asked, ({"max_tokens": 1}, (b"x-api-key", b"secret-of-eve"))]:
            request = scope()
            request["headers"] = [*request["headers"], header]
            parts = [{"type": "http.request", "body": body(CAPITAL, temperature=0, **more)}]

            async def receive(parts: list[Any] = parts) -> Any:
                return parts.pop()

            await Gateway(handle, 1 << 20, keys)({**request, "state": {}}, receive, send)
        await machine.check_health()
        await machine.close()
        return sent, handle.names

    messages, names = asyncio.run(talk())
    assert [m["status"] for m in messages if "status" in m] == [200, 200, 200]
    whole, streamed = (m.get("body", b"") for m in messages[1:2]), b""
    assert PARIS in json.loads(b"".join(whole))["choices"][0]["message"]["content"]
    streamed = b"".join(m.get("body", b"") for m in messages[3:-2])
    assert streamed.endswith(b"data: [DONE]\n\n")
    assert names[0] == names[1] != ""
    assert names[2] == "", "a stranger's conversation is not remembered"


def test_an_answer_that_is_left_ends(babbler: Path) -> None:
    async def leave() -> int:
        machine = MachineServer(str(babbler), 1, ServerSettings(access_log=False))
        asked = body("Hi", stream=True, max_tokens=8000)
        answer: Any = machine.answer(scope(), asked)
        async for message in answer:
            if message.get("body"):
                break
        await answer.aclose()
        service = machine._app.state.service
        for _ in range(1000):
            if service.is_idle:
                break
            await asyncio.sleep(0.01)
        left = int(service.worker.n_running)
        await machine.close()
        return left

    assert asyncio.run(leave()) == 0


def test_a_machine_holds_its_files_against_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify.CheckedFile, "is_sound", property(lambda _: False))
    with pytest.raises(BadModelFile, match="not what the lock says of demo"):
        MachineServer("demo", 1, ServerSettings())


@pytest.mark.parametrize(
    ("args", "key", "said"),
    [
        ({"model": "demo"}, "", "needs API keys"),
        ({}, "ada:secret-of-ada", "expected model"),
        ({"model": "demo", "machine": 1}, "ada:secret-of-ada", "expected model"),
        ({"model": "demo", "machines": "many"}, "ada:secret-of-ada", "machines"),
    ],
)
def test_an_application_without_keys_or_with_other_arguments_is_refused(
    monkeypatch: pytest.MonkeyPatch, args: dict[str, Any], key: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray.serve", object())  # type: ignore[arg-type]
    monkeypatch.setenv("EDGESPPO_API_KEY", key)
    with pytest.raises(UsageError, match=said):
        ray_serve.app(args)


def test_a_machine_is_full_long_before_its_queue_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def deployment(made: type[Any], **options: Any) -> Any:
        asked[made.__name__] = options
        return SimpleNamespace(bind=lambda *_: None)

    serve = SimpleNamespace(deployment=deployment, ingress=lambda: lambda made: made)
    config = SimpleNamespace(RequestRouterConfig=lambda **options: options)
    monkeypatch.setitem(sys.modules, "ray.serve", serve)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "ray.serve.config", config)  # type: ignore[arg-type]
    monkeypatch.setenv("EDGESPPO_API_KEY", "ada:secret-of-ada")
    ray_serve.app({"model": "demo", "machines": "2", "parallel": "3"})
    assert asked["MachineServer"]["max_ongoing_requests"] == 6
    assert asked["Ingress"]["max_ongoing_requests"] > 2 * 6


class Talk:
    """A conversation with the server."""

    def __init__(self, client: httpx.Client, first: str) -> None:
        self._client = client
        self._said = [first]

    def ask(self, then: str) -> int:
        """Get the answer, and say something more; the tokens of the prompt that were cached."""
        response = self._client.post(
            "/v1/chat/completions",
            content=body(*self._said, temperature=0, max_tokens=8),
            headers={"Content-Type": "application/json"},
        )
        assert response.status_code == 200, response.text
        data = response.json()
        self._said += [data["choices"][0]["message"]["content"], then]
        return int(data["usage"]["prompt_tokens_details"]["cached_tokens"])


def replicas() -> list[int]:
    """The processes of the machines."""
    return actors("ServeReplica:default:MachineServer")


def wait_for_two_replicas(serve: Any) -> None:
    """Wait until a new replica has taken the place of one that was killed."""
    for _ in range(1200):
        app = serve.status().applications["default"]
        if app.status == "RUNNING" and len(replicas()) == 2:
            return
        time.sleep(0.1)
    raise AssertionError(f"no two replicas after two minutes: {app}")


@pytest.mark.skipif(not LONG, reason="a cluster takes a minute; EDGESPPO_LONG=1")
def test_a_conversation_stays_on_the_machine_that_has_its_prefix_until_that_is_lost(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    utilities: Any = pytest.importorskip("ray.cluster_utils")
    serve: Any = pytest.importorskip("ray.serve")
    ray: Any = pytest.importorskip("ray")
    monkeypatch.setenv("EDGESPPO_API_KEY", "ada:secret-of-ada")
    options = {"num_cpus": 2, "object_store_memory": 80_000_000}
    head = {**options, "include_dashboard": False}
    cluster = utilities.Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**options)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": 18231})
        serve.run(ray_serve.app({"model": str(demo_gguf), "machines": 2}))
        client = httpx.Client(
            base_url="http://127.0.0.1:18231",
            headers={"Authorization": "Bearer secret-of-ada"},
            timeout=60,
            trust_env=False,
        )
        with client:
            assert client.get("/v1/models", headers={"Authorization": ""}).status_code == 401
            for n in range(4):
                talk = Talk(client, f"My number is {n}. What is the capital of France?")
                talk.ask("And of Italy?")
                for _ in range(2):
                    assert talk.ask("And of Italy?") > 16
            for pid in replicas():  # one of them has the conversation
                os.kill(pid, signal.SIGKILL)
                talk.ask("And of Spain?")
                assert talk.ask("And of Italy?") > 16
                wait_for_two_replicas(serve)
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
