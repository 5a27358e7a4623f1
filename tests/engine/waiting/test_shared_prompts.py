"""Prompts that begin alike and come together: what they share is computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgesppo import SamplingParams
from edgesppo.engine import prefill_slice
from edgesppo.engine.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.engine.request import Request
    from edgesppo.llama.model import Model

FEW = SamplingParams(temperature=0, max_tokens=4)
MANY = SamplingParams(temperature=0, max_tokens=7000)


@pytest.fixture
def engine(model: Model) -> Iterator[Engine]:
    made = Engine(model, n_seqs=4, draft_costs=None)
    yield made
    made.close()


def prompts(model: Model, n_shared: int, n_own: int, n: int) -> list[list[int]]:
    """`n` prompts whose first `n_shared` tokens are the same, with `n_own` of their own."""
    shared = [model.bos, *(300 + i % 97 for i in range(n_shared - 1))]
    return [[*shared, *([500 + i] * n_own)] for i in range(n)]


def add(engine: Engine, ids: list[int], params: SamplingParams = FEW, salt: str = "") -> Request:
    return engine.add(engine.prepare(ids, params, salt=salt))


def finish(engine: Engine, *requests: Request) -> None:
    while any(request.finish_reason is None for request in requests):
        engine.step()


def test_what_prompts_share_is_computed_once_and_they_answer_together(
    model: Model, engine: Engine
) -> None:
    all_ids = prompts(model, 60, 9, 4)
    requests = [add(engine, ids) for ids in all_ids]
    while not any(request.n_generated for request in requests):
        engine.step()
    assert [request.n_cached for request in requests] == [0, 60, 60, 60]
    assert [request.n_generated for request in requests] == [1] * 4
    finish(engine, *requests)
    for ids, request in zip(all_ids, requests, strict=True):
        alone = Engine(model, draft_costs=None)
        expected = add(alone, ids)
        finish(alone, expected)
        assert request.tokens == expected.tokens
        alone.close()


def test_each_waits_as_far_as_it_shares_with_another(model: Model, engine: Engine) -> None:
    first, other = prompts(model, 40, 80, 2)
    near = [*first[:100], *other[-20:]]
    requests = [add(engine, ids) for ids in (first, other, near)]
    finish(engine, *requests)
    assert [request.n_cached for request in requests] == [0, 40, 100]


def test_the_same_short_prompt_is_computed_once(model: Model, engine: Engine) -> None:
    (ids,) = prompts(model, 8, 0, 1)
    requests = [add(engine, ids) for _ in range(4)]
    finish(engine, *requests)
    assert [request.n_cached for request in requests] == [0, 7, 7, 7]


def test_what_begins_otherwise_or_under_another_salt_does_not_wait(
    model: Model, engine: Engine
) -> None:
    first, second = prompts(model, 600, 9, 2)
    add(engine, first)
    waiting = add(engine, second)
    others = [add(engine, [model.bos, 555]), add(engine, second, salt="bob")]
    engine.step()
    assert waiting.slot is None
    assert None not in [request.slot for request in others]


def test_who_is_behind_one_that_waits_may_start_but_leaves_it_a_place(
    model: Model, engine: Engine
) -> None:
    first, second = prompts(model, 600, 9, 2)
    leader, waiting = add(engine, first, MANY), add(engine, second)
    behind = [add(engine, [model.bos, 400 + n], MANY) for n in range(3)]
    engine.step()
    assert [request.slot is None for request in (waiting, *behind)] == [True, False, False, True]
    while waiting.finish_reason is None:
        engine.step()
    assert {request.finish_reason for request in (leader, *behind)} == {None}


def test_what_others_wait_for_comes_first(
    model: Model, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill_slice, "PAUSE_S", 0.0)  # as on a slow machine
    running = add(engine, [model.bos, 400], MANY)
    while not running.n_generated:
        engine.step()
    middle = add(engine, [model.bos, *([450] * 300)])
    long, _ = prompts(model, 40, 400, 2)
    add(engine, long)
    waiting = add(engine, [*long[:40], 501])
    engine.step()
    engine.step()
    assert (waiting.n_cached, waiting.n_generated) == (40, 1)
    assert not middle.n_generated


def test_no_more_prompts_stop_than_others_can_begin(model: Model) -> None:
    engine = Engine(model, n_seqs=3, draft_costs=None)
    all_ids = prompts(model, 60, 20, 2)
    requests = [add(engine, ids, salt=salt) for salt in ("ada", "bob") for ids in all_ids]
    engine.step()
    assert [request.n_prefilled for request in requests] == [60, 0, 80, 0]
    engine.close()


def test_a_prompt_does_not_stop_for_others_that_could_not_begin_there(model: Model) -> None:
    engine = Engine(model, n_seqs=1, draft_costs=None)
    first, second = prompts(model, 60, 20, 2)
    leader, waiting = add(engine, first), add(engine, second)
    engine.step()
    assert leader.n_prefilled == 80
    finish(engine, leader, waiting)
    assert waiting.n_cached == 60
    engine.close()


@pytest.mark.parametrize("gone", ["cancelled", "failed"])
def test_who_waited_for_one_that_is_gone_goes_on(model: Model, engine: Engine, gone: str) -> None:
    first, second = prompts(model, 1200, 9, 2)
    leader, waiting = add(engine, first), add(engine, second)
    engine.step()
    assert waiting.slot is None
    if gone == "cancelled":
        engine.cancel(leader)
    else:
        engine._schedule.finish(leader, "failed")
    finish(engine, waiting)
    assert waiting.n_generated == 4


def test_nobody_makes_way_for_one_that_only_waits_for_another(model: Model) -> None:
    engine = Engine(model, n_seqs=2, draft_costs=None)
    first, second = prompts(model, 700, 9, 2)
    ada = add(engine, [model.bos, *range(400, 410)], MANY, salt="ada")
    engine.step()
    bob = [add(engine, ids, salt="bob") for ids in (first, second)]
    ada.turn_s = 0.0
    engine.step()
    assert bob[0].slot is not None
    assert bob[1].slot is None
    assert ada.slot is not None
    finish(engine, *bob)
    assert bob[1].n_cached == 700
    engine.close()
