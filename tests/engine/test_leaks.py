"""Objects that are created and closed leak nothing: no memory, thread, file or native handle."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from tests.support.resources import native_handles, open_files
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDLESS: dict[str, Any] = {"temperature": 5.0, "top_p": 1.0, "max_tokens": 10_000}
# Bytes by which memory may grow in hundreds of cycles, as the allocator settles only gradually. A
# context takes 8 MB, the vocabulary 1 MB.
UNREST = 4_000_000

CYCLES = """
import ctypes, gc, sys, time, edgesppo
from edgesppo import SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.llama.model import Model
from tests.support.resources import native_handles, open_files, resident, threads

path, kind, cycles = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = Model(path)
ids = [2] + model.tokenize("My name is Ada.")

def engine():
    made = Engine(model, n_threads=1)
    params = SamplingParams(temperature=0, max_tokens=2, repeat_penalty=1.1)
    request = made.add(made.prepare(ids, params))
    assert sum(1 for _ in made.stream(request)) > 0
    made.close()

def load():
    with edgesppo.load(path, n_threads=1) as loaded:
        chat = loaded.chat(max_tokens=1)
        chat.ask("Hi")

def settled():
    # The memory in use after the allocator returned what it can and finished threads are gone.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0) if sys.platform == "linux" else None
    least = min(threads() for _ in range(20) if not time.sleep(0.01))
    return f"{resident()} {least} {open_files()} {native_handles()}"

cycle = {"engine": engine, "load": load}[kind]
for n in range(1, cycles + 1):
    cycle()
    if n in (cycles // 5, cycles):
        print(settled(), flush=True)
"""


@pytest.mark.parametrize(
    ("kind", "cycles"), [("engine", 1000 if LONG else 100), ("load", 1000 if LONG else 25)]
)
def test_many_cycles_leave_nothing(demo_gguf: Path, kind: str, cycles: int) -> None:
    command = [sys.executable, "-c", CYCLES, str(demo_gguf), kind, str(cycles)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    early, late = ([int(n) for n in line.split()] for line in done.stdout.splitlines())
    megabytes = [f"{figures[0] / 1e6:.1f} MB" for figures in (early, late)]
    print(f"{kind}: {megabytes[0]} after {cycles // 5} cycles, {megabytes[1]} after {cycles}")
    assert late[1:] == early[1:], "threads, files, native handles"
    assert late[0] - early[0] < UNREST


@pytest.fixture
def held(demo_gguf: Path) -> Iterator[edgesppo.LoadedModel]:
    """A model that is closed afterwards; everything that it held must be freed."""
    before = _held()
    model = edgesppo.load(demo_gguf)
    yield model
    assert model._interior.engine._context is None, "the test closes it"
    del model
    assert _held() == before


def _held() -> dict[str, int]:
    gc.collect()
    return {
        "handles": native_handles(),
        "files": open_files(),
        "threads": threading.active_count(),
    }


def _talk(model: edgesppo.LoadedModel, seed: int = 1) -> None:
    """Generate answer after answer; at high temperatures they can end by themselves."""
    chat = model.chat(**ENDLESS)
    while True:
        for _ in chat.stream("Tell me a story", seed=seed):
            assert len(chat.messages) % 2 == 0


def test_closing_from_another_thread_ends_a_stream(held: edgesppo.LoadedModel) -> None:
    thread = threading.Timer(0.05, held.close)
    thread.start()
    with pytest.raises(edgesppo.Closed, match="closed"):
        _talk(held)
    thread.join()


def test_closing_ends_streams_of_many_threads(held: edgesppo.LoadedModel) -> None:
    ends: list[str] = []
    running = threading.Barrier(6)

    def talk(seed: int) -> None:
        running.wait(30)
        try:
            _talk(held, seed)
        except edgesppo.Closed as error:
            ends.append(str(error))

    talkers = [threading.Thread(target=talk, args=[seed]) for seed in range(5)]
    for thread in talkers:
        thread.start()
    running.wait(30)
    held.close()
    for thread in talkers:
        thread.join(30)
    assert len(ends) == 5
    assert all("closed" in end for end in ends)


def test_closing_ends_an_async_stream(held: edgesppo.LoadedModel) -> None:
    async def talk() -> None:
        while True:
            async for _ in held.chat(**ENDLESS).astream("Tell me a story"):
                pass

    async def main() -> None:
        talkers = [asyncio.ensure_future(talk()) for _ in range(3)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(held.close)
        ends = await asyncio.gather(*talkers, return_exceptions=True)
        assert [type(end) for end in ends] == [edgesppo.Closed] * 3

    asyncio.run(main())


@pytest.mark.parametrize("way", ["break", "close", "forget", "never begun", "cancelled task"])
def test_a_stream_that_is_left_leaves_nothing(held: edgesppo.LoadedModel, way: str) -> None:
    chat = held.chat(**ENDLESS, seed=1)
    stream: Any = chat.stream("Tell me a story")
    if way == "never begun":
        del stream
    elif way == "cancelled task":
        stream.close()
        asyncio.run(_cancel(chat))
    else:
        next(stream)
        if way == "close":
            stream.close()
        del stream
    gc.collect()
    held._interior.engine.step()
    assert held._interior.engine._schedule.requests() == []
    assert not any(slot.busy for slot in held._interior.engine._cache._slots)
    held.close()


async def _cancel(chat: edgesppo.Chat) -> None:
    async def consume() -> None:
        async for _ in chat.astream("Tell me a story"):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])


class Owner:
    """An owner of a request."""


def test_a_request_ends_with_its_owner(held: edgesppo.LoadedModel) -> None:
    """As after an interrupt in the very code that would have cancelled it."""
    owner = Owner()
    request = held._interior.engine.add(
        held._interior.engine.prepare([2, 5, 6], edgesppo.SamplingParams(**ENDLESS), owner=owner)
    )
    held._interior.engine.step()
    assert request.finish_reason is None
    del owner
    held._interior.engine.step()
    assert request.finish_reason == "cancelled"
    held.close()


def test_a_model_that_is_forgotten_is_freed(demo_gguf: Path) -> None:
    before = _held()
    model = edgesppo.load(demo_gguf)
    model.ask("Hi", max_tokens=2)
    objects = [
        weakref.ref(thing)
        for thing in (model, model._interior.engine, model._interior.engine.model)
    ]
    del model
    assert _held() == before
    assert [thing() for thing in objects] == [None] * 3
