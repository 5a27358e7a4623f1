"""Who waits for whom: short prompts not for long ones, nobody for good, and salts share nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgesppo import SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.engine.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.engine.request import Request
    from edgesppo.llama.model import Model

FEW = SamplingParams(temperature=0, max_tokens=4)
MANY = SamplingParams(temperature=0, max_tokens=7000)


@pytest.fixture
def engine(model: Model) -> Iterator[Engine]:
    made = Engine(model, n_seqs=3, draft_costs=None)
    yield made
    made.close()


def prompt(model: Model, n: int, letter: str = "a") -> list[int]:
    """A prompt of `n` tokens."""
    ids = model.tokenize(f" {letter} b" * n)
    return [model.bos, *ids][:n]


def test_a_short_prompt_does_not_wait_for_a_long_one(model: Model, engine: Engine) -> None:
    running = engine.add(engine.prepare(prompt(model, 8), MANY))
    engine.step()
    long = engine.add(engine.prepare(prompt(model, 2000, "x"), FEW))
    engine.step()
    short = engine.add(engine.prepare(prompt(model, 40, "y"), FEW))
    while short.first_token_at is None:
        engine.step()
    assert long.first_token_at is None
    assert 0 < long.n_prefilled < 1000
    assert running.n_generated > 2


def test_a_long_prompt_is_never_left_behind(model: Model, engine: Engine) -> None:
    engine.add(engine.prepare(prompt(model, 8), MANY))
    engine.step()
    long = engine.add(engine.prepare(prompt(model, 600, "x"), FEW))
    steps = 0
    while long.first_token_at is None:
        before = long.n_prefilled
        if not steps % 2:  # one after the other, and each with more than there is room for
            engine.add(engine.prepare(prompt(model, 100 + steps, "y"), FEW))
        engine.step()
        assert long.n_prefilled > before or long.first_token_at is not None
        steps += 1
    assert steps < 100


def test_cells_are_shared_only_under_the_same_salt(model: Model, engine: Engine) -> None:
    ids = prompt(model, 60)

    def cached(salt: str) -> int:
        request = engine.add(engine.prepare(ids, FEW, salt=salt))
        for _ in engine.stream(request):
            pass
        return request.n_cached

    assert [cached(salt) for salt in ("ada", "bob", "ada", "bob", "")] == [0, 0, 59, 59, 0]
    running = engine.add(engine.prepare(ids, MANY, salt="ada"))
    engine.step()
    assert cached("eve") == 0  # although the same prompt runs
    assert running.n_generated > 0


def test_a_request_that_is_withdrawn_ends_with_the_next_step(model: Model, engine: Engine) -> None:
    one, two = (engine.add(engine.prepare(prompt(model, 700, letter), FEW)) for letter in "xy")
    engine.step()
    engine.withdraw(one)
    engine.step()
    assert one.finish_reason == "cancelled"
    while two.finish_reason is None:
        engine.step()
    assert two.n_generated == 4


def test_as_many_make_way_for_another_salt_as_it_needs_cells(model: Model) -> None:
    """Beside one of the two it has no room: if they went one by one, each would start again."""
    engine = Engine(model, n_seqs=3, n_ctx=1024, draft_costs=None)
    ada = [
        engine.add(engine.prepare(prompt(model, 420, letter), MANY, salt="ada")) for letter in "xy"
    ]
    bob = engine.add(engine.prepare(prompt(model, 640, "z"), FEW, salt="bob"))
    for _ in range(10):
        engine.step()
    assert (bob.slot, bob.finish_reason) == (None, None), "it was put back"
    assert None not in [request.slot for request in ada]
    for request in ada:
        request.turn_s = 0.001
    while bob.finish_reason is None:
        engine.step()
    assert [request.turn_s for request in ada] == [0.002, 0.002], "each was put back once"
    n_generated = [request.n_generated for request in ada]
    while any(request.n_generated < n + 5 for request, n in zip(ada, n_generated, strict=True)):
        engine.step()
    for request in ada:
        assert request.n_prefilled == request.n_prompt
        assert request.prefilled_at <= request.first_token_at, "the first time counts"
    engine.close()


def test_an_interrupt_while_one_makes_way_leaves_no_slot_to_two(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(model, n_seqs=1, draft_costs=None)
    ada = engine.add(engine.prepare(prompt(model, 8), MANY, salt="ada"))
    engine.step()
    ada.turn_s = 0.0
    bob = engine.add(engine.prepare(prompt(model, 8), FEW, salt="bob"))

    def interrupted(schedule: Scheduler, request: Request) -> None:
        schedule._running.remove(request)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Scheduler, "_put_back", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.step()
    ada.turn_s = 3600.0
    engine._schedule.recover()
    assert ada.slot is None
    engine.step()
    engine.cancel(ada)
    while bob.finish_reason is None:
        assert not engine._cache.n_free
        engine.step()
    engine.close()
