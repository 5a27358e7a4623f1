"""Measure `eval` and `calibrate` beside llama-perplexity and llama-imatrix: figures, time, memory.

    python -m tests.benchmarks.quality REFERENCE.gguf MODEL.gguf TEXT [--chunks N] [--threads N]
        [--peers FOLDER] [--work FOLDER]

The peers are built once into FOLDER, from the source distribution of the pinned llama-cpp-python:
the same llama.cpp that runs here, compiled as pip would compile it. The text must be one whose
tokens both tokenizers find alike, which plain text is. Prints every figure of both, their
difference, and fails if one that should agree does not. Linux only; run nothing else beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesppo.evaluate.importance import read_sums
from edgesppo.llama.library import LIBRARY_VERSION

TOOLS = ("llama-perplexity", "llama-imatrix", "llama-quantize")
CHUNK = 512
AGREE = 0.005  # of divergence figures, relative
AGREE_SUMS = 1e-3  # of an importance matrix, relative
# What llama-perplexity prints -> our figure. Its own reference perplexity and median are those of
# logits that were stored in 16 bits, and cut off 16 below the largest, so they are only shown.
FIGURES = {
    "Mean PPL(Q)": ("perplexity", 1.0, True),
    "Mean PPL(base)": ("reference_perplexity", 1.0, False),
    "Mean    KLD": ("kld", 1.0, True),
    "Maximum KLD": ("kld_max", 1.0, True),
    "99.9%   KLD": ("kld_p999", 1.0, True),
    "99.0%   KLD": ("kld_p99", 1.0, True),
    "90.0%   KLD": ("kld_p90", 1.0, True),
    "Median  KLD": ("kld_median", 1.0, False),
    "RMS Δp    ": ("rms_dp", 0.01, True),
    "Same top p": ("same_top", 0.01, True),
}
_NUMBER = r"\s*:\s*(-?[\d.]+)"


@dataclass(frozen=True)
class Run:
    """What a command printed, its seconds, and its peak of resident memory in bytes."""

    output: str
    seconds: float
    peak: int


def run(*command: str | Path) -> Run:
    """Run a command to its end. Raises SystemExit with its output if it fails."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        with subprocess.Popen(list(map(str, command)), stdout=out, stderr=errors) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        text = ""
        for file in (out, errors):
            file.seek(0)
            text += file.read().decode("utf-8", "replace")
    if process.returncode:
        raise SystemExit(f"{command[0]} failed:\n{text[-2000:]}")
    return Run(text, time.perf_counter() - started, usage.ru_maxrss << 10)


def build_peers(folder: Path) -> Path:
    """The folder of llama.cpp's own tools, which are compiled if they are not there."""
    programs = folder / "build" / "bin"
    if all((programs / tool).exists() for tool in TOOLS):
        return programs
    folder.mkdir(parents=True, exist_ok=True)
    pinned = f"llama-cpp-python=={LIBRARY_VERSION}"
    wanted = ("--no-deps", "--no-binary", ":all:", "-d", folder, pinned)
    run(sys.executable, "-m", "pip", "download", *wanted)
    (archive,) = folder.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    source = folder / archive.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"
    off = ("LLAMA_CURL", "LLAMA_OPENSSL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_SERVER", "GGML_OPENMP")
    settings = ["-DCMAKE_BUILD_TYPE=Release", *(f"-D{name}=OFF" for name in off)]
    run("cmake", "-S", source, "-B", folder / "build", *settings)
    run("cmake", "--build", folder / "build", "-j", "--target", *TOOLS)
    return programs


def edgesppo(*words: str | Path) -> Run:
    return run(sys.executable, "-m", "edgesppo", *words)


def compare_divergence(peers: Path, work: Path, options: argparse.Namespace) -> bool:
    """Both tools' figures, time, memory and disk; whether those that should agree do."""
    tool, logits = peers / "llama-perplexity", work / "logits.kld"
    common = ("-f", options.text, "-c", CHUNK, "-b", CHUNK, "--chunks", options.chunks)
    common = (*common, "-t", options.threads, "--kl-divergence-base", logits)
    first = run(tool, "-m", options.reference, *common)
    second = run(tool, "-m", options.model, *common, "--kl-divergence")
    words = ("--text", options.text, "--chunks", options.chunks, "--threads", options.threads)
    ours = edgesppo("eval", "divergence", options.reference, options.model, *words, "--json")
    found = json.loads(ours.output[ours.output.index("{") :].splitlines()[0])
    agree = True
    print(f"{'figure':24}{'llama-perplexity':>18}{'edgesppo':>14}{'difference':>12}")
    for label, (name, scale, counts) in FIGURES.items():
        match = re.search(re.escape(label.strip()) + _NUMBER, second.output)
        if match is None:
            raise SystemExit(f"llama-perplexity printed no {label.strip()!r}")
        theirs, mine = float(match[1]) * scale, float(found[name])
        difference = abs(mine - theirs) / max(abs(theirs), 1e-12)
        agree &= difference <= AGREE or not counts
        note = "" if counts else "  (shown only)"
        print(f"{name:24}{theirs:18.6f}{mine:14.6f}{difference:12.4%}{note}")
    peak = max(first.peak, second.peak)
    print(f"time    {first.seconds + second.seconds:.1f} s and {ours.seconds:.1f} s")
    print(f"memory  {peak / 1e6:,.0f} MB and {ours.peak / 1e6:,.0f} MB")
    print(f"disk    {logits.stat().st_size / 1e6:,.0f} MB and none")
    return agree


def compare_calibration(peers: Path, work: Path, options: argparse.Namespace) -> bool:
    """Both tools' importance matrices and time; whether the matrices agree."""
    theirs, mine = work / "theirs.gguf", work / "ours.gguf"
    given = ("-f", options.text, "-c", CHUNK, "-b", CHUNK, "--chunks", options.chunks, "--no-ppl")
    peer = run(
        *(peers / "llama-imatrix", "-m", options.reference, "-o", theirs, *given),
        *("-t", options.threads),
    )
    words = ("--text", options.text, "--chunks", options.chunks, "--threads", options.threads)
    ours = edgesppo("calibrate", options.reference, "-o", mine, "--force", *words)
    one, other = read_sums(theirs).entries, read_sums(mine).entries
    if one.keys() != other.keys():
        raise SystemExit(f"the matrices have other weights: {one.keys() ^ other.keys()}")
    worst = max(
        float((np.abs(entry.sums - other[name].sums) / np.maximum(entry.sums, 1e-12)).max())
        for name, entry in one.items()
    )
    counts = all(entry.count == other[name].count for name, entry in one.items())
    print(f"importance matrix: {len(one)} weights, the largest difference {worst:.2e} relative")
    print(f"time    {peer.seconds:.1f} s and {ours.seconds:.1f} s")
    print(f"memory  {peer.peak / 1e6:,.0f} MB and {ours.peak / 1e6:,.0f} MB")
    quantised = work / "quantised.gguf"
    wanted = (options.reference, quantised, "Q4_K_M", options.threads)
    run(peers / "llama-quantize", "--imatrix", mine, *wanted)
    print("llama-quantize --imatrix takes ours")
    return counts and worst <= AGREE_SUMS


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("reference", "model", "text"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", type=Path, default=Path(tempfile.gettempdir()) / "peers")
    parser.add_argument("--work", type=Path, help="where files are written [a temporary folder]")
    options = parser.parse_args()
    peers = build_peers(options.peers)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        results = [
            compare(peers, Path(folder), options)
            for compare in (compare_divergence, compare_calibration)
        ]
    if not all(results):
        raise SystemExit("the figures do not agree")
    print("the figures agree")


if __name__ == "__main__":
    main()
