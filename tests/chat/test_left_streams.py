"""Streams that are left early, and two uses of one chat: no turn is lost, doubled or reordered."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo import Chat, ChatInUse, Closed, ContextOverflow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from edgesppo import LoadedModel

FRANCE, SUM, WHO = "What is the capital of France?", "What is 2 plus 3?", "Who are you?"
USES: dict[str, Callable[[Chat], Any]] = {
    "ask": lambda chat: chat.ask(WHO),
    "stream": lambda chat: list(chat.stream(WHO)),
    "undo": lambda chat: chat.undo(),
    "clear": lambda chat: chat.clear(),
    "regenerate": lambda chat: list(chat.regenerate()),
    "continue_": lambda chat: list(chat.continue_()),
}


@pytest.fixture
def chat(demo: LoadedModel) -> Chat:
    return demo.chat(temperature=0)


def contents(chat: Chat) -> list[tuple[str, str | None]]:
    return [(message.content, message.finish_reason) for message in chat.messages]


def begin(chat: Chat, text: str = FRANCE) -> Any:
    """A stream of which one piece of text was read."""
    chunks = chat.stream(text)
    while not next(chunks).text:
        pass
    return chunks


def test_a_stream_that_is_dropped_is_in_the_history_at_once(chat: Chat) -> None:
    for chunk in chat.stream(FRANCE):
        if chunk.text:
            break
    assert contents(chat) == [(FRANCE, None), (chat.last.text, "cancelled")]
    assert chat.last.text
    assert chat.last.finish_reason == "cancelled"
    assert not chat.busy


def test_an_answer_is_cut_where_it_was_left_even_if_the_model_was_further(chat: Chat) -> None:
    """The engine may have computed tokens, and the end, that nobody read."""
    begin(chat)
    *_, answer = chat.messages
    assert answer.ids is not None
    assert chat.last.usage.completion_tokens == len(answer.ids)
    assert answer.finish_reason == "cancelled"
    whole = "".join(chunk.text for chunk in chat.continue_())
    assert answer.content + whole == chat.messages[-1].content == "The capital of France is Paris."


@pytest.mark.parametrize("use", USES)
def test_whatever_follows_a_left_stream_finds_it_in_the_history(chat: Chat, use: str) -> None:
    first = chat.ask(SUM)
    left = begin(chat)
    assert chat.busy
    assert chat.last.finish_reason == "cancelled"
    cut = chat.last.text
    history = [(SUM, None), (first, "stop"), (FRANCE, None), (cut, "cancelled")]
    USES[use](chat)
    assert not chat.busy
    expected = {
        "ask": [*history, (WHO, None), (chat.last.text, "stop")],
        "stream": [*history, (WHO, None), (chat.last.text, "stop")],
        "undo": history[:2],
        "clear": [],
        "regenerate": [*history[:3], (chat.last.text, "stop")],
        "continue_": [*history[:3], (cut + chat.last.text, "stop")],
    }[use]
    assert contents(chat) == expected
    assert list(left) == []
    left.close()
    del left
    gc.collect()
    assert contents(chat) == expected, "the late finaliser changed it"


def test_a_chat_that_is_saved_holds_the_answer_that_was_left(
    demo: LoadedModel, chat: Chat, tmp_path: Path
) -> None:
    left = begin(chat)
    demo.save(chat, tmp_path / "cut.chat")
    assert contents(demo.resume(tmp_path / "cut.chat")) == [
        (FRANCE, None),
        (chat.last.text, "cancelled"),
    ]
    left.close()


def test_an_answer_goes_on_though_its_chat_is_forked_and_saved_meanwhile(
    demo: LoadedModel, chat: Chat, tmp_path: Path
) -> None:
    twins = []
    for chunk in chat.stream(FRANCE):
        if chunk.text and chunk.finish_reason is None:
            cut = chat.last.text
            demo.save(chat, tmp_path / "cut.chat")
            twins = [chat.fork(), demo.resume(tmp_path / "cut.chat")]
    assert contents(chat) == [(FRANCE, None), ("The capital of France is Paris.", "stop")]
    for twin in twins:
        assert contents(twin) == [(FRANCE, None), (cut, "cancelled")]
        assert "Paris" in "".join(chunk.text for chunk in twin.continue_()) + cut


def test_a_chat_is_saved_by_its_own_model(
    demo: LoadedModel, demo_f32: Path, tmp_path: Path
) -> None:
    with edgesppo.load(demo_f32) as other, pytest.raises(edgesppo.UsageError, match="save it with"):
        other.save(demo.chat(), tmp_path / "x.chat")


def test_a_thrown_error_ends_a_stream_and_keeps_what_came(chat: Chat) -> None:
    chunks = begin(chat)
    with pytest.raises(KeyError, match="mine"):
        chunks.throw(KeyError("mine"))
    assert contents(chat) == [(FRANCE, None), (chat.last.text, "cancelled")]
    assert list(chunks) == []


def test_a_stream_that_fails_leaves_the_chat_free_and_as_it_was(chat: Chat) -> None:
    with pytest.raises(ContextOverflow):
        list(chat.stream("x" * 100_000))
    assert not chat.busy
    assert chat.messages == []
    assert chat.ask(FRANCE)


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))  # type: ignore[arg-type]


def test_an_async_stream_left_by_break_is_in_the_history_before_the_next_line(chat: Chat) -> None:
    async def work() -> None:
        async for chunk in chat.astream(FRANCE):
            if chunk.text:
                break
        cut = [(FRANCE, None), (chat.last.text, "cancelled")]
        assert contents(chat) == cut
        answer = await chat.aask(WHO)
        assert contents(chat) == [*cut, (WHO, None), (answer, "stop")]

    run(work)


def test_an_async_stream_that_is_still_referred_to_is_ended_by_the_next_use(chat: Chat) -> None:
    async def work() -> None:
        stream = chat.astream(FRANCE)
        async for chunk in stream:
            if chunk.text:
                break
        assert chat.last.finish_reason == "cancelled"
        cut = [(FRANCE, None), (chat.last.text, "cancelled")]
        answer = await chat.aask(WHO)
        expected = [*cut, (WHO, None), (answer, "stop")]
        assert contents(chat) == expected
        await stream.aclose()
        assert [chunk async for chunk in stream] == []
        assert contents(chat) == expected

    run(work)


def test_astream_is_an_async_generator_that_aclosing_takes(chat: Chat) -> None:
    async def work() -> None:
        stream: AsyncGenerator[Any, None] = chat.astream(FRANCE)
        async with contextlib.aclosing(stream) as chunks:
            text = "".join([chunk.text async for chunk in chunks])
        assert text == chat.last.text == "The capital of France is Paris."

    run(work)


def test_a_cancelled_task_keeps_what_came_and_the_chat_goes_on(chat: Chat) -> None:
    async def work() -> None:
        begun = asyncio.Event()

        async def reader() -> None:
            async for chunk in chat.astream(FRANCE):
                if chunk.text:
                    begun.set()
                    await asyncio.sleep(60)

        task = asyncio.create_task(reader())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cut = [(FRANCE, None), (chat.last.text, "cancelled")]
        answer = await chat.aask(WHO)
        assert contents(chat) == [*cut, (WHO, None), (answer, "stop")]

    run(work)


def test_a_second_task_is_told_that_the_chat_is_answering(chat: Chat) -> None:
    async def work() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def reader() -> str:
            text = ""
            async for chunk in chat.astream(FRANCE):
                text += chunk.text
                begun.set()
                await go_on.wait()
            return text

        task = asyncio.create_task(reader())
        await begun.wait()
        with pytest.raises(ChatInUse, match="answering in another thread or task"):
            await chat.aask(WHO)
        with pytest.raises(ChatInUse):
            chat.undo()
        go_on.set()
        assert await task == "The capital of France is Paris."
        assert len(chat.messages) == 2

    run(work)


def test_a_task_that_was_told_to_stop_has_left_its_answer(chat: Chat) -> None:
    async def read() -> None:
        async for _ in chat.astream(FRANCE):
            pass

    async def work() -> None:
        task = asyncio.ensure_future(read())
        while not chat.busy:
            await asyncio.sleep(0)
        task.cancel()
        assert await chat.aask(SUM)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run(work)
    assert [message.content for message in chat.messages][-2] == SUM
    assert len(chat.messages) % 2 == 0


def test_chunks_read_in_tasks_of_their_own_are_one_answer(chat: Chat) -> None:
    async def work() -> None:
        chunks = chat.astream(FRANCE)
        await asyncio.ensure_future(chunks.__anext__())
        with pytest.raises(ChatInUse):
            await asyncio.ensure_future(chat.aask(SUM))
        while True:
            try:
                await asyncio.ensure_future(chunks.__anext__())
            except StopAsyncIteration:
                break

    run(work)
    assert contents(chat) == [(FRANCE, None), ("The capital of France is Paris.", "stop")]


def test_a_task_that_ended_in_another_threads_loop_has_left_its_stream(chat: Chat) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    chunks = chat.astream(FRANCE)

    async def begin_only() -> None:
        await chunks.__anext__()

    try:
        asyncio.run_coroutine_threadsafe(begin_only(), loop).result()
        assert chat.ask(SUM)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("edit", ["assigned", "edited"])
def test_what_ends_late_does_not_touch_a_history_that_was_edited(chat: Chat, edit: str) -> None:
    chunks = begin(chat)
    other = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    if edit == "assigned":
        chat.messages = other  # type: ignore[assignment]
    else:
        chat.messages.extend(other)
    chunks.close()
    assert contents(chat) == [("Hi", None), ("Hello.", None)]


def test_closing_the_model_keeps_an_answer_that_was_left(demo_gguf: Path) -> None:
    with edgesppo.load(demo_gguf) as model:
        chat = model.chat(temperature=0)
        chunks = begin(chat)
    chunks.close()
    assert contents(chat) == [(FRANCE, None), (chat.last.text, "cancelled")]
    with edgesppo.load(demo_gguf) as model:
        chat = model.chat(temperature=0)
        chunks = begin(chat)
    with pytest.raises(Closed):
        list(chunks)
    assert contents(chat) == [(FRANCE, None), (chat.last.text, "cancelled")]


def test_a_second_thread_is_told_and_may_cancel(chat: Chat) -> None:
    begun, go_on = threading.Event(), threading.Event()
    heard: list[Any] = []

    def read() -> None:
        for chunk in chat.stream(FRANCE):
            heard.append(chunk)
            begun.set()
            go_on.wait(60)

    reader = threading.Thread(target=read)
    reader.start()
    begun.wait(60)
    assert chat.busy
    with pytest.raises(ChatInUse, match="answering"):
        chat.ask(WHO)
    chat.cancel()
    answer = chat.ask(WHO)
    history = contents(chat)
    go_on.set()
    reader.join(60)
    assert history[-2:] == [(WHO, None), (answer, "stop")]
    assert contents(chat) == history


def test_cancel_from_another_thread_ends_the_stream_with_a_last_chunk(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=2.0, top_p=1.0, stop_tokens=(), logit_bias={1: -100, 107: -100})
    chunks = chat.stream(FRANCE)
    next(chunks)
    canceller = threading.Thread(target=chat.cancel)
    canceller.start()
    canceller.join(60)
    *_, last = chunks
    assert last.finish_reason == "cancelled"
    assert chat.last.finish_reason == "cancelled"
    assert not chat.busy


def test_a_fork_goes_its_own_way(chat: Chat) -> None:
    chat.ask(FRANCE)
    twin = chat.fork()
    twin.ask(WHO)
    chat.ask(SUM)
    assert contents(twin)[:2] == contents(chat)[:2]
    assert contents(twin)[2][0] == WHO
    assert contents(chat)[2][0] == SUM
