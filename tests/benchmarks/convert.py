"""Race the converter against llama.cpp's two steps on one checkpoint.

    python -m tests.benchmarks.convert [--shape 2b | --checkpoint FOLDER]

Theirs is `convert_hf_to_gguf.py` to bf16 (which needs torch and transformers), then
`llama-quantize` to Q4_K_M. Both get the same number of threads, the same disk, and a checkpoint in
the page cache. Only edgesppo waits until its file is synced to disk. Linux only.
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks import files, peers
from tests.benchmarks.processes import Run, run, warm
from tests.benchmarks.record import Measure, Report, argument_parser, in_turn
from tests.support.checkpoints import SHAPES

if TYPE_CHECKING:
    import argparse

PEER = "llama.cpp's two steps"
# What is wanted of ours as shares of theirs, and of the memory in MB.
FAST_TIME, GGML_TIME, WRITTEN, MEMORY_MB = 0.25, 0.75, 0.26, 700


def theirs(options: argparse.Namespace, checkpoint: Path, work: Path) -> dict[str, float]:
    """Both of llama.cpp's steps."""
    script = peers.sources() / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"
    plain, output = work / "bf16.gguf", work / "theirs.gguf"
    quantize = peers.pip_build().tool("llama-quantize")
    warm(checkpoint)
    os.sync()
    python = peers.hugging_face_python()
    first = run([python, script, checkpoint, "--outtype", "bf16", "--outfile", plain])
    os.sync()
    second = run([quantize, plain, output, "Q4_K_M", options.threads])
    for path in (plain, output):
        path.unlink()
    return _figures(first, second)


def ours(
    options: argparse.Namespace, checkpoint: Path, work: Path, kernels: str
) -> dict[str, float]:
    """One conversion; the fast kernels are compiled already, as after the first conversion."""
    output = work / "ours.gguf"
    words = ("convert", checkpoint, "-o", output, "--threads", options.threads)
    warm(checkpoint)
    os.sync()
    done = run([sys.executable, "-m", "edgesppo", *words, "--kernels", kernels])
    output.unlink()
    return _figures(done)


def _figures(*steps: Run) -> dict[str, float]:
    return {
        "seconds": sum(step.seconds for step in steps),
        "cpu": sum(step.cpu for step in steps),
        "written": sum(step.written for step in steps) / 1e6,
        "memory": max(step.anonymous for step in steps) / 1e6,
    }


def main() -> None:
    """Measure them in turn."""
    parser = argument_parser(__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="2b")
    parser.add_argument("--checkpoint", type=Path, help="this one instead of random weights")
    parser.add_argument("--work", type=Path, help="where files are written [a temporary folder]")
    parser.add_argument("--slow-kernels", action="store_true", help="measure ggml's own, too")
    options = parser.parse_args()
    report = Report(options)
    checkpoint = options.checkpoint or files.checkpoint(options.shape)
    with tempfile.TemporaryDirectory(dir=options.work or files.folder()) as folder:
        work = Path(folder)
        kernels = ["fast", "ggml"] if options.slow_kernels else ["fast"]
        ours(options, checkpoint, work, "fast")  # compiles them
        measures: dict[str, Measure] = {
            kind: partial(ours, options, checkpoint, work, kind) for kind in kernels
        }
        measures[PEER] = partial(theirs, options, checkpoint, work)
        found = in_turn(measures, options.rounds)
    peer = found.pop(PEER)
    for kind, mine in found.items():
        of = "" if kind == "fast" else ", ggml's own kernels"
        goal = FAST_TIME if kind == "fast" else GGML_TIME
        report.compare(f"conversion{of}", "s", mine["seconds"], PEER, peer["seconds"], goal=goal)
        report.compare(f"conversion, CPU{of}", "s", mine["cpu"], PEER, peer["cpu"])
    mine = found["fast"]
    written, memory = (
        (mine["written"], PEER, peer["written"]),
        (mine["memory"], PEER, peer["memory"]),
    )
    report.compare("conversion, bytes written", "MB", *written, goal=WRITTEN)
    report.compare("conversion, memory", "MB", *memory, note=f"wanted at most {MEMORY_MB} MB")


if __name__ == "__main__":
    main()
