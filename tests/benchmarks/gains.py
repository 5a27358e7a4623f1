"""What calibration and chosen types win at equal bytes, on text and dialogues that are held out.

    python -m tests.benchmarks.gains CHECKPOINT [--dialogues N]

CHECKPOINT is the demo, or another model that learned from the demo's generator: the calibration
data and the held-out samples come from there, with different seeds. The gain is how much less the
mean divergence is than plain Q4_K_M's; its interval, of 95 %, is found by drawing the held-out
samples again and again, all files on the same ones.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgesppo.dev.train_demo import dialogues
from edgesppo.evaluate.candidate import RunOptions, find_candidate
from edgesppo.evaluate.corpus import corpus_of
from edgesppo.evaluate.measure import Options, measure_divergence
from edgesppo.evaluate.source import read_source
from tests.benchmarks.quality import edgesppo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgesppo.evaluate.corpus import Sample

CALIBRATION, HELD_OUT = 101, 202  # seeds
DRAWS = 2000
KINDS = ("text", "dialogues")


@dataclass(frozen=True)
class Files:
    """The same dialogues, as a plain text and as messages."""

    text: Path
    dialogues: Path

    @classmethod
    def written(cls, folder: Path, seed: int, count: int) -> Files:
        """Generate so many dialogues."""
        rng = random.Random(seed)
        found = [dialogues.dialogue(rng) for _ in range(count)]
        files = cls(folder / f"{seed}.txt", folder / f"{seed}.jsonl")
        spelled = ("\n".join(f"{turn.user}\n{turn.model}" for turn in turns) for turns in found)
        files.text.write_text("\n\n".join(spelled), encoding="utf-8")
        lines = (json.dumps(_messages(turns)) for turns in found)
        files.dialogues.write_text("\n".join(lines), encoding="utf-8")
        return files


def _messages(turns: list[dialogues.Turn]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": content}
        for turn in turns
        for role, content in (("user", turn.user), ("assistant", turn.model))
    ]


def convert_all(checkpoint: Path, work: Path, given: Files) -> dict[str, Path]:
    """Plain Q4_K_M, calibrated ones, and chosen types of its size, by what they are."""
    plain = work / "plain.gguf"
    edgesppo("convert", checkpoint, "-o", plain)
    found = {"Q4_K_M": plain}
    sources: dict[str, tuple[str | Path, ...]] = {
        "text": ("--text", given.text),
        "dialogues": ("--dialogues", given.dialogues),
        "its own answers": (),
    }
    for name, words in sources.items():
        for number, target in enumerate(((), ("--target-size", plain.stat().st_size))):
            output = work / f"{name[:3]}{number}.gguf"
            edgesppo("convert", checkpoint, "-o", output, "--calibrate", *words, *target)
            found[f"{('calibrated', 'chosen types')[number]}, {name}"] = output
    return found


def divergences(
    reference: Path, models: list[Path], file: Path, kind: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The divergence summed over each sample, [model, sample], and each sample's tokens."""
    run = RunOptions(gpu="off")
    source = read_source(file) if kind == "text" else read_source(None, file)
    base = find_candidate(reference, run)
    vocabulary = base.vocabulary()
    counts = np.array([_counted(sample) for sample in corpus_of(vocabulary, source).samples])
    vocabulary.close()
    reports = measure_divergence(reference, models, Options(source, run))
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    return np.array([np.add.reduceat(report.kld, starts) for report in reports]), counts


def _counted(sample: Sample) -> int:
    return sample.n_scored if sample.answers is None else sum(sample.answers)


def gains(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much less each model loses than the first: the share, and its interval, [model, 3]."""
    drawn = np.random.default_rng(0).integers(0, sums.shape[1], (DRAWS, sums.shape[1]))
    totals = np.array([one[drawn].sum(axis=1) for one in sums])
    low, high = np.quantile(1 - totals / totals[0], (0.025, 0.975), axis=1)
    return np.stack([1 - sums.sum(axis=1) / sums[0].sum(), low, high], axis=1)


def main() -> None:
    """Convert, measure, and print a table for the text and one for the dialogues."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--dialogues", type=int, default=600, help="held out; twice for the other")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        given = Files.written(work, CALIBRATION, 2 * options.dialogues)
        held_out = Files.written(work, HELD_OUT, options.dialogues)
        reference = work / "reference.gguf"
        edgesppo("convert", options.checkpoint, "-o", reference, "--type", "bf16")
        models = convert_all(options.checkpoint, work, given)
        for kind in KINDS:
            file = held_out.text if kind == "text" else held_out.dialogues
            sums, counts = divergences(reference, [*models.values()], file, kind)
            print(f"held-out {kind}: {len(counts)} samples, {counts.sum():,} tokens")
            for name, path, one, gain in zip(
                models, models.values(), sums, gains(sums), strict=True
            ):
                share, low, high = 100 * gain
                size, mean = path.stat().st_size, one.sum() / counts.sum()
                print(
                    f"  {name:30}{size:>12,} bytes  mean KLD {mean:.6f}"
                    f"  {share:5.1f} % less ({low:.1f} to {high:.1f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
