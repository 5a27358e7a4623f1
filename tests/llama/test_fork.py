"""Forked children: a parent's model gives one clear error, a model of their own works."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.llama.library import system_info
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

OPENMP = "OPENMP = 1" in system_info()
QUESTION = "What is the capital of France?"
HEAD = f"""
import multiprocessing, os, sys, threading
import edgesppo
path, question = sys.argv[1], {QUESTION!r}

def ask_own(path):
    try:
        with edgesppo.load(path) as own:
            return own.ask(question, temperature=0)
    except edgesppo.EdgesppoError as error:
        return f"{{type(error).__name__}}: {{error}}"

def in_child(work):
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            text = work()
        except edgesppo.EdgesppoError as error:
            text = f"{{type(error).__name__}}: {{error}}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        print(said.read())
    assert os.wait()[1] == 0
"""


def run(program: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + program, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def is_told(line: str) -> bool:
    return line.startswith("Closed: the model was loaded in process") and "fork" in line


def works(line: str) -> bool:
    """The child's own model answered; with OpenMP it is refused, by name, instead of hanging."""
    return "OpenMP" in line if OPENMP else line == "The capital of France is Paris."


def test_a_childs_use_of_its_parents_model_is_one_clear_error(demo_gguf: Path) -> None:
    lines = run(
        """
model = edgesppo.load(path)
chat = model.chat(temperature=0)
print(chat.ask(question))
stream = chat.stream(question)
next(stream)
in_child(lambda: model.ask(question))
in_child(lambda: chat.ask(question))
in_child(lambda: str(model.tokenize(question)))
in_child(lambda: "".join(chunk.text for chunk in stream))
in_child(lambda: str(model.close()))
stream.close()
print(chat.ask(question))
""",
        str(demo_gguf),
    )
    first, *children, closed, last = lines
    assert first == last == "The capital of France is Paris."
    assert all(map(is_told, children)), children
    assert len(children) == 4
    assert closed == "None"


def test_a_stream_that_another_thread_reads_is_one_clear_error_in_a_child(demo_gguf: Path) -> None:
    said = run(
        """
with edgesppo.load(path) as model:
    chat = model.chat(temperature=0, max_tokens=2000, logit_bias={107: -100, 1: -100})
    chunks = chat.stream(question)
    reader = threading.Thread(target=lambda: [None for _ in chunks])
    reader.start()
    while not chat.busy:
        pass
    def work():
        chunks.close()
        return next(chunks)
    for _ in range(3):
        in_child(work)
        in_child(lambda: chat.ask("x"))
    chat.cancel()
    reader.join()
""",
        str(demo_gguf),
    )
    assert len(said) == 6
    assert all(is_told(line) for line in said), said


def test_a_child_may_load_its_own_also_while_the_parents_threads_answer(demo_gguf: Path) -> None:
    lines = run(
        """
model = edgesppo.load(path)
stop = threading.Event()
def answer():
    while not stop.is_set():
        model.ask(question, max_tokens=5)
threads = [threading.Thread(target=answer) for _ in range(2)]
for thread in threads: thread.start()
for _ in range(3):
    in_child(lambda: ask_own(path))
    in_child(lambda: model.ask(question))
stop.set()
for thread in threads: thread.join()
print(model.ask(question, temperature=0))
""",
        str(demo_gguf),
    )
    assert all(map(works, lines[0:6:2])), lines
    assert all(map(is_told, lines[1:6:2])), lines
    assert lines[-1] == "The capital of France is Paris."


def test_a_child_of_a_parent_that_only_imported_us_loads_and_answers(demo_gguf: Path) -> None:
    """As workers do that are forked after the program was loaded."""
    assert run("in_child(lambda: ask_own(path))", str(demo_gguf)) == [
        "The capital of France is Paris."
    ]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(demo_gguf: Path, tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        HEAD
        + f"""
if __name__ == "__main__":
    with edgesppo.load(path) as model:
        print(model.ask(question, temperature=0))
        with multiprocessing.get_context({method!r}).Pool(1) as pool:
            print(pool.apply(ask_own, [path]))
        print(model.ask(question, temperature=0))
"""
    )
    done = subprocess.run(
        [sys.executable, program, str(demo_gguf)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, child, last = done.stdout.splitlines()
    assert first == last == "The capital of France is Paris."
    assert works(child) if method == "fork" else child == first
