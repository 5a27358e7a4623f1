"""How much a request may ask for, and an API key in a minute."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from edgesppo.sampling.params import SamplingParams
from edgesppo.server import api_keys
from edgesppo.server.answers import Answers
from edgesppo.server.budgets import Budgets
from edgesppo.server.errors import ApiError
from edgesppo.server.job import Job
from edgesppo.server.settings import Limits
from tests.support.live_server import CHAT, live

if TYPE_CHECKING:
    from pathlib import Path

KEYS = tuple(api_keys.parse([(1, "bob:secret-of-bob requests=3")], "here"))
BOB = {"Authorization": "Bearer secret-of-bob"}


def test_who_does_not_say_how_long_gets_what_the_server_allows(demo_gguf: Path) -> None:
    with live(demo_gguf, limits=Limits(max_tokens=4)) as server:
        for path, asked in (
            (CHAT, {"messages": [{"role": "user", "content": "Hi"}]}),
            ("/v1/completions", {"prompt": "Hi"}),
        ):
            response = server.client.post(path, json=asked)
            assert response.status_code == 200, response.text
            assert response.json()["usage"]["completion_tokens"] <= 4
            refused = server.client.post(path, json={**asked, "max_tokens": 5})
            assert refused.status_code == 400


def test_a_list_of_too_many_prompts_is_named(demo_gguf: Path) -> None:
    with live(demo_gguf) as server:
        found = server.client.post("/v1/completions", json={"prompt": ["Hi"] * 9}).json()["error"]
    assert found["param"] == "prompt"
    assert "there are 9 prompts" in found["message"]


def test_a_budget_of_tokens_lets_through_what_fits_and_refills() -> None:
    (key,) = api_keys.parse([(1, "eve:secret-of-eve tokens=600")], "here")
    now = [0.0]
    budgets = Budgets(lambda: now[0])
    budgets.spend_request(key)
    budgets.reserve_tokens(key, 500)
    with pytest.raises(ApiError, match="a request for fewer would fit") as refused:
        budgets.reserve_tokens(key, 200)
    assert refused.value.headers == {"Retry-After": "10"}
    budgets.reserve_tokens(key, 100)
    budgets.return_tokens(key, 480)  # the first one needed 20 of its 500
    budgets.reserve_tokens(key, 480)
    now[0] = 60
    budgets.reserve_tokens(key, 700)  # all that it holds
    with pytest.raises(ApiError) as refused:
        budgets.spend_request(key)
    assert refused.value.headers == {"Retry-After": "11"}
    now[0] = 71
    budgets.spend_request(key)


def test_answers_at_once_stay_within_a_budget_of_tokens(babbler: Path) -> None:
    """What is not used is there again once they have ended."""
    keys = tuple(api_keys.parse([(1, "eve:secret-of-eve tokens=100")], "here"))
    asked = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    headers = {"Authorization": "Bearer secret-of-eve"}
    with live(babbler, keys=keys) as server:
        request = {"url": CHAT, "json": {**asked, "max_tokens": 60}, "headers": headers}
        with server.client.stream("POST", **request) as first:
            assert first.status_code == 200
            refused = server.client.post(**request)
            assert refused.status_code == 429
            assert 0 < int(refused.headers["Retry-After"]) < 60
        server.wait_idle()
        request["json"] = {**asked, "max_tokens": 3}
        assert server.client.post(**request).status_code == 200


def test_counting_tokens_uses_a_part_of_a_request_and_ends_in_debt() -> None:
    (key,) = api_keys.parse([(1, "eve:secret-of-eve requests=1")], "here")
    now = [0.0]
    budgets = Budgets(lambda: now[0])
    for _ in range(9):
        budgets.spend_part(key, 0.01)
    budgets.spend_part(key, 8)
    with pytest.raises(ApiError) as refused:
        budgets.spend_part(key, 0.01)
    assert refused.value.headers == {"Retry-After": str(426)}
    now[0] = 426
    budgets.spend_part(key, 0.01)


def test_what_is_left_of_a_budget_is_told_by_openais_names() -> None:
    (key,) = api_keys.parse([(1, "eve:secret-of-eve requests=3 tokens=600")], "here")
    now = [0.0]
    budgets = Budgets(lambda: now[0])

    def told() -> dict[str, str]:
        found = {name.decode(): value.decode() for name, value in budgets.headers(key)}
        return {name.removeprefix("x-ratelimit-"): value for name, value in found.items()}

    budgets.spend_request(key)
    budgets.reserve_tokens(key, 600)
    budgets.return_tokens(key, -900)
    limits = {"limit-requests": "3", "limit-tokens": "600"}
    left = {"remaining-requests": "2", "remaining-tokens": "0"}
    assert told() == {**limits, **left, "reset-requests": "20s", "reset-tokens": "2m30s"}
    now[0] = 149.5
    left = {"remaining-requests": "3", "remaining-tokens": "595"}
    assert told() == {**limits, **left, "reset-requests": "0s", "reset-tokens": "1s"}


def test_answers_tell_of_a_budget_and_only_to_a_key_that_has_one(demo_gguf: Path) -> None:
    keys = ["bob:secret-of-bob requests=2", "eve:secret-of-eve tokens=9", "ada:secret-of-ada"]
    with live(demo_gguf, keys=tuple(api_keys.parse(enumerate(keys, 1), "here"))) as server:

        def ask(name: str, **more: Any) -> tuple[int, dict[str, str]]:
            asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, **more}
            headers = {"Authorization": f"Bearer secret-of-{name}"}
            response = server.client.post(CHAT, json=asked, headers=headers)
            told = {k[12:]: v for k, v in response.headers.items() if k.startswith("x-ratelimit")}
            return response.status_code, told

        status, told = ask("bob", stream=True)
        assert (status, told["limit-requests"], told["remaining-requests"]) == (200, "2", "1")
        assert ask("bob")[1]["remaining-requests"] == "0"
        status, told = ask("bob")
        assert (status, told["remaining-requests"]) == (429, "0")
        status, told = ask("eve")
        assert (status, told["limit-tokens"], told["remaining-tokens"]) == (200, "9", "0")
        assert set(told) == {"limit-tokens", "remaining-tokens", "reset-tokens"}
        assert ask("ada") == (200, {})
        refused = server.client.get("/v1/models", headers={"X-Api-Key": "wrong-one"})
        assert not [name for name in refused.headers if name.startswith("x-ratelimit")]


def test_a_key_cannot_have_tokens_counted_for_ever(demo_gguf: Path) -> None:
    with live(demo_gguf, keys=KEYS) as server:

        def count(n: int) -> int:
            body = {"content": "a " * n}
            return server.client.post("/tokenize", json=body, headers=BOB).status_code

        assert [count(10) for _ in range(9)] == [200] * 9
        assert count(300_000) == 400, "more than are rendered at once"
        assert count(10) == 429


def test_what_was_never_computed_costs_no_tokens() -> None:
    """As when a client leaves the queue."""

    async def left_by(*jobs: Job) -> Any:
        request: Any = SimpleNamespace(state=SimpleNamespace())
        Answers(list(jobs), len(jobs), request, 1, lambda _: None).close()
        return request.state.tokens

    waiting, begun = (Job([1] * 500, SamplingParams()) for _ in range(2))
    begun.generation = cast("Any", SimpleNamespace(request=SimpleNamespace(admitted_at=1.0)))
    assert asyncio.run(left_by(waiting)) == (0, 0)
    assert asyncio.run(left_by(waiting, begun)) == (500, 0)


def test_the_time_for_an_answer_ends_although_more_of_it_is_there() -> None:
    async def read() -> None:
        job = Job([1], SamplingParams())
        answers = Answers([job], 1, cast("Any", None), 0, lambda _: None)
        queue: asyncio.Queue[Any] = asyncio.Queue()
        queue.put_nowait((0, None))
        await answers._next(queue)

    with pytest.raises(ApiError) as refused:
        asyncio.run(read())
    assert refused.value.code == "timeout"
