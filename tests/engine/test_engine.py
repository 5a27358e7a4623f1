"""One context, many sequences: reuse, isolation, cancelling, limits. Token ids only."""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import TYPE_CHECKING

import pytest

import edgesppo
from edgesppo import SamplingParams
from edgesppo.engine import prefill_slice
from edgesppo.engine.engine import Engine, Request
from edgesppo.engine.prefill_slice import LEAST
from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.planning.run_config import ContextParams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.llama.model import Model

GREEDY = SamplingParams(temperature=0, max_tokens=12)
ENDLESS = SamplingParams(temperature=5.0, top_p=1.0, max_tokens=10_000, seed=1)
STORY = "My name is Ada. What is 2 plus 3? Who are you? "


@pytest.fixture
def engine(model: Model) -> Iterator[Engine]:
    made = Engine(model)
    yield made
    made.close()


def _prompt(model: Model, text: str) -> list[int]:
    return [model.bos, *model.tokenize(text)]


class NoLock(contextlib.nullcontext[None]):
    """A lock that nobody waits for."""

    def acquire(self, *, blocking: bool) -> bool:  # noqa: ARG002
        return True

    def release(self) -> None:
        pass


def _finish(engine: Engine, request: Request) -> list[int]:
    return [event.token for event in engine.stream(request) if event.token is not None]


def _fresh(model: Model, prompt: list[int], params: SamplingParams = GREEDY) -> list[int]:
    engine = Engine(model)
    try:
        return _finish(engine, engine.add(engine.prepare(prompt, params)))
    finally:
        engine.close()


def test_a_shared_prefix_is_not_prefilled_again(model: Model, engine: Engine) -> None:
    first, second = _prompt(model, STORY + "Hi"), _prompt(model, STORY + "Bye now")
    _finish(engine, engine.add(engine.prepare(first, GREEDY)))
    request = engine.add(engine.prepare(second, GREEDY))
    tokens = _finish(engine, request)
    pairs = zip(first, second, strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    assert request.n_cached == shared > 10
    assert tokens == _fresh(model, second)


def test_the_very_same_prompt_decodes_one_token_only(model: Model, engine: Engine) -> None:
    prompt = _prompt(model, STORY)
    once = engine.add(engine.prepare(prompt, GREEDY))
    tokens = _finish(engine, once)
    twice = engine.add(engine.prepare(prompt, GREEDY))
    assert _finish(engine, twice) == tokens
    assert twice.n_cached == len(prompt) - 1


def test_going_back_beyond_the_sliding_window_prefills_anew(model: Model) -> None:
    """The window's cells are overwritten, so reusing the prefix would give wrong logits."""
    # With larger micro-batches llama.cpp keeps the whole context for the sliding-window layers.
    engine = Engine(model, n_ubatch=32)
    long = _prompt(model, STORY * 20)[:480]
    assert len(long) > 2 * model.weights.n_swa
    _finish(engine, engine.add(engine.prepare(long, GREEDY)))
    for keep in (5, 40, 200, 475):
        edited = [*long[:keep], *model.tokenize(" What is my name?")]
        request = engine.add(engine.prepare(edited, GREEDY))
        assert _finish(engine, request) == _fresh(model, edited), f"kept {keep}"
        assert (request.n_cached > 0) == (keep > 300), "256 cells are kept"
        _finish(engine, engine.add(engine.prepare(long, GREEDY)))
    engine.close()


def test_sequences_side_by_side_give_what_each_gives_alone(model: Model) -> None:
    prompts = [_prompt(model, text) for text in ("Hello", STORY, STORY * 6, "What is 2 plus 3?")]
    alone = [_fresh(model, prompt) for prompt in prompts]
    engine = Engine(model, n_seqs=3, n_batch=32)
    requests = [engine.add(engine.prepare(prompt, GREEDY)) for prompt in prompts]
    together = [_finish(engine, request) for request in requests]
    engine.close()
    assert together == alone


def test_a_sequence_does_not_change_the_sampling_of_another(model: Model) -> None:
    prompt = _prompt(model, "Tell me a story")
    hot = SamplingParams(temperature=2.0, top_p=1.0, seed=7, max_tokens=10)
    alone = _fresh(model, prompt, hot)
    engine = Engine(model, n_seqs=2)
    requests = [engine.add(engine.prepare(prompt, hot.replace(seed=seed))) for seed in (7, 8)]
    first, second = (_finish(engine, request) for request in requests)
    engine.close()
    assert first == alone
    assert second != first


def test_cancel_from_another_thread_ends_a_stream(model: Model, engine: Engine) -> None:
    request = engine.add(engine.prepare(_prompt(model, "Hello"), ENDLESS))
    stream = engine.stream(request)
    next(stream)
    thread = threading.Thread(target=engine.cancel, args=[request])
    thread.start()
    thread.join()
    assert [event.finish_reason for event in stream][-1] == "cancelled"
    prompt = _prompt(model, "Hello")
    assert _finish(engine, engine.add(engine.prepare(prompt, GREEDY))) == _fresh(model, prompt)


def test_a_decode_stops_at_the_abort_flag_and_the_context_is_usable_again(model: Model) -> None:
    prompt = _prompt(model, STORY * 20)[:480]
    context = Context(model.weights, ContextParams(n_ctx=512))
    batch = Batch(512)
    batch.add(0, 0, prompt, logits=True)
    context.abort.set()
    with pytest.raises(edgesppo.Cancelled):
        context.decode(batch)
    context.abort.clear()
    context.remove(0, 0)
    context.decode(batch)
    best = max(range(model.n_vocab), key=context.logits(len(prompt) - 1).__getitem__)
    context.close()
    assert best == _fresh(model, prompt)[0]


def test_a_prefill_that_is_cancelled_midway_leaves_the_cache_right(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The abort flag is set while the second of three slices is being decoded."""
    prompt = _prompt(model, STORY * 20)[:480]
    engine = Engine(model, n_batch=160)
    decode, calls = Context.decode, []

    def decode_and_abort(context: Context, batch: Batch) -> None:
        calls.append(len(batch))
        if len(calls) == 2:
            engine.cancel(request)
        decode(context, batch)

    request = engine.add(engine.prepare(prompt, GREEDY))
    with monkeypatch.context() as patch:
        patch.setattr(Context, "decode", decode_and_abort)
        # The cancel comes from the decode's own thread, so it must not wait for the engine.
        patch.setattr(engine, "_lock", NoLock())
        tokens = _finish(engine, request)
    assert (tokens, request.finish_reason) == ([], "cancelled")
    assert len(calls) == 2
    again = engine.add(engine.prepare(prompt, GREEDY))
    assert _finish(engine, again) == _fresh(model, prompt)
    assert again.n_cached <= 160
    engine.close()


def test_leaving_a_stream_frees_its_slot(model: Model, engine: Engine) -> None:
    for _ in range(5):
        stream = engine.stream(engine.add(engine.prepare(_prompt(model, STORY), GREEDY)))
        next(stream)
        stream.close()
    prompt = _prompt(model, "Hello")
    assert _finish(engine, engine.add(engine.prepare(prompt, GREEDY))) == _fresh(model, prompt)


def test_a_prompt_longer_than_the_context_says_by_how_much(model: Model, engine: Engine) -> None:
    prompt = [model.bos] * (engine.n_ctx + 9)
    with pytest.raises(edgesppo.ContextOverflow, match="shorten it by 10 or more") as caught:
        engine.add(engine.prepare(prompt, GREEDY))
    assert (caught.value.needed, caught.value.available) == (engine.n_ctx + 10, engine.n_ctx)


def test_an_answer_that_fills_the_context_ends_with_length(model: Model) -> None:
    engine = Engine(model, n_ctx=64)
    prompt = _prompt(model, STORY * 4)[:60]
    requests = [engine.add(engine.prepare(prompt, ENDLESS.replace(seed=seed))) for seed in range(5)]
    answers = [(_finish(engine, request), request.finish_reason) for request in requests]
    engine.close()
    full = [tokens for tokens, reason in answers if reason == "length"]
    assert full, "every one of five hot answers drew an end token"
    assert all(len(tokens) == 4 for tokens in full)


def test_closing_while_a_stream_runs_ends_it_with_a_clear_error(model: Model) -> None:
    engine = Engine(model)
    stream = engine.stream(engine.add(engine.prepare(_prompt(model, STORY), GREEDY)))
    next(stream)
    engine.close()
    with pytest.raises(edgesppo.Closed, match="while it was answering"):
        list(stream)
    with pytest.raises(edgesppo.Closed):
        engine.add(engine.prepare([1, 2], GREEDY))


def test_a_prefix_that_a_running_sequence_holds_is_shared(model: Model) -> None:
    system = _prompt(model, STORY)
    engine = Engine(model, n_seqs=3)
    first = engine.add(engine.prepare([*system, *model.tokenize("Who are you?")], ENDLESS))
    stream = engine.stream(first)
    next(stream)
    prompt = [*system, *model.tokenize("Thanks!")]
    second = engine.add(engine.prepare(prompt, GREEDY))
    tokens = _finish(engine, second)
    stream.close()
    engine.close()
    assert second.n_cached >= len(system) - 1
    assert tokens == _fresh(model, prompt)


def test_a_long_prompt_comes_in_slices_beside_running_answers(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, sizes = Context.decode, []
    monkeypatch.setattr(
        Context, "decode", lambda self, batch: (sizes.append(len(batch)), decode(self, batch))[1]
    )
    monkeypatch.setattr(prefill_slice, "PAUSE_S", 0.0)  # as on a slow machine
    engine = Engine(model, n_seqs=2, n_ctx=512)
    running = engine.add(engine.prepare(_prompt(model, "Hello"), ENDLESS))
    stream = engine.stream(running)
    next(stream)
    sizes.clear()
    before = running.n_generated
    long = engine.add(engine.prepare(_prompt(model, STORY * 20)[:400], GREEDY))
    while not long.n_generated:
        engine.step()
    assert max(sizes) <= LEAST + 1, "a running answer waited for more than a slice"
    assert running.n_generated - before >= 400 // LEAST or running.finish_reason is not None
    stream.close()
    engine.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_ctx", 0), ("n_ctx", 10**9), ("n_seqs", 0), ("n_threads", 0), ("cache_type", "q1")],
)
def test_a_senseless_setting_is_refused_by_name(model: Model, name: str, value: object) -> None:
    with pytest.raises(edgesppo.UsageError, match=rf"{name}( \(--.*\))? is {value!r}, expected"):
        Engine(model, **{name: value})  # type: ignore[arg-type]


def test_an_empty_prompt_is_refused(engine: Engine) -> None:
    with pytest.raises(edgesppo.UsageError, match="no tokens"):
        engine.add(engine.prepare([], GREEDY))


def test_making_and_closing_engines_leaves_no_thread(model: Model) -> None:
    before = threading.active_count()
    for _ in range(10):
        _fresh(model, _prompt(model, STORY))
    assert threading.active_count() == before


def test_a_prompt_that_finds_no_room_waits_for_the_answer_beside_it(model: Model) -> None:
    """No cells can be freed for it yet, and that is no error."""
    engine = Engine(model, n_ctx=256, n_seqs=2)
    long = [model.bos, *range(300, 500)]
    short = [*range(600, 700)]  # shares no cells
    params = GREEDY.replace(logit_bias={1: -100, model.end_of_turn: -100})
    first = engine.add(engine.prepare(long, params))
    engine.step()
    assert first.n_generated == 1
    second = engine.add(engine.prepare(short, params))
    engine.step()
    assert (second.n_prefilled, second.finish_reason) == (0, None)
    tokens = [_finish(engine, first), _finish(engine, second)]
    assert [request.finish_reason for request in (first, second)] == ["length", "length"]
    engine.close()
    alone = Engine(model, n_ctx=256)
    assert tokens == [
        _finish(alone, alone.add(alone.prepare(prompt, params))) for prompt in (long, short)
    ]
    alone.close()


def test_prompts_that_together_outgrow_a_small_context_go_in_more_batches(model: Model) -> None:
    """llama.cpp ends the process for a batch of more tokens than the cache has cells."""
    engine = Engine(model, n_ctx=256, n_seqs=4)
    prompts = [[*range(300 + 70 * n, 370 + 70 * n)] for n in range(4)]
    requests = [
        engine.add(engine.prepare(prompt, GREEDY.replace(max_tokens=2))) for prompt in prompts
    ]
    for request in requests:
        _finish(engine, request)
        assert request.finish_reason in ("stop", "length")
    engine.close()
