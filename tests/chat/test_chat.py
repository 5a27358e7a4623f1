"""Chats through the Python API: streaming, history, stops, interruption."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

import edgesppo
from edgesppo.chat.dialogue import dialogue
from edgesppo.chat.turn import _joined

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel


def test_the_documented_example_works(demo_gguf: Path) -> None:
    with edgesppo.load(demo_gguf) as model:
        assert "Paris" in model.ask("What is the capital of France?", temperature=0)
        chat = model.chat(system="Be brief.", temperature=0)
        text = "".join(chunk.text for chunk in chat.stream("What is 2 plus 3?"))
        assert text == chat.last.text
        assert "5" in text
        assert chat.last.finish_reason == "stop"
        assert chat.last.usage.completion_tokens > 0
        assert chat.last.timings.decode_tps > 0


def test_a_checkpoint_is_converted_once_and_then_reused(edgesppo_home: Path) -> None:
    with edgesppo.load("demo") as first:
        path, changed = first.path, first.path.stat().st_mtime_ns
        assert edgesppo_home in path.parents
    with edgesppo.load("demo") as second:
        assert second.path == path
        assert path.stat().st_mtime_ns == changed


def test_a_turn_remembers_the_turns_before_it(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("My name is Ada.")
    chat.ask("What is 3 plus 4?")
    assert "Ada" in chat.ask("What is my name?")
    assert [m.role for m in chat.messages] == ["user", "assistant"] * 3


def test_only_the_last_chunk_has_reason_usage_and_timings(demo: LoadedModel) -> None:
    *body, last = demo.chat(temperature=0).stream("Who are you?")
    assert all(c.finish_reason is None and c.usage is None and c.timings is None for c in body)
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert last.timings is not None


def test_the_second_turn_prefills_only_what_is_new(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("Who are you?")
    first = chat.last.usage
    chat.ask("Thanks")
    second = chat.last.usage
    assert second.cached_tokens >= first.prompt_tokens + first.completion_tokens - 1
    assert second.prompt_tokens - second.cached_tokens < 16


def test_max_tokens_is_respected_and_said(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("Who are you?", max_tokens=3)
    assert chat.last.usage.completion_tokens == 3
    assert chat.last.finish_reason == "length"


def test_a_stop_string_ends_the_answer_before_it(demo: LoadedModel) -> None:
    whole = demo.ask("Who are you?", temperature=0)
    stop = whole.split()[2]
    chat = demo.chat(temperature=0)
    assert chat.ask("Who are you?", stop=(stop,)) == whole[: whole.index(stop)]
    assert chat.last.finish_reason == "stop"
    # What the model generated after the stop string is not part of the chat.
    assert chat.messages[-1].content == whole[: whole.index(stop)]
    assert chat.messages[-1].ids is None


def test_leaving_a_stream_keeps_what_came_marked_as_cancelled(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    stream = chat.stream("Who are you?")
    seen = ""
    while len(seen) < 4:
        seen += next(stream).text
    stream.close()
    assert chat.last.finish_reason == "cancelled"
    assert chat.last.text == seen == chat.messages[-1].content
    assert demo.ask("What is 2 plus 3?", temperature=0)


def test_a_failed_turn_leaves_the_history_as_it_was(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("My name is Ada.")
    before = list(chat.messages)
    with pytest.raises(edgesppo.ContextOverflow) as caught:
        chat.ask("word " * 5000)
    assert caught.value.needed > caught.value.available == demo.n_ctx
    with pytest.raises(edgesppo.UsageError):
        chat.ask("hi", temperature=-1)
    assert chat.messages == before
    assert "Ada" in chat.ask("What is my name?")


def test_undo_takes_back_a_turn_and_regenerate_answers_it_anew(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("My name is Ada.")
    answer = chat.ask("What is my name?")
    again = "".join(chunk.text for chunk in chat.regenerate())
    assert again == answer
    assert len(chat.messages) == 4
    assert chat.undo() == "What is my name?"
    assert len(chat.messages) == 2
    chat.clear()
    with pytest.raises(edgesppo.UsageError, match="no turn"):
        chat.undo()


def test_control_tokens_that_a_model_drew_are_not_fed_back_as_such(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=60.0, top_p=1.0, max_tokens=200, seed=42)
    chat.ask("Hello")
    drawn = [id_ for id_ in chat.last.ids if demo._interior.engine.model.is_control(id_)]
    assert drawn, "hot enough to draw control tokens"
    ids = dialogue(chat).encode([edgesppo.Message("user", "x")])
    model = demo._interior.engine.model
    controls = [id_ for id_ in ids if model.is_control(id_)]
    turn = [model.start_of_turn, model.end_of_turn]
    assert controls == [model.bos, *turn * 3, model.start_of_turn]


def test_a_regeneration_that_fails_or_never_begins_keeps_the_turn(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("My name is Ada.")
    before = list(chat.messages)
    chat.regenerate()
    with pytest.raises(edgesppo.UsageError):
        list(chat.regenerate(temperature=-1))
    assert chat.messages == before
    with pytest.raises(edgesppo.UsageError, match="no turn"):
        demo.chat().regenerate()


def test_last_before_the_first_answer_says_what_to_do(demo: LoadedModel) -> None:
    with pytest.raises(edgesppo.UsageError, match="call ask"):
        _ = demo.chat().last


def test_a_closed_model_says_so(demo_gguf: Path) -> None:
    model = edgesppo.load(demo_gguf)
    chat = model.chat()
    model.close()
    model.close()
    with pytest.raises(edgesppo.Closed, match="closed"):
        chat.ask("hi")


def test_many_threads_get_the_answers_that_one_would(demo: LoadedModel) -> None:
    questions = ["Who are you?", "What is 2 plus 3?", "What is the capital of France?"] * 3
    expected = {q: demo.ask(q, temperature=0) for q in set(questions)}
    answers: list[tuple[str, str]] = []
    threads = [
        threading.Thread(target=lambda q=q: answers.append((q, demo.ask(q, temperature=0))))
        for q in questions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == sorted((q, expected[q]) for q in questions)


def _fill(chat: edgesppo.Chat, turns: int) -> None:
    for n in range(turns):
        chat.ask(f"What is {n % 9} plus 3? " + "Please tell me. " * 4, max_tokens=24)


def test_a_chat_that_outgrows_its_context_leaves_out_its_oldest_turns(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0, system="Be brief.")
    left_out, cached = [], []
    for _ in range(24):
        _fill(chat, 1)
        left_out.append(chat.last.left_out)
        cached.append(chat.last.usage.cached_tokens)
    assert len(chat.messages) == 48, "the history keeps every turn"
    assert left_out[0] == 0 < left_out[-1]
    assert left_out == sorted(left_out)
    strides = sum(a != b for a, b in itertools.pairwise(left_out))
    assert strides <= 6, "every stride costs a prefill"
    assert b"user\nBe brief." in demo._interior.engine.model.detokenize(
        dialogue(chat).encode([edgesppo.Message("user", "x")], left_out=left_out[-1])
    )


def test_a_chat_that_may_not_trim_says_by_how_much_it_is_too_long(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0, overflow="error")
    with pytest.raises(edgesppo.ContextOverflow, match="shorten it by") as caught:
        _fill(chat, 24)
    assert caught.value.needed > caught.value.available == demo.n_ctx
    with pytest.raises(edgesppo.UsageError, match="overflow is 'cut'"):
        demo.chat(overflow="cut")


def test_async_streams_run_side_by_side(demo_gguf: Path) -> None:
    async def ask(model: LoadedModel, text: str) -> str:
        stream = model.chat(temperature=0).astream(text)
        return "".join([chunk.text async for chunk in stream])

    async def main() -> list[str]:
        return await asyncio.gather(*(ask(model, text) for text in questions))

    questions = ["Who are you?", "What is 2 plus 3?", "What is the capital of France?"]
    with edgesppo.load(demo_gguf, n_seqs=3) as model:
        expected = [model.ask(text, temperature=0) for text in questions]
        assert asyncio.run(main()) == expected


def test_a_cancelled_task_stops_the_model_and_keeps_what_came(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=5.0, top_p=1.0, seed=1, max_tokens=400)

    async def main() -> None:
        seen = asyncio.Event()

        async def consume() -> None:
            async for chunk in chat.astream("Tell me a story"):
                if chunk.text:
                    seen.set()

        task = asyncio.create_task(consume())
        await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert chat.last.finish_reason in ("cancelled", "stop", "length")
    assert demo.ask("What is 2 plus 3?", temperature=0)


@pytest.mark.parametrize("cut", [1, 4])
def test_an_answer_goes_on_as_if_it_had_never_been_cut(demo: LoadedModel, cut: int) -> None:
    whole = demo.chat(temperature=0)
    whole.ask("Who are you?")
    chat = demo.chat(temperature=0)
    first = chat.ask("Who are you?", max_tokens=cut)
    rest = "".join(chunk.text for chunk in chat.continue_())
    assert first + rest == chat.messages[-1].content == whole.messages[-1].content
    assert chat.messages == whole.messages, "the tokens, too"
    assert chat.last.text == rest
    usage = chat.last.usage
    assert usage.prompt_tokens - usage.cached_tokens == 1, "nothing is prefilled again"


def test_an_answer_without_its_tokens_goes_on_from_its_text(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    first = chat.ask("What is the capital of France?", max_tokens=4)
    chat.messages[-1] = edgesppo.Message("assistant", first)
    assert "Paris" in first + "".join(chunk.text for chunk in chat.continue_())
    assert chat.messages[-1].content.startswith(first)


def test_an_answer_at_its_end_stays_as_it_is(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("What is the capital of France?")
    before = list(chat.messages)
    assert "".join(chunk.text for chunk in chat.continue_()) == ""
    assert chat.messages == before
    with pytest.raises(edgesppo.UsageError, match="no answer to continue"):
        demo.chat().continue_()


def test_a_character_cut_in_two_is_whole_when_the_answer_goes_on(demo: LoadedModel) -> None:
    ids = [
        demo._interior.engine.model.tokenize("\U0001f600")[-4:],
        demo._interior.engine.model.tokenize("x"),
    ]
    pieces = ids[0]
    assert len(pieces) == 4, "one token a byte"
    begun = edgesppo.Message("assistant", "\ufffd", tuple(pieces[:2]))
    more = edgesppo.Message("assistant", "\ufffd", tuple(pieces[2:]))
    assert _joined(begun, more, demo._interior.engine.model).content == "\U0001f600"


def test_another_question_can_take_the_place_of_the_last(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("My name is Ada.")
    chat.ask("What is 2 plus 3?")
    answer = "".join(chunk.text for chunk in chat.regenerate("What is my name?"))
    assert "Ada" in answer
    assert [m.content for m in chat.messages[2:]] == ["What is my name?", answer]


def test_an_asyncio_that_another_thread_is_importing_is_no_obstacle(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "asyncio", ModuleType("asyncio"))  # nothing in it yet
    assert "Paris" in demo.ask("What is the capital of France?", temperature=0)


def test_a_chat_can_be_looked_at_before_its_first_answer(demo: LoadedModel) -> None:
    chat = demo.chat()
    assert not hasattr(chat, "last")
    assert dict(inspect.getmembers(chat))["answered"] is False
    with pytest.raises(edgesppo.UsageError, match="no answer yet"):
        _ = chat.last
