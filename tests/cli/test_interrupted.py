"""Ctrl-C at any moment: the answer stops, the next one is right, and nothing is leaked.

30 times by default, 600 with EDGESPPO_LONG=1.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

TIMES = 200 if LONG else 10
PATIENCE_S = 60
# Python itself swallows an exception in what the garbage collector or an ended thread calls. A
# person presses Ctrl-C again; so does this test, and counts.
AGAIN_S = 10

# A loop like a chat on a terminal: it answers until it is interrupted, then shows that all is well.
CHATTING = """
import sys, threading, edgesppo
from edgesppo import api
from tests.support.resources import native_handles, open_files, resident

def say(text):
    print(text, flush=True)

def talk(model, kind):
    chat = model.chat(temperature=2.0, top_p=1.0, max_tokens=40)
    while True:
        seen = 0
        if kind == "regenerate" and chat.messages:
            stream = chat.regenerate()
        else:
            stream = chat.stream(LONG_QUESTION if kind == "prefill" else "Who are you?")
        try:
            for chunk in stream:
                seen += 1
        except KeyboardInterrupt:
            assert len(chat.messages) % 2 == 0
            assert not seen or chat.answered
            raise
        if kind == "prefill":
            chat.clear()

LONG_QUESTION = "Please remember this: " + "my name is Bob and I like tea. " * 40
QUESTION = "What is the capital of France?"
api.is_small = lambda _: False  # as large models do, it guesses
with edgesppo.load(sys.argv[1], n_threads=1) as model:
    right = model.ask(QUESTION, temperature=0)
    engine = model._interior.engine
    held = None
    for line in sys.stdin:
        interrupted = False
        try:
            say("go")
            talk(model, line.strip())
        except KeyboardInterrupt:
            interrupted = True
            say("stopped")  # at once: another Ctrl-C would hit what follows
        engine.step()
        assert interrupted
        assert model.ask(QUESTION, temperature=0) == right
        assert engine._schedule.requests() == []
        assert not any(slot.busy for slot in engine._cache._slots)
        held = held or (native_handles(), open_files())
        assert (native_handles(), open_files()) == held
        say("well")
    say(f"{resident()} {threading.active_count()}")
"""


class Chatting:
    """A child process: reads its output by lines, and sends it Ctrl-C."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", CHATTING, str(path)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1
        )
        self.lost = 0

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hears(self, wait_s: float) -> str | None:
        """Its next line; None after a timeout, its error output if it died."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], wait_s)
        return self.process.stdout.readline().strip() if ready else None

    def interrupt(self) -> str | None:
        """Send Ctrl-C, repeatedly until the child responds."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.process.send_signal(signal.SIGINT)
            line = self.hears(AGAIN_S)
            if line is not None:
                return line
            self.lost += 1
        return None

    def end(self) -> tuple[str, str]:
        try:
            return self.process.communicate(timeout=PATIENCE_S)
        finally:
            self.process.kill()


@pytest.mark.parametrize("kind", ["answer", "prefill", "regenerate"])
def test_ctrl_c_at_random_moments(demo_gguf: Path, kind: str) -> None:
    rng = random.Random(kind)
    child = Chatting(demo_gguf)
    for n in range(TIMES):
        child.say(kind)
        begun = child.hears(PATIENCE_S)
        assert begun == "go", (n, begun, child.end())
        time.sleep(rng.random() * 0.08)
        heard = child.interrupt()
        assert heard == "stopped", (n, heard, child.end())
        found = child.hears(PATIENCE_S)
        assert found == "well", (n, found, child.end())
    out, complaints = child.end()
    memory, threads = (int(figure) for figure in out.split())
    ignored = complaints.count("Exception ignored")
    print(
        f"{kind}: {TIMES} interrupts, {child.lost} of them lost, {memory / 1e6:.1f} MB at the end"
    )
    assert threads == 1
    assert child.process.returncode == 0
    assert child.lost <= ignored + 1, complaints
    assert child.lost <= max(1, TIMES // 50)
