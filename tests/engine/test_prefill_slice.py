"""How many prompt tokens a step takes beside running answers: as fast as the machine computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgesppo import SamplingParams
from edgesppo.engine import prefill_slice
from edgesppo.engine.engine import Engine
from edgesppo.engine.long_prompts import _FETCHED
from edgesppo.engine.prefill_slice import LEAST, LEAST_OF_LONG, PAUSE_S, WAIT_S, PrefillSlice

if TYPE_CHECKING:
    from edgesppo.loaded_model import LoadedModel

FEW = SamplingParams(temperature=0, max_tokens=40)


def test_a_slice_is_what_a_machine_computes_in_a_pause() -> None:
    slice = PrefillSlice(512)
    assert slice.n_tokens(beside=True) == LEAST  # before anything is known
    slice.note(100, 100 / 300)
    assert slice.n_tokens(beside=True) == int(300 * PAUSE_S)
    assert slice.n_tokens(beside=False) == 512, "nobody reads: nobody is made to wait"
    for _ in range(20):
        slice.note(100, 1.0)
    assert slice.n_tokens(beside=True) == LEAST
    slice.note(100, 1e-3)
    assert slice.n_tokens(beside=True) == 512


def test_of_a_long_prompt_no_more_is_taken_than_a_newcomer_can_wait_for() -> None:
    slice = PrefillSlice(512)
    assert slice.of_long == LEAST_OF_LONG
    slice.note(100, 100 / 150)
    assert slice.of_long == int(150 * WAIT_S)
    slice.note(100, 1e-3)
    assert slice.of_long == 512
    slice = PrefillSlice(512)
    slice.is_whole = True
    assert slice.of_long == 512


def test_steps_of_few_tokens_tell_nothing() -> None:
    slice = PrefillSlice(512)
    for n in (1, 4, 8):
        slice.note(n, 1e-6)
    assert slice.n_tokens(beside=True) == LEAST


def test_a_slice_is_never_more_than_a_batch_holds() -> None:
    slice = PrefillSlice(48)
    assert slice.n_tokens(beside=True) == 48
    slice.note(48, 1e-3)
    assert slice.n_tokens(beside=True) == 48


def test_a_fast_machine_takes_several_prompts_in_one_step(demo: LoadedModel) -> None:
    engine = Engine(demo._interior.engine.model, n_ctx=512, n_seqs=4, draft_costs=None)
    engine._stepper.slice.note(1000, 1e-3)
    ids = demo.tokenize("Tell me how to convert a checkpoint, please. " * 3, chat=True)
    engine.add(engine.prepare(ids[:10], FEW))
    engine.step()
    others = [engine.add(engine.prepare([ids[0], *ids[i:]], FEW)) for i in range(1, 4)]
    assert sum(request.n_prompt for request in others) > LEAST
    engine.step()
    assert [request.n_generated for request in others] == [1, 1, 1]
    engine.close()


@pytest.mark.parametrize(
    ("n_seqs", "plain_from", "n"),
    [(1, None, 300), (2, None, LEAST_OF_LONG), (2, 200, 200 + 512 // _FETCHED)],
)
def test_a_long_prompt_leaves_room_for_who_may_come_beside_it(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch, n_seqs: int, plain_from: int | None, n: int
) -> None:
    monkeypatch.setattr(prefill_slice, "WAIT_S", 0.0)  # as on a slow machine
    sizes: dict[str, Any] = {"n_ctx": 512, "n_seqs": n_seqs, "n_batch": 300}
    model = demo._interior.engine.model
    engine = Engine(model, plain_from=plain_from, draft_costs=None, **sizes)
    long = engine.add(engine.prepare([2, *([300, 301, 302] * 130)], FEW))
    engine.step()
    assert long.n_prefilled == n
    engine.close()
