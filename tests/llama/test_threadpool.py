"""Compute threads are started once for a context, end with it, and change no answer."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgesppo import OutOfMemory, SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.llama import context as contexts
from edgesppo.llama import library, threadpool
from edgesppo.llama.threadpool import can_keep_threads
from edgesppo.system import memory_guard

if TYPE_CHECKING:
    from edgesppo.loaded_model import LoadedModel

linux = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
QUESTION = "What is the capital of France?"


@pytest.fixture(autouse=True)
def _has_pools() -> None:
    if not can_keep_threads(2):
        pytest.skip("this build of llama.cpp keeps its threads by itself")


def tasks() -> set[str]:
    """The threads of this process, native ones included."""
    return {path.name for path in Path("/proc/self/task").iterdir()}


def answer(engine: Engine, demo: LoadedModel) -> list[int]:
    prompt = demo.tokenize(QUESTION, chat=True)
    request = engine.add(engine.prepare(prompt, SamplingParams(temperature=0, max_tokens=3)))
    return [event.token for event in engine.stream(request) if event.token is not None]


def engine_of(demo: LoadedModel, threads: int) -> Engine:
    return Engine(
        demo._interior.engine.model, n_threads=threads, flash_attention="off", draft_costs=None
    )


@linux
def test_they_are_started_with_the_context_and_end_with_it(demo: LoadedModel) -> None:
    before = tasks()
    engine = engine_of(demo, 3)
    started = tasks() - before
    assert len(started) == 2
    answer(engine, demo)
    assert started <= tasks()
    engine.close()
    assert not started & tasks()
    before = tasks()
    one = engine_of(demo, 1)
    assert not tasks() - before
    one.close()


@linux
def test_more_threads_than_at_first_are_added_and_fewer_wait(demo: LoadedModel) -> None:
    before = tasks()
    engine = engine_of(demo, 2)
    started = tasks() - before
    expected = answer(engine, demo)
    for threads, added in ((1, 0), (3, 2)):
        before = tasks()
        engine._stepper.runner._context.set_threads(threads, threads)
        assert len(tasks() - before) == added
        started |= tasks() - before
        assert answer(engine, demo) == expected
        assert started <= tasks()
    engine.close()
    assert not started & tasks()


@linux
def test_without_memory_for_them_there_is_an_error_and_no_context(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OutOfMemory("full; close other programs")

    before = tasks()
    with monkeypatch.context() as patch:
        patch.setattr(memory_guard, "require_threads", full)
        with pytest.raises(OutOfMemory, match="full"):
            engine_of(demo, 2)
    assert not tasks() - before
    engine_of(demo, 2).close()


def test_the_answer_is_that_of_threads_that_are_started_anew(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pooled = engine_of(demo, 2)
    assert pooled._stepper.runner._context.keeps_threads
    found = answer(pooled, demo)
    pooled.close()
    monkeypatch.setattr(contexts, "can_keep_threads", lambda _: False)
    anew = engine_of(demo, 2)
    assert not anew._stepper.runner._context.keeps_threads
    assert answer(anew, demo) == found
    anew.close()


class Other(ctypes.Structure):
    """Not laid out as the library's."""

    _fields_ = (
        *(("n_threads", ctypes.c_int), ("prio", ctypes.c_int), ("poll", ctypes.c_uint32)),
        *(("strict_cpu", ctypes.c_bool), ("paused", ctypes.c_bool), ("rest", ctypes.c_char * 600)),
    )


def test_a_build_whose_functions_are_others_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threadpool, "system_info", lambda: "CPU : OPENMP = 1 | ")
        assert not can_keep_threads(2)
    monkeypatch.setattr(library, "ThreadPoolParams", Other)
    library.thread_functions.cache_clear()
    assert not can_keep_threads(2)
    library.thread_functions.cache_clear()
    monkeypatch.undo()
    assert can_keep_threads(2)


@linux
def test_a_forked_child_leaves_the_parents_threads_alone(demo: LoadedModel) -> None:
    engine = engine_of(demo, 2)
    expected = answer(engine, demo)
    child = os.fork()
    if child == 0:
        try:
            engine.close()
            os._exit(len(tasks()) - 1)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert answer(engine, demo) == expected
    engine.close()
