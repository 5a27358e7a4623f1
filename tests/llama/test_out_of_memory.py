"""Too little memory raises an error and never ends the process."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo.engine import config
from edgesppo.gguf import gemma2
from edgesppo.planning.run_config import ContextParams
from edgesppo.system import hardware, memory_guard
from edgesppo.system.signals import run_interruptibly

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")

# Each try runs in a child process that may take only so many more bytes of address space.
TRIES = """
import os, resource, sys, time, edgesppo
from edgesppo import SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.llama.model import Model

def used():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

def limit(megabytes):
    before = -1
    while before != used():  # threads that were just started take their share
        before = used()
        time.sleep(0.02)
    resource.setrlimit(resource.RLIMIT_AS, (used() + int(megabytes * 1e6),) * 2)

def attempt(stage, megabytes):
    try:
        if stage == "load": limit(megabytes)
        model = Model(sys.argv[1])
        if stage == "context": limit(megabytes)
        engine = Engine(model, n_threads=2)
        if stage == "step": limit(megabytes)
        request = engine.prepare([2] + model.tokenize("hello " * 150), SamplingParams(max_tokens=3))
        return f"answered {sum(1 for _ in engine.stream(engine.add(request))) > 0}"
    except edgesppo.OutOfMemory as error:
        return f"OutOfMemory {error}"

for stage in ("load", "context", "step"):
    for megabytes in (0.01, 0.1, 2, 4, 8, 14, 20, 26, 34, 42, 50, 60, 80, 100, 160, 1000):
        print(stage, megabytes, end=" ", flush=True)
        if os.fork() == 0:
            try:
                print(attempt(stage, megabytes), flush=True)
            finally:
                os._exit(0)
        _, status = os.wait()
        if status:
            print("DIED", status, flush=True)
"""


def test_a_cache_on_a_gpu_needs_none_of_the_computers_memory(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(memory_guard, "require", lambda _, memory, **_rest: asked.append(memory))
    monkeypatch.setattr("sys.platform", "linux")
    summary, params = gemma2.load_summary(demo_gguf), ContextParams(n_ctx=512)
    for layers in (0, 1, 2, -1):
        config.require_memory(summary, params, layers)
    assert asked[0] == asked[1] > asked[2] > asked[3], "the first layer is the output"


@linux
def test_no_limit_of_memory_ends_the_process(demo_gguf: Path) -> None:
    """Neither while loading, nor while creating the context, nor in the first steps."""
    command = [sys.executable, "-c", TRIES, str(demo_gguf)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    found = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert len(found) == 48, done.stdout + done.stderr
    for stage, megabytes, outcome in found:
        assert re.match("OutOfMemory |answered True", outcome), (stage, megabytes, outcome, done)
        assert outcome.startswith("answered") or ";" in outcome or "cannot be read" in outcome
    ends = {stage: outcome.split()[0] for stage, _, outcome in found}
    assert set(ends.values()) == {"answered"}, "with enough memory it works"
    first = {stage: outcome for stage, _, outcome in reversed(found)}
    assert all(outcome.startswith("OutOfMemory") for outcome in first.values()), first


@linux
def test_the_command_line_says_it_in_one_line(demo_gguf: Path) -> None:
    program = (
        "import resource, sys; import edgesppo.cli, edgesppo.api\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 40_000_000,) * 2)\n"
        "sys.argv[0] = 'edgesppo'\n"
        "edgesppo.cli.main()\n"
    )
    for options in ([], ["--force"]):
        command = [sys.executable, "-c", program, "run", str(demo_gguf), "Hi", *options]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 1, done
        assert re.fullmatch(r"edgesppo: .* MB.*; .*\n", done.stderr), done.stderr


def test_what_the_system_does_not_give_is_refused_and_what_it_gives_is_given_back() -> None:
    for _ in range(1000):
        memory_guard.require("it", memory=1 << 30, mapped=1 << 30, advice="none")
    with pytest.raises(edgesppo.OutOfMemory, match=r"\Aa cache takes up to .* MB.*; use less\Z"):
        memory_guard.require("a cache", memory=1 << 60, advice="use less")


@linux
def test_a_limit_on_the_address_space_counts_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1 << 31, 1 << 31))
    free = hardware.available_memory()
    assert free is not None
    assert 0 <= free < 1 << 31
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1000, 1000))
    assert hardware.available_memory() == 0


def test_no_more_threads_is_an_error_and_the_engine_works_on(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = demo.ask("Who are you?", temperature=0)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(edgesppo.OutOfMemory, match="no more threads"):
            run_interruptibly(lambda: None, lambda: None)
        with pytest.raises(edgesppo.OutOfMemory, match="no more threads"):
            demo.ask("What is the capital of Italy? I have to know it.", temperature=0)
    assert demo.ask("Who are you?", temperature=0) == before


@pytest.mark.parametrize("stage", ["loading", "a context"])
def test_a_refusal_leaves_nothing_behind(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from tests.support.resources import native_handles, open_files

    ask = memory_guard.require

    def refuse(what: str, **needs: Any) -> None:
        if stage in what:
            raise edgesppo.OutOfMemory("none is left; none")
        ask(what, **needs)

    held = native_handles(), open_files()
    monkeypatch.setattr(memory_guard, "require", refuse)
    with pytest.raises(edgesppo.OutOfMemory, match="none is left"):
        edgesppo.load(demo_gguf)
    assert (native_handles(), open_files()) == held
