"""Make importance matrices: collect one from a model, and add others to it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.evaluate.candidate import find_unquantised
from edgesppo.evaluate.collector import CalibrationOptions, Collector
from edgesppo.evaluate.importance import HARDLY_SEEN, ImportanceSums, read_sums, write_sums
from edgesppo.evaluate.self_dialogues import DEFAULT_DIALOGUES, SelfDialogues, remove_dialogues
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgesppo.evaluate.candidate import Candidate
    from edgesppo.evaluate.corpus import Corpus
    from edgesppo.evaluate.source import Source
    from edgesppo.store.locate import Found

__all__ = ["CalibrationOptions", "CalibrationReport", "calibrate", "thin_note"]

_NAMED = 3  # weights, in a note


@dataclass(frozen=True)
class CalibrationReport:
    """The matrix that was written: its file, tokens and weights; and what is wrong with it."""

    output: Path
    tokens: int
    weights: int
    datasets: tuple[str, ...]
    resumed: int  # samples that an earlier, interrupted run had done
    seconds: float
    notes: tuple[str, ...]


def calibrate(
    model: str | Path | Found | None, output: str | Path, options: CalibrationOptions
) -> CalibrationReport:
    """Collect the importance matrix of a model, and write it; without a model only merge.

    Raises UsageError, OutputError, OutOfMemory, NativeError for activations that are not numbers,
    and what loading raises.
    """
    from edgesppo_convert.output.preconditions import check_target

    started, path = time.monotonic(), Path(output)
    _check_goes_together(model, options)
    target = check_target(path, force=options.force)
    merged = [(str(other), read_sums(Path(other))) for other in options.merge]
    with hold(target):
        if model is None:
            report = _write(path, ImportanceSums(), merged, options)
        else:
            candidate = find_unquantised(model, options.run)
            for name, other in merged:
                other.check(candidate.summary, name)
            own = SelfDialogues(candidate, target)
            n_dialogues = options.n_dialogues or DEFAULT_DIALOGUES
            corpus = own.corpus(options.source, n_dialogues, options.run, options.on_progress)
            report = collect(candidate, corpus, path, options, merged)
            remove_dialogues(target)
    return replace(report, seconds=time.monotonic() - started)


def _check_goes_together(model: str | Path | Found | None, options: CalibrationOptions) -> None:
    """Raise UsageError for what would have no effect beside the rest."""
    own = options.n_dialogues is not None
    if own and options.source is not None:
        raise UsageError(
            "n_dialogues (--generate) is for dialogues that the model makes itself; leave it out "
            f"beside {options.source.origin}"
        )
    if model is not None:
        return
    if not options.merge:
        raise UsageError("give a model to calibrate, or matrices to merge (--merge)")
    if own or options.source is not None or options.process_output:
        raise UsageError(
            "without a model matrices are only merged; give the model to calibrate, or leave out "
            "what it is to be calibrated on, and process_output (--process-output)"
        )


def hold(target: Path) -> filelock.FileLock:
    """The lock of an output that is measured for; see `filelock.hold`. Raises OutputError."""
    return filelock.hold(target, FileSystem(), suffix=".edgesppo-lock", timeout=0)


def collect(
    candidate: Candidate,
    corpus: Corpus,
    path: Path,
    options: CalibrationOptions,
    merged: Sequence[tuple[str, ImportanceSums]] = (),
) -> CalibrationReport:
    """Collect the matrix of a model over a corpus, and write it; the path's lock is held."""
    run = Collector(candidate, corpus, Path(os.path.realpath(path)), options)
    sums, resumed = run.collect()
    dimensions = {tensor.name: len(tensor.dims) for tensor in candidate.summary.tensors}
    report = _write(path, sums, merged, options, layer_matrices(dimensions))
    run.partial.remove()
    notes = (corpus.note, *report.notes)
    return replace(report, resumed=resumed, notes=tuple(filter(None, notes)))


def _write(
    path: Path,
    sums: ImportanceSums,
    merged: Sequence[tuple[str, ImportanceSums]],
    options: CalibrationOptions,
    weights: Iterable[str] = (),
) -> CalibrationReport:
    """Add the others, and write the matrix; `weights` are those that it should have."""
    for _, other in merged:
        sums.merge(other)
    write_sums(Path(os.path.realpath(path)), sums, options.request)
    return report_on(path, sums, weights)


def report_on(path: Path, sums: ImportanceSums, weights: Iterable[str]) -> CalibrationReport:
    """What a matrix holds, and what it lacks of these weights."""
    note = thin_note(sums, weights)
    datasets, notes = tuple(sums.datasets), () if note is None else (note,)
    return CalibrationReport(path, sums.n_tokens, len(sums.entries), datasets, 0, 0.0, notes)


def request_hash(model: str, source: Source | None, **options: object) -> str:
    """A hash of all that decides what a matrix holds; `model` is one of the model."""
    parts = (model, None if source is None else source.fingerprint, sorted(options.items()))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def layer_matrices(dimensions: Mapping[str, int]) -> list[str]:
    """The weights that every matrix should have, of tensors with their numbers of dimensions."""
    return [name for name, n in dimensions.items() if name.startswith("blk.") and n == 2]


def thin_note(sums: ImportanceSums, weights: Iterable[str] = ()) -> str | None:
    """What to say of weights that few tokens reached, or none; None if there are none of them."""
    thin = sums.hardly_seen(weights)
    if not thin:
        return None
    fewest = sorted(thin, key=lambda weight: (thin[weight], weight))[:_NAMED]
    named = ", ".join(
        f"{name} {f'only {thin[name]:,}' if thin[name] else 'none'}" for name in fewest
    )
    return (
        f"few tokens reached {len(thin)} of the weights, {named} (at least {HARDLY_SEEN:,} are "
        "needed): calibrate on a longer text"
    )
