"""Mutated inputs for the readers of files, tried in forked workers that name each file first.

A worker has limits of memory and of time for each file. When it dies, the file that it named is
the one that killed it, and is kept.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import struct
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import EdgesppoError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MEMORY = 1 << 30  # bytes of address space that a reader may take for one file
SECONDS = 10  # of processor time for one file
_PER_WORKER = 500  # inputs; a new worker starts without what the last one kept
_NUMBERS = [0, 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
_WORDS = [
    *(b"1e999", b"-1", b"NaN", b"Infinity", b"9" * 400, b"null", b"true", b"{}", b"[]", b'""'),
    *(b"[" * 3000, b'{"a":' * 3000, b"\n" * 300, b"\0", b"\xff\xfe", b"\xc0\x80", b"\\ud800"),
    *(b"\\u0000", b"a." * 2000, b"'" * 3, b'"' * 3, b"1.5", b"\xe2\x80\xae", b" " * 5000),
]


@dataclass(frozen=True)
class Reader:
    """What reads a file, and sound files to begin with; it may raise nothing but our errors."""

    read: Callable[[Path], object]
    seeds: Sequence[bytes]


def mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A sound file with one to six mutations."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 6)):
        _mutate(data, rng)
    return bytes(data)


def _mutate(data: bytearray, rng: random.Random) -> None:
    at, other = (rng.randrange(len(data) + 1) for _ in range(2))
    length = rng.choice([1, 2, 4, 8, 16, 64, 1000])
    kind = rng.randrange(8)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at : at + 8] = struct.pack("<Q", rng.choice(_NUMBERS))
    elif kind == 2:
        data[at : at + length] = data[other : other + length]
    elif kind == 3:
        data[at:at] = rng.randbytes(rng.randint(1, 12))
    elif kind == 4:
        del data[at : at + length]
    elif kind == 5:
        data[at : at + rng.choice([0, 1, length])] = rng.choice(_WORDS)
    elif kind == 6 and rng.random() < 0.3:
        del data[at:]
    elif kind == 7:
        data[at:at] = bytes(data[other : other + length]) * rng.choice([2, 3, 100])


def faults(reader: Reader, n: int, folder: Path, seed: int = 0) -> list[str]:
    """What a reader did wrong with `n` mutated files, one line each; the files are kept."""
    found: list[str] = []
    start = 0
    while start < n:
        end = min(n, start + _PER_WORKER)
        report = folder / "trying"
        report.write_text(str(start))
        child = os.fork()
        if not child:
            code = 1
            try:
                _work(reader, range(start, end), folder, seed, report)
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        lines = report.read_text().split("\n")
        found += lines[1:]
        if status:
            path = folder / lines[0]
            found.append(f"{path}: the worker ended with {os.waitstatus_to_exitcode(status)}")
            start = int(lines[0]) + 1
        else:
            start = end
    return found


def _work(reader: Reader, numbers: range, folder: Path, seed: int, report: Path) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    lines: list[str] = []
    for n in numbers:
        path = folder / str(n)
        path.write_bytes(mutated(random.Random(f"{seed} {n}"), reader.seeds))
        report.write_text("\n".join([path.name, *lines]))
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            reader.read(path)
        except EdgesppoError as error:
            if len(str(error)) > 5000:
                lines.append(f"{path}: a message of {len(str(error))} characters")
                continue
        except BaseException:
            lines.append(f"{path}: {' | '.join(traceback.format_exc().split(chr(10))[-4:-1])}")
            continue
        path.unlink()
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    report.write_text("\n".join([str(numbers.stop), *lines]))
