"""A server on each machine of a Ray cluster: its parts; with EDGESPPO_LONG=1 all of it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.errors import BadModelFile, UsageError
from edgesppo.server import ray_serve
from edgesppo.server.ray_serve import Gateway, Machine, conversation
from edgesppo.server.settings import ServerSettings
from edgesppo.store import verify
from tests.support.command_line import CAPITAL
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

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

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.names: list[str] = []
        self.answer = self

    def options(self, *, stream: bool, multiplexed_model_id: str) -> _Handle:
        assert stream
        self.names.append(multiplexed_model_id)
        return self

    def remote(self, sent: dict[str, Any], data: bytes) -> AsyncIterator[Any]:
        return self._machine.answer(sent, data)


def test_a_gateway_hands_a_request_to_a_machine_and_its_answer_back(demo_gguf: Path) -> None:
    async def talk() -> tuple[list[Any], list[str]]:
        machine = Machine(str(demo_gguf), 2, ServerSettings(access_log=False))
        handle = _Handle(machine)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        for more in ({}, {"stream": True}):
            parts = [{"type": "http.request", "body": body(CAPITAL, temperature=0, **more)}]

            async def receive(parts: list[Any] = parts) -> Any:
                return parts.pop()

            await Gateway(handle, 1 << 20)({**scope(), "state": {}}, receive, send)
        await machine.check_health()
        await machine.close()
        return sent, handle.names

    messages, names = asyncio.run(talk())
    assert [m["status"] for m in messages if "status" in m] == [200, 200]
    whole, streamed = (m.get("body", b"") for m in messages[1:2]), b""
    assert PARIS in json.loads(b"".join(whole))["choices"][0]["message"]["content"]
    streamed = b"".join(m.get("body", b"") for m in messages[3:])
    assert streamed.endswith(b"data: [DONE]\n\n")
    assert names[0] == names[1] != ""


def test_an_answer_that_is_left_ends(babbler: Path) -> None:
    async def leave() -> int:
        machine = Machine(str(babbler), 1, ServerSettings(access_log=False))
        asked = body("Hi", stream=True, max_tokens=8000)
        answer: Any = machine.answer(scope(), asked)
        async for message in answer:
            if message.get("body"):
                break
        await answer.aclose()
        worker = machine._app.state.service.worker
        for _ in range(1000):
            if worker.is_idle:
                break
            await asyncio.sleep(0.01)
        left = int(worker.n_running)
        await machine.close()
        return left

    assert asyncio.run(leave()) == 0


def test_a_machine_holds_its_files_against_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify.CheckedFile, "is_sound", property(lambda _: False))
    with pytest.raises(BadModelFile, match="not what the lock says of demo"):
        Machine("demo", 1, ServerSettings())


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
    monkeypatch.setitem(__import__("sys").modules, "ray.serve", object())
    monkeypatch.setenv("EDGESPPO_API_KEY", key)
    with pytest.raises(UsageError, match=said):
        ray_serve.app(args)


@pytest.mark.skipif(not LONG, reason="a cluster takes a minute; EDGESPPO_LONG=1")
def test_a_conversation_stays_on_the_machine_that_has_its_prefix(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    utilities = pytest.importorskip("ray.cluster_utils")
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
                said = [f"My number is {n}. What is the capital of France?"]
                for turn in range(3):
                    data = client.post(
                        "/v1/chat/completions",
                        content=body(*said, temperature=0, max_tokens=16),
                        headers={"Content-Type": "application/json"},
                    ).json()
                    usage = data["usage"]
                    cached = usage["prompt_tokens_details"]["cached_tokens"]
                    assert not turn or cached > 16, (n, turn, usage)
                    said += [data["choices"][0]["message"]["content"], "And of Italy?"]
                    time.sleep(2)  # until all of Ray Serve knows who has the conversation
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
