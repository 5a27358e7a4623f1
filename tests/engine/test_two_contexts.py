"""A second context computes long prompts, nobody notices, and its failure costs only speed.

What the engine does with it must equal what it does without: `tests/support/two_contexts.py` has
other modules' tests run both ways.
"""

from __future__ import annotations

import gc
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo import SamplingParams
from edgesppo.engine import long_prompts, prefill_context
from edgesppo.engine.engine import Engine
from edgesppo.engine.prefill_context import PrefillContext
from edgesppo.engine.runner import Runner
from edgesppo.llama.context import Context
from edgesppo.llama.model import Model
from edgesppo.system import hardware
from tests.support import near_ties
from tests.support.resources import native_handles, open_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.engine.request import Request
    from edgesppo.llama.batch import Batch

GREEDY = SamplingParams(temperature=0, max_tokens=12)
STORY = "My name is Ada. What is 2 plus 3? Who are you? "
LEAST = 40

pytestmark = pytest.mark.one_context  # it makes its own second ones


@pytest.fixture
def engine(model: Model) -> Iterator[Engine]:
    made = Engine(model, plain_from=LEAST, draft_costs=None)
    yield made
    made.close()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of each batch that a second context computes."""
    found: list[int] = []

    class Counting(Runner):
        def run(self, batch: Batch) -> None:
            found.append(len(batch))
            super().run(batch)

    monkeypatch.setattr(prefill_context, "Runner", Counting)
    return found


def prompt(model: Model, n: int, text: str = STORY) -> list[int]:
    """A prompt of `n` tokens."""
    return [model.bos, *model.tokenize(text * 60)][:n]


def answer(engine: Engine, ids: list[int], **options: Any) -> tuple[list[int], Request]:
    request = engine.add(engine.prepare(ids, GREEDY, **options))
    tokens = [event.token for event in engine.stream(request) if event.token is not None]
    return tokens, request


def usual(model: Model, ids: list[int]) -> list[int]:
    """The answer with one context."""
    one = Engine(model, draft_costs=None)
    tokens, _ = answer(one, ids)
    one.close()
    return tokens


def assert_alike(model: Model, ids: list[int], one: list[int], other: list[int]) -> None:
    tie = one == other or near_ties.is_near_tie(model, ids, one, other, "q4_k_m")
    assert tie, (one, other)


@pytest.mark.parametrize("n_ubatch", [512, 32])
def test_the_cells_are_those_that_plain_weights_give(demo_gguf: Path, n_ubatch: int) -> None:
    """Bit for bit, window included, whatever is copied and however often."""
    repacked, plain = Model(demo_gguf), Model(demo_gguf, repack=False)
    window = plain.weights.n_swa
    # In parts of a window's length, as the second context computes them.
    one = Engine(plain, n_batch=window, n_ubatch=min(window, n_ubatch), draft_costs=None)
    two = Engine(repacked, n_ubatch=min(window, n_ubatch), plain_from=2, draft_costs=None)
    ids = prompt(plain, 6 * window + 1)
    states = []
    for engine in (one, two):
        request = engine.add(engine.prepare(ids, GREEDY))
        while request.n_prefilled < len(ids) - 1:
            engine.step()
        engine.cancel(request)
        slot = engine._cache._slots[0]
        engine._cache._truncate(slot, len(ids) - 1)
        found = engine.state(ids, 1 << 30)
        assert found is not None
        states.append((found[0], bytes(found[1])))
        engine.close()
    repacked.close()
    plain.close()
    assert states[0][0] == states[1][0] == ids[:-1]
    assert states[0][1] == states[1][1]


def test_only_what_is_long_enough_goes_through_it(
    model: Model, engine: Engine, computed: list[int]
) -> None:
    answer(engine, prompt(model, LEAST))  # the last token is not among them
    assert computed == []
    assert engine._stepper.long_prompts._context is None, "none is made before it is needed"
    ids = prompt(model, LEAST + 2, "Who are you? ")
    tokens, request = answer(engine, ids)
    assert (computed, request.n_cached) == ([LEAST], 1)
    assert_alike(model, ids, tokens, usual(model, ids))


def test_what_a_chat_goes_on_with_is_copied_and_not_computed_again(
    model: Model, engine: Engine, computed: list[int]
) -> None:
    ids = prompt(model, 120)
    tokens, _ = answer(engine, ids)
    computed.clear()
    longer = [*ids, *tokens[:-1], *model.tokenize(STORY * 5)]
    again, request = answer(engine, longer)
    new = len(longer) - request.n_cached - 1
    assert request.n_cached == len(ids) + len(tokens) - 1
    assert sum(computed) == new, "neither the prompt nor the answer again"
    assert_alike(model, longer, again, usual(model, longer))


def test_what_another_salt_computed_is_not_reused(
    model: Model, engine: Engine, computed: list[int]
) -> None:
    """How soon an answer comes would tell what others asked."""
    ids = prompt(model, 150)
    for salt, n in (("ada", 149), ("bob", 149), ("ada", 149)):
        computed.clear()
        engine._cache.evict_idle()
        answer(engine, ids, salt=salt)
        assert sum(computed) == n, salt
    computed.clear()
    engine._cache.evict_idle()
    answer(engine, ids, salt="ada")
    assert sum(computed) == 0, "its own cells are still there"


def test_many_prompts_share_it_in_turn(model: Model) -> None:
    engine = Engine(model, n_seqs=3, plain_from=LEAST, draft_costs=None)
    prompts = [prompt(model, 140, f"I am {name}. {STORY}") for name in ("Ada", "Bob", "Eve")]
    requests = [engine.add(engine.prepare(ids, GREEDY)) for ids in prompts]
    for ids, request in zip(prompts, requests, strict=True):
        tokens = [event.token for event in engine.stream(request) if event.token is not None]
        assert_alike(model, ids, tokens, usual(model, ids))
    engine.close()


def out_of_memory(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    monkeypatch.setattr(hardware, "available_memory", lambda: 1_000_000)


def refused(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise edgesppo.OutOfMemory("llama.cpp cannot create a context")

    monkeypatch.setattr(prefill_context, "Context", refuse)


def broken(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    copy, calls = prefill_context.copy_cells, []

    def fail(*arguments: Any) -> bool:
        calls.append(arguments)
        if len(calls) == 3:
            raise MemoryError
        return copy(*arguments)

    monkeypatch.setattr(prefill_context, "copy_cells", fail)


def replaced(_: pytest.MonkeyPatch, path: Path) -> None:
    other = path.with_name("other.gguf")
    shutil.copy(path, other)
    other.replace(path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (out_of_memory, "needs .* of memory"),
        (refused, "cannot create"),
        (broken, "out of memory"),
        (replaced, "was replaced"),
    ],
)
def test_where_it_fails_the_first_context_computes_everything(
    demo_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoil: Any,
    reason: str,
) -> None:
    path = shutil.copy(demo_gguf, tmp_path / "model.gguf")
    model = Model(path)
    engine = Engine(model, plain_from=LEAST, draft_costs=None)
    handles = native_handles()
    spoil(monkeypatch, path)
    ids = prompt(model, 200)
    tokens, request = answer(engine, ids)
    assert request.finish_reason in ("stop", "length")
    assert native_handles() == handles
    answer(engine, prompt(model, 210, "Hello! "))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("long prompts take longer for some minutes or more: ")
    assert re.search(reason, line), line
    engine.close()
    monkeypatch.undo()
    assert_alike(model, ids, tokens, usual(model, ids))
    model.close()


def test_what_failed_once_is_tried_again_after_a_while(
    model: Model, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        broken(patch, model.path)
        answer(engine, prompt(model, 200))
    assert engine._stepper.long_prompts._context is None
    monkeypatch.setattr(engine._stepper.long_prompts, "_rests_until", 0.1)
    answer(engine, prompt(model, 210, "Hello! "))
    assert engine._stepper.long_prompts._context is not None


def test_a_prompt_that_is_stopped_in_it_is_computed_rightly_afterwards(
    model: Model, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Context.decode
    for stop_at in (1, 2, 4):
        ids, sizes = prompt(model, 300, f"{stop_at} is a number. {STORY}"), list[int]()

        def decode_and_stop(
            context: Context, batch: Batch, sizes: list[int] = sizes, stop_at: int = stop_at
        ) -> None:
            sizes.append(len(batch))
            if len(sizes) == stop_at:
                context.abort.set()
            decode(context, batch)

        request = engine.add(engine.prepare(ids, GREEDY))
        with monkeypatch.context() as patch:
            patch.setattr(Context, "decode", decode_and_stop)
            engine.step()
        assert len(sizes) == stop_at
        assert request.n_generated == 0
        engine.cancel(request)
        tokens, _ = answer(engine, ids)
        assert_alike(model, ids, tokens, usual(model, ids))


def test_a_prompt_longer_than_its_context_goes_on_in_the_first(
    model: Model, monkeypatch: pytest.MonkeyPatch, computed: list[int]
) -> None:
    for module in (prefill_context, long_prompts):
        monkeypatch.setattr(module, "PREFILL_N_CTX", 256)
    engine = Engine(model, plain_from=LEAST, draft_costs=None)
    ids = prompt(model, 400)
    tokens, _ = answer(engine, ids)
    engine.close()
    assert sum(computed) == 256
    assert_alike(model, ids, tokens, usual(model, ids))


def test_its_room_grows_with_the_prompts(
    model: Model, engine: Engine, monkeypatch: pytest.MonkeyPatch, computed: list[int]
) -> None:
    monkeypatch.setattr(prefill_context, "_LEAST_N_CTX", 64)
    ids, rooms = prompt(model, 60), []
    for _ in range(3):
        computed.clear()
        tokens, request = answer(engine, ids)
        assert sum(computed) == len(ids) - request.n_cached - 1, "cells are lost, not computed anew"
        assert_alike(model, ids, tokens, usual(model, ids))
        context = engine._stepper.long_prompts._context
        assert context is not None
        rooms.append(context._n_ctx)
        ids = [*ids, *tokens[:-1], *model.tokenize(STORY * 5)]
    assert rooms == [64, 256, 512]


def test_a_context_that_could_not_grow_is_made_for_the_next_prompt(
    model: Model, engine: Engine, monkeypatch: pytest.MonkeyPatch, computed: list[int]
) -> None:
    monkeypatch.setattr(prefill_context, "_LEAST_N_CTX", 64)
    answer(engine, prompt(model, 60))
    ids = prompt(model, 200, "Hello! ")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prefill_context, "Context", interrupted)
        request = engine.add(engine.prepare(ids, GREEDY))
        with pytest.raises(KeyboardInterrupt):
            engine.step()
        engine.cancel(request)
    context = engine._stepper.long_prompts._context
    assert context is not None
    context.set_threads(2)
    computed.clear()
    tokens, request = answer(engine, ids)
    assert sum(computed) == len(ids) - request.n_cached - 1
    assert_alike(model, ids, tokens, usual(model, ids))


def test_closing_frees_it(demo_gguf: Path) -> None:
    gc.collect()
    before = native_handles(), open_files()
    model = Model(demo_gguf)
    engine = Engine(model, plain_from=LEAST)
    request = engine.add(engine.prepare(prompt(model, 400), GREEDY))
    engine.step()
    assert isinstance(engine._stepper.long_prompts._context, PrefillContext)
    engine.close()
    assert request.finish_reason == "closed"
    model.close()
    gc.collect()
    assert (native_handles(), open_files()) == before
