"""How near to what this machine can do at all: decode, prefill, load and conversion.

    python -m tests.benchmarks.limits FILE.gguf CHECKPOINT

decode      bytes of weights that a token needs, by its time, against the rate at which all threads
            together read memory (numpy's sum and libc's memchr, the faster one)
prefill     multiply-adds of a prompt against those of numpy's product of float32 matrices;
            llama.cpp multiplies 8-bit integers, of which a processor may issue up to four times as
            many, so that more than 1 is possible
load        seconds to be ready, against reading the file once, both from the disk
conversion  seconds, against reading the checkpoint and writing the file at the disk's own speed
Linux only.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.gguf import gemma2
from edgesppo.tuning.bandwidth import bandwidth, seconds_together
from tests.benchmarks import contestants, files
from tests.benchmarks.processes import run
from tests.benchmarks.record import Measure, Report, argument_parser, compare, in_turn

if TYPE_CHECKING:
    import argparse

    from edgesppo.gguf.gemma2 import Summary

PROMPT, ANSWER = 512, 32
GOAL = 0.8
_READ = 512 << 20  # bytes of memory that all threads read together
_BLOCK = 1 << 24
# Why a share is below the goal, where it was measured to be.
WHY = {
    "decode": "the processor is the limit: unpacking weights of 4 and 6 bits takes these cores "
    "longer than memory takes to deliver them",
    "prefill": "weights are unpacked for every 512 tokens, and attention, norms and activations "
    "are no matrix products of weights",
    "load": "weights that are repacked are copied once more, and the vocabulary is built",
    "conversion": "the processor is the limit: the search for the best scales of each block",
}
_GEMM = """
import time
import numpy as np
n = 2048
a, b = (np.ones((n, n), np.float32) for _ in range(2))
a @ b
times = []
for _ in range(5):
    started = time.perf_counter()
    a @ b
    times.append(time.perf_counter() - started)
print(n ** 3 / min(times))
"""


def main() -> None:
    """Measure ours and the machine in turn."""
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("checkpoint", type=Path)
    options = parser.parse_args()
    report = Report(options)
    files.tuned(options.file)
    running(report, options)
    measures: dict[str, Measure] = {
        "load": partial(load, options.file, options.threads),
        "conversion": partial(conversion, options),
    }
    found = in_turn(measures, options.rounds)
    for what, figures in found.items():
        limit = "reading the file" if what == "load" else "reading it, and writing the file"
        _tell(report, what, "s", figures["ours"], f"limit: {limit}", figures["best"])


def running(report: Report, options: argparse.Namespace) -> None:
    """Decode and prefill."""
    summary = gemma2.load_summary(options.file)
    work = (options.file, options.threads, PROMPT, ANSWER)
    measures: dict[str, Measure] = {
        "ours": partial(contestants.ours, *work),
        "machine": lambda: {"read": read_rate(options.threads), "gemm": gemm(options.threads)},
    }
    found = in_turn(measures, options.rounds)
    ours, machine = found["ours"], found["machine"]
    n_bytes = summary.data_bytes  # the embedding is the output matrix, too: all of them are read
    mine = [rate * n_bytes / 1e9 for rate in ours["decode"]]
    best = [rate / 1e9 for rate in machine["read"]]
    _tell(report, "decode", "GB/s", mine, "limit: reading memory", best)
    products = multiply_adds(summary)
    mine = [rate * products / 1e9 for rate in ours["prefill"]]
    best = [rate / 1e9 for rate in machine["gemm"]]
    _tell(report, "prefill", "G multiply-adds/s", mine, "limit: float32 matrix product", best)


def _tell(
    report: Report, what: str, unit: str, ours: list[float], limit: str, best: list[float]
) -> None:
    """Ours beside the machine's: rates, or seconds, of which less is better."""
    is_rate = unit != "s"
    goal = GOAL if is_rate else 1 / GOAL
    record = compare(what, unit, ours, limit, best, more_is_better=is_rate, goal=goal, rival=False)
    report.add(record if record.meets_goal else replace(record, note=WHY[what]))


def multiply_adds(summary: Summary) -> int:
    """Multiply-adds of one token of a prompt: one for each weight of the layers' matrices."""
    return sum(
        entry.dims[0] * entry.dims[1]
        for entry in summary.tensors
        if len(entry.dims) == 2 and entry.name.startswith("blk.")
    )


def read_rate(threads: int) -> float:
    """Bytes per second that all threads together read from memory."""
    return max(bandwidth(threads, _READ), _memchr_rate(threads))


def _memchr_rate(threads: int) -> float:
    """The same by libc's search for a byte that is not there."""
    size = _READ // threads
    buffers = [ctypes.create_string_buffer(b"\0" * size, size) for _ in range(threads)]
    search = ctypes.CDLL(None).memchr
    search.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    return size * threads / seconds_together([partial(search, one, 1, size) for one in buffers])


def gemm(threads: int) -> float:
    """Multiply-adds per second of numpy's float32 matrix product, in a process of its own."""
    # Left to itself OpenBLAS takes the kernel of this processor.
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    environment = {**kept, "OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", _GEMM]
    done = subprocess.run(command, check=True, capture_output=True, env=environment)
    return float(done.stdout)


def load(file: Path, threads: int) -> dict[str, float]:
    """Seconds to load a file that is not in the page cache, and to read it once."""
    best = _read_seconds(file)
    _forget(file)
    return {"ours": contestants.ours(file, threads, 32, 2)["load"], "best": best}


def conversion(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a conversion, and of reading and writing as many bytes."""
    shards = sorted(options.checkpoint.glob("*.safetensors"))
    output = files.folder() / "limit.gguf"
    read_s = sum(map(_read_seconds, shards))
    for shard in shards:
        _forget(shard)
    words = ("convert", options.checkpoint, "-o", output, "--threads", options.threads)
    seconds = run([sys.executable, "-m", "edgesppo", *words]).seconds
    n_bytes = output.stat().st_size
    output.unlink()
    return {"ours": seconds, "best": read_s + _write_seconds(output, n_bytes)}


def _forget(file: Path) -> None:
    """Drop a file from the page cache."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_seconds(file: Path) -> float:
    """Seconds to read a file from the disk."""
    _forget(file)
    started = time.perf_counter()
    with file.open("rb", buffering=0) as opened:
        buffer = bytearray(_BLOCK)
        while opened.readinto(buffer):
            pass
    return time.perf_counter() - started


def _write_seconds(file: Path, n_bytes: int) -> float:
    """Seconds to write so many bytes, until they are on the disk."""
    block = os.urandom(_BLOCK)
    started = time.perf_counter()
    with file.open("wb", buffering=0) as opened:
        for begin in range(0, n_bytes, _BLOCK):
            opened.write(block[: n_bytes - begin])
        os.fsync(opened.fileno())
    seconds = time.perf_counter() - started
    file.unlink()
    return seconds


if __name__ == "__main__":
    main()
