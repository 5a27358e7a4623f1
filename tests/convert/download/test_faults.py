"""Whatever ends a conversion from the hub, and whenever, the next run gives the same file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import OutputError
from tests.convert.download.conversion import (
    SECOND,
    SOURCE,
    TENSORS,
    beside,
    is_whole_checkpoint,
    kept,
    run,
)
from tests.support.faulty import Counting, Faulty, Short
from tests.support.paths import ROOT, names
from tests.support.sweeps import LONG, places

if TYPE_CHECKING:
    from pathlib import Path


def operations(out: Path, *, keep: bool = False) -> list[str]:
    counting = Counting()
    run(out, counting, keep=keep)
    clear(out)
    return counting.done


def clear(out: Path) -> None:
    for path in (*kept(out).glob("*"), *(path for path in out.parent.iterdir() if path.is_file())):
        path.unlink()
    with suppress(FileNotFoundError):
        kept(out).rmdir()


def state(out: Path) -> frozenset[tuple[str, bytes]]:
    """Everything on the disk that a later run can find."""
    found = (path for path in out.parent.rglob("*") if path.is_file())
    return frozenset((str(path.relative_to(out.parent)), path.read_bytes()) for path in found)


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize(
    ("errors", "keep"),
    [((errno.ENOSPC, errno.EIO, KeyboardInterrupt()), False), ((errno.EIO,), True)],
)
def test_after_a_fault_at_any_operation_the_next_run_gives_the_same_file(
    folder: Path, out: Path, whole: bytes, errors: tuple[int | BaseException, ...], keep: bool
) -> None:
    done = operations(out, keep=keep)
    resumed_states = set()  # each state of the disk needs only one run
    for error, number in product(errors, places(done)):
        with suppress(OutputError, KeyboardInterrupt):
            run(out, Faulty(number, error), keep=keep)
        if not out.exists():
            if (left := state(out)) in resumed_states:
                clear(out)
                continue
            resumed_states.add(left)
            run(out, Counting(), keep=keep)
            assert names(out) == {out.name, *([kept(out).name] if keep else [])}
            assert not keep or is_whole_checkpoint(kept(out), folder)
        assert out.read_bytes() == whole, f"operation {number}, {done[number - 1]}"
        clear(out)


def test_short_reads_and_writes_lose_nothing(folder: Path, out: Path, whole: bytes) -> None:
    data = (folder / SECOND).read_bytes()
    beside(out, data).write_bytes(data[:5000])
    run(out, Short(), keep=True)
    assert out.read_bytes() == whole
    assert is_whole_checkpoint(kept(out), folder)


KILLED = """
import os, pathlib, signal, sys, urllib.request
from edgesppo_convert import pipeline
from edgesppo_convert.output import output
from tests.support.faulty import Counting, convert_on
from tests.support.fake_hub import Direct

source, out = sys.argv[1:3]
output.RECORD_EVERY = 1
hub = Direct(pathlib.Path(sys.argv.pop(3)))
urllib.request.build_opener = lambda *_: hub
options = {"n_threads": 1, "kernels": "ggml"}
pipeline.convert(source, out, **options)  # loads what every victim needs
os.unlink(out)
victims = {}
numbers = list(map(int, sys.argv[3:]))
while numbers or victims:
    while numbers and len(victims) < 3:  # each waits now and then
        number = numbers.pop()
        victim = os.fork()
        if victim == 0:
            def kill(at, name):
                if at == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            convert_on(Counting(kill), source, out + str(number), **options)
            os._exit(7)
        victims[victim] = number
    victim, end = os.wait()
    if end != signal.SIGKILL:
        sys.exit(f"operation {victims[victim]} was not reached")
    del victims[victim]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each victim is a fork of one process")
@pytest.mark.usefixtures("direct")
def test_killed_at_any_operation_the_next_run_gives_the_same_file(
    folder: Path, out: Path, whole: bytes
) -> None:
    done = operations(out)
    numbers = places(done)
    words = [sys.executable, "-c", KILLED, SOURCE, str(out), str(folder), *map(str, numbers)]
    subprocess.run(words, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    resumed = []
    for number in numbers:
        victim = out.with_name(out.name + str(number))
        if not victim.exists():
            resumed.append(run(victim, Counting()))
        else:
            with pytest.raises(OutputError, match="exists already; use --force"):
                run(victim, Counting())
        assert victim.read_bytes() == whole, f"operation {number}, {done[number - 1]}"
    assert resumed == sorted(resumed)
    every = {*range(TENSORS + 1)}
    assert (every if LONG else {0, TENSORS}) <= {*resumed} <= every
    assert names(out) == {out.name + str(number) for number in numbers}
