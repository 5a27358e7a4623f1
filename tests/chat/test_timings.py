"""What every result reports: tokens, times, rates, and what was reused."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import edgesppo
from edgesppo import Chat, Result, SamplingParams, Timings, Usage
from edgesppo.engine.engine import Engine
from edgesppo.terminal.format import speed_line

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel

GREEDY = SamplingParams(temperature=0, max_tokens=8)
LONG = "My name is Ada. Who are you? " * 30


def test_an_answer_tells_its_tokens_and_times(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    *_, last = chat.stream("Who are you?")
    result = chat.last
    assert (last.usage, last.timings) == (result.usage, result.timings)
    assert result.usage.completion_tokens == len(result.ids)
    timings = result.timings
    assert timings.ttft_s is not None
    assert timings.ttft_s > 0
    assert timings.prefill_tps > 0
    assert timings.decode_tps > 0


def test_one_token_has_no_decode_rate(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0, max_tokens=1)
    chat.ask("Who are you?")
    assert chat.last.usage.completion_tokens == 1
    assert chat.last.timings.decode_tps == 0


def test_an_answer_stopped_in_its_prefill_tells_how_far_it_came(demo: LoadedModel) -> None:
    engine = Engine(demo._interior.engine.model, n_batch=64)
    chat = Chat(engine, GREEDY)
    stream: Any = chat.stream(LONG)
    first = next(stream)
    assert (first.text, first.prefilled) == ("", 64)
    stream.close()
    engine.close()
    result = chat.last
    assert (result.finish_reason, result.text, chat.messages) == ("cancelled", "", [])
    assert result.timings.ttft_s is None
    assert result.timings.prefill_tps > 0
    assert result.timings.decode_tps == 0
    line = speed_line(result)
    assert "stopped before the first token" in line
    assert "decode" not in line
    assert "first token 0.00" not in line


def test_what_was_computed_for_one_is_not_counted_for_another(demo: LoadedModel) -> None:
    """A result keeps its figures when its slot in the cache goes to another prompt."""
    engine = Engine(demo._interior.engine.model, n_batch=64)
    stopped = Chat(engine, GREEDY)
    stream: Any = stopped.stream(LONG)
    next(stream)
    stream.close()
    request_figures = dataclasses.astuple(stopped.last)
    Chat(engine, GREEDY).ask("Hello")
    engine.close()
    assert dataclasses.astuple(stopped.last) == request_figures


def test_what_was_reused_is_said(demo_gguf: Path, tmp_path: Path) -> None:
    with edgesppo.load(demo_gguf, n_seqs=2) as model:
        chat = model.chat(temperature=0)
        chat.ask("My name is Ada.")
        assert (chat.last.reused, chat.last.usage.cached_tokens) == ("nothing", 0)
        chat.ask("What is my name?")
        assert chat.last.reused == "earlier"
        assert chat.last.usage.cached_tokens > 10
        model.save(chat, tmp_path / "chat")
        other = model.chat(temperature=5.0, top_p=1.0, max_tokens=400, system="Be brief. " * 5)
        stream: Any = other.stream("Tell me a story")
        next(stream)
        beside = model.chat(temperature=0, system="Be brief. " * 5)
        beside.ask("Who are you?")
        assert beside.last.reused == "shared"
        n_held = sum(len(slot.ids) for slot in model._interior.engine._cache._slots)
        assert model._interior.engine._cache.n_held() == n_held - beside.last.usage.cached_tokens
        stream.close()
    with edgesppo.load(demo_gguf) as again:
        resumed = again.resume(tmp_path / "chat", temperature=0)
        resumed.ask("Thanks")
        assert resumed.last.reused == "restored"
        resumed.ask("Thanks")
        assert resumed.last.reused == "earlier"
    with edgesppo.load(demo_gguf, n_seqs=2) as again:  # another slot is free
        resumed = again.resume(tmp_path / "chat", temperature=0)
        list(resumed.regenerate())
        assert resumed.last.reused == "restored"


def test_the_line_under_an_answer() -> None:
    timings = Timings(0.5, 100.0, 10.0)
    result = Result("x", "length", Usage(20, 5, 7), timings, seed=1, left_out=2)
    assert speed_line(result) == (
        "[20 tokens in (5 cached), 7 out | first token 0.50 s | prefill 100.0 t/s, decode 10.0 t/s"
        " | cut off at the limit | the oldest 2 turns left out]"
    )
    stopped = Result("", "cancelled", Usage(20, 0, 0), Timings(None, 80.0, 0.0), seed=1)
    assert speed_line(stopped) == (
        "[20 tokens in, 0 out | prefill 80.0 t/s | stopped before the first token]"
    )
