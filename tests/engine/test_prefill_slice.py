"""How many prompt tokens a step takes beside running answers: as fast as the machine computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo import SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.engine.prefill_slice import LEAST, MOST_PAUSES, PAUSE_S, PrefillSlice

if TYPE_CHECKING:
    from edgesppo.loaded_model import LoadedModel

FEW = SamplingParams(temperature=0, max_tokens=40)


def test_a_slice_is_what_a_machine_computes_in_a_pause() -> None:
    slice = PrefillSlice(512)
    assert slice.n_tokens(1, 1) == LEAST  # before anything is known
    slice.note(100, 100 / 300)
    assert slice.n_tokens(1, 1) == int(300 * PAUSE_S)
    for _ in range(20):
        slice.note(100, 1.0)
    assert slice.n_tokens(1, 1) == LEAST
    slice.note(100, 1e-3)
    assert slice.n_tokens(1, 1) == 512


def test_the_pause_is_longer_where_more_wait_than_read() -> None:
    slice = PrefillSlice(2048)
    slice.note(300, 1.0)
    assert slice.n_tokens(1, 3) == slice.n_tokens(2, 2) == int(300 * PAUSE_S)
    assert slice.n_tokens(3, 2) == int(1.5 * 300 * PAUSE_S)
    assert slice.n_tokens(50, 1) == int(MOST_PAUSES * 300 * PAUSE_S)
    assert slice.n_tokens(1, 0) == 2048, "nobody reads: nobody is made to wait"


def test_steps_of_few_tokens_tell_nothing() -> None:
    slice = PrefillSlice(512)
    for n in (1, 4, 8):
        slice.note(n, 1e-6)
    assert slice.n_tokens(1, 1) == LEAST


def test_a_slice_is_never_more_than_a_batch_holds() -> None:
    slice = PrefillSlice(48)
    assert slice.n_tokens(1, 1) == 48
    slice.note(48, 1e-3)
    assert slice.n_tokens(1, 1) == 48


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
