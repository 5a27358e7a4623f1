"""Measure `eval` and `calibrate` beside llama-perplexity and llama-imatrix: figures, time, memory.

    python -m tests.benchmarks.quality REFERENCE.gguf MODEL.gguf TEXT [--chunks N]

The peers are the same llama.cpp that runs here, compiled as pip compiles it. The text must be one
whose tokens both tokenizers find alike, which plain text is. Prints every figure of both and their
difference in the first round, and fails if one that should agree does not. Linux only.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgesppo.evaluate.importance import read_sums
from tests.benchmarks import peers
from tests.benchmarks.processes import Run, run
from tests.benchmarks.record import Measure, Report, argument_parser, in_turn

if TYPE_CHECKING:
    import argparse

CHUNK = 512
TIME, MEMORY = 0.8, 0.3  # what ours may take of theirs
AGREE = 0.005  # of divergence figures, relative; of a share, in itself
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


def edgesppo(*words: str | Path | int) -> Run:
    return run([sys.executable, "-m", "edgesppo", *words])


class Divergence:
    """Perplexity and divergence of a model against a reference."""

    name = "perplexity and divergence"

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self._options, self._logits = options, work / "logits.kld"
        self.ours, self.theirs = "", ""  # what the last run of each printed

    def run_theirs(self) -> dict[str, float]:
        """Theirs stores the reference's logits, and reads them again."""
        options, tool = self._options, peers.pip_build().tool("llama-perplexity")
        common = ["-f", options.text, "-c", CHUNK, "-b", CHUNK, "--chunks", options.chunks]
        common += ["-t", options.threads, "--kl-divergence-base", self._logits]
        first = run([tool, "-m", options.reference, *common])
        second = run([tool, "-m", options.model, *common, "--kl-divergence"])
        self.theirs = second.output
        return _figures(first, second, disk=self._logits.stat().st_size)

    def run_ours(self) -> dict[str, float]:
        """Ours computes both side by side, and stores nothing."""
        options = self._options
        words = ("--text", options.text, "--chunks", options.chunks, "--threads", options.threads)
        done = edgesppo("eval", "divergence", options.reference, options.model, *words, "--json")
        self.ours = done.output
        return _figures(done)

    def agrees(self) -> bool:
        """Print every figure of both; whether those that should agree do."""
        found = json.loads(self.ours[self.ours.index("{") :].splitlines()[0])
        agree = True
        print(f"  {'figure':24}{'llama-perplexity':>18}{'edgesppo':>14}{'difference':>12}")
        for label, (name, scale, counts) in FIGURES.items():
            match = re.search(re.escape(label.strip()) + _NUMBER, self.theirs)
            if match is None:
                raise SystemExit(f"llama-perplexity printed no {label.strip()!r}")
            theirs, mine = float(match[1]) * scale, float(found[name])
            printed = scale * 10.0 ** -len(match[1].partition(".")[2])  # its last digit
            whole = 1.0 if name == "same_top" else max(abs(theirs), 1e-12)
            difference = abs(mine - theirs) / whole
            agree &= difference <= AGREE or abs(mine - theirs) <= printed or not counts
            note = "" if counts else "  (shown only)"
            print(f"  {name:24}{theirs:18.6f}{mine:14.6f}{difference:12.4%}{note}")
        return agree


class Calibration:
    """Collecting an importance matrix."""

    name = "calibration"

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self._options = options
        self._theirs, self._ours = work / "theirs.gguf", work / "ours.gguf"
        self._quantised = work / "quantised.gguf"

    def run_theirs(self) -> dict[str, float]:
        """llama-imatrix."""
        options, tool = self._options, peers.pip_build().tool("llama-imatrix")
        given = ("-f", options.text, "-c", CHUNK, "-b", CHUNK, "--chunks", options.chunks)
        words = ("-m", options.reference, "-o", self._theirs, *given, "--no-ppl")
        return _figures(run([tool, *words, "-t", options.threads]))

    def run_ours(self) -> dict[str, float]:
        """`edgesppo calibrate`."""
        options = self._options
        words = ("--text", options.text, "--chunks", options.chunks, "--threads", options.threads)
        return _figures(
            edgesppo("calibrate", options.reference, "-o", self._ours, "--force", *words)
        )

    def agrees(self) -> bool:
        """Whether both matrices are the same, and llama-quantize takes ours."""
        one, other = read_sums(self._theirs).entries, read_sums(self._ours).entries
        if one.keys() != other.keys():
            raise SystemExit(f"the matrices have other weights: {one.keys() ^ other.keys()}")
        worst = max(
            float((np.abs(entry.sums - other[name].sums) / np.maximum(entry.sums, 1e-12)).max())
            for name, entry in one.items()
        )
        counts = all(entry.count == other[name].count for name, entry in one.items())
        print(f"  {len(one)} weights, the largest difference {worst:.2e} relative")
        wanted = (self._options.reference, self._quantised, "Q4_K_M", self._options.threads)
        quantize = peers.pip_build().tool("llama-quantize")
        run([quantize, "--allow-requantize", "--imatrix", self._ours, *wanted])
        print("  llama-quantize --imatrix takes ours")
        return counts and worst <= AGREE_SUMS


def _figures(*steps: Run, disk: int = 0) -> dict[str, float]:
    return {
        "seconds": sum(step.seconds for step in steps),
        "cpu": sum(step.cpu for step in steps),
        "memory": max(step.peak for step in steps) / 1e6,
        "anonymous": max(step.anonymous for step in steps) / 1e6,
        "disk": disk / 1e6,
    }


def main() -> None:
    """Measure both, ours and theirs in turn."""
    parser = argument_parser(__doc__)
    for name in ("reference", "model", "text"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--chunks", type=int, default=2)
    parser.add_argument("--work", type=Path, help="where files are written [a temporary folder]")
    options = parser.parse_args()
    report, agree = Report(options), True
    kinds: list[tuple[str, type[Divergence | Calibration]]] = [
        ("llama-perplexity", Divergence),
        ("llama-imatrix", Calibration),
    ]
    for peer, work_of in kinds:
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            work = work_of(options, Path(folder))
            measures: dict[str, Measure] = {"ours": work.run_ours, peer: work.run_theirs}
            found = in_turn(measures, options.rounds)
            agree &= work.agrees()
        mine, theirs = found["ours"], found[peer]
        name = work_of.name
        report.compare(name, "s", mine["seconds"], peer, theirs["seconds"], goal=TIME)
        report.compare(f"{name}, processor time", "s", mine["cpu"], peer, theirs["cpu"])
        # Ours has both models in memory at once, theirs one after the other.
        for what, key in (("peak memory", "memory"), ("memory without mapped files", "anonymous")):
            memory = (f"{name}, {what}", "MB", mine[key], peer, theirs[key])
            if work_of is Divergence and key == "anonymous":
                note = f"they store {max(theirs['disk']):,.0f} MB on the disk"
                report.compare(*memory, goal=MEMORY, note=note)
            else:
                report.compare(*memory)
    if not agree:
        raise SystemExit("the figures do not agree")
    print("  the figures agree")


if __name__ == "__main__":
    main()
