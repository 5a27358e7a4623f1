"""An interrupt at any line of the engine loses nothing but the answer that it interrupts.

Ctrl-C arrives at random moments; here KeyboardInterrupt is raised at the n-th line that the engine
and its callers execute, for many n.
"""

from __future__ import annotations

import gc
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo import SamplingParams
from edgesppo.chat import chat, generation, history
from edgesppo.engine import (
    engine,
    kv_cache,
    long_prompts,
    prefill_context,
    prefill_slice,
    request,
    runner,
    scheduler,
    shared_prompts,
    stepper,
)
from edgesppo.engine.engine import Engine
from edgesppo.llama.context import Context
from tests.support import near_ties
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from edgesppo.engine.engine import Request
    from edgesppo.llama.batch import Batch
    from edgesppo.loaded_model import LoadedModel

MODULES = (
    *(chat, engine, generation, history, kv_cache, long_prompts, prefill_context, prefill_slice),
    *(request, runner, scheduler, shared_prompts, stepper),
)
FILES = {module.__file__ for module in MODULES}
QUESTION = "My name is Ada. What is 2 plus 3?"
GREEDY = SamplingParams(temperature=0, max_tokens=10)
POINTS = 10**6 if LONG else 20
# Tokens of a prompt and of an answer; and of a context with room for less than two turns.
TURN, ROOM = 70, 256


class InterruptAt:
    """Raises KeyboardInterrupt at the n-th line of our files that this thread executes.

    As Ctrl-C does: not where that is held back, which is where it has another handler.
    """

    def __init__(self, n: int) -> None:
        self.left = n
        self.place = ""
        self._handler = signal.getsignal(signal.SIGINT)

    def __call__(self, frame: FrameType, event: str, _arg: object) -> InterruptAt | None:
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line" and signal.getsignal(signal.SIGINT) == self._handler:
            self.left -= 1
            if self.left == 0:
                self.place = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                raise KeyboardInterrupt
        return self


def _ask(model: LoadedModel, trace: Any) -> None:
    """Generate one answer with this trace function installed."""
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in model.chat(temperature=0, max_tokens=6).stream(QUESTION):
            pass
    finally:
        sys.settrace(before)


def _lines(model: LoadedModel) -> int:
    counter = InterruptAt(10**9)
    _ask(model, counter)
    return 10**9 - counter.left


def _tokens(engine: Engine, request: Request) -> list[int]:
    return [event.token for event in engine.stream(request) if event.token is not None]


def test_an_interrupt_at_any_line_leaves_everyone_else_as_they_were(demo_gguf: Path) -> None:
    places = set()
    with edgesppo.load(demo_gguf, n_seqs=2) as model:
        engine = model._interior.engine
        prompt = [
            model._interior.engine.model.bos,
            *model.tokenize("What is the capital of France?"),
        ]
        alone = _tokens(engine, engine.add(engine.prepare(prompt, GREEDY)))
        n_lines = _lines(model)
        for n in range(1, n_lines, max(1, n_lines // POINTS)):
            other = engine.add(engine.prepare(prompt, GREEDY))
            engine.step()
            interrupt = InterruptAt(n)
            try:
                _ask(model, interrupt)
            except KeyboardInterrupt:
                places.add(interrupt.place)
            gc.collect()
            got = _tokens(engine, other)
            tie = got == alone or near_ties.is_near_tie(
                model._interior.engine.model, prompt, got, alone, "q4_k_m"
            )
            assert tie, f"{interrupt.place}: {got} alone {alone}"
            engine.step()
            assert engine._schedule.requests() == [], interrupt.place
            assert not any(slot.busy for slot in engine._cache._slots), interrupt.place
    assert len(places) > (20 if LONG else POINTS // 2), "so many places were reached"


@pytest.mark.one_context
def test_what_a_stopped_prefill_overwrote_is_prefilled_again(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is decoded in micro-batches, and later ones overwrite the window's first cells."""
    model = edgesppo.load(demo_gguf)
    prompt = [
        model._interior.engine.model.bos,
        *model.tokenize("My name is Ada. Who are you? " * 60),
    ][:480]
    alone = _tokens(
        model._interior.engine,
        model._interior.engine.add(model._interior.engine.prepare(prompt, GREEDY)),
    )
    engine = Engine(model._interior.engine.model, n_ubatch=32, draft_costs=None)
    _tokens(engine, engine.add(engine.prepare(prompt[:100], GREEDY.replace(max_tokens=1))))
    decode, sizes = Context.decode, []

    def decode_and_stop(context: Context, batch: Batch) -> None:
        decode(context, batch)
        sizes.append(len(batch))
        if len(sizes) == 1:
            raise edgesppo.Cancelled("another's cancel, at the very end")

    monkeypatch.setattr(Context, "decode", decode_and_stop)
    request = engine.add(engine.prepare(prompt, GREEDY))
    got = _tokens(engine, request)
    assert request.n_cached == 100
    assert sizes[:2] == [380, 480], "it began anew"
    tie = got == alone or near_ties.is_near_tie(
        model._interior.engine.model, prompt, got, alone, "q4_k_m"
    )
    assert tie, (got, alone)
    engine.close()
    model.close()


def test_answers_that_need_more_room_than_there_is_take_turns(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer is the one that it would be alone, and none fails because of another's length."""
    model = edgesppo.load(demo_gguf)
    monkeypatch.setattr(model._interior.engine.model, "end_tokens", frozenset())
    params = GREEDY.replace(max_tokens=TURN)
    prompts = [
        [
            model._interior.engine.model.bos,
            *model.tokenize(f"I am {name}. " + "Who are you? " * 30),
        ][:TURN]
        for name in ("Ada", "Bob", "Eve", "Tom")
    ]
    alone = []
    for prompt in prompts:
        engine = Engine(model._interior.engine.model, n_ctx=ROOM)
        alone.append(_tokens(engine, engine.add(engine.prepare(prompt, params))))
        engine.close()
    engine = Engine(model._interior.engine.model, n_ctx=ROOM, n_seqs=4)
    requests = [engine.add(engine.prepare(prompt, params)) for prompt in prompts]
    together = [_tokens(engine, request) for request in requests]
    engine.close()
    assert 2 * engine.n_ctx < 4 * 2 * TURN
    for prompt, got, expected in zip(prompts, together, alone, strict=True):
        assert len(got) == len(expected) == TURN
        tie = got == expected or near_ties.is_near_tie(
            model._interior.engine.model, prompt, got, expected, "q4_k_m"
        )
        assert tie
    model.close()
