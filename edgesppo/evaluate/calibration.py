"""Make importance matrices: collect one from a model, and add others to it."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.evaluate.candidate import find_unquantised, model_hash
from edgesppo.evaluate.collector import CalibrationOptions, Collector
from edgesppo.evaluate.importance import (
    HARDLY_SEEN,
    ImportanceSums,
    read_sums,
    request_of,
    write_sums,
)
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem

if TYPE_CHECKING:
    from edgesppo.evaluate.candidate import Candidate
    from edgesppo.store.locate import Found

__all__ = ["CalibrationOptions", "CalibrationReport", "calibrate", "thin_note"]

_LOCK = ".edgesppo-lock"


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
    candidate = None if model is None else find_unquantised(model, options.run)
    request = None if candidate is None else _request(candidate, options)
    if options.reuse and request is not None and request_of(path) == request:
        return _report(path, read_sums(path), 0, started, None)
    target = check_target(path, force=options.force)
    merged = [(Path(path), read_sums(Path(path))) for path in options.merge]
    if candidate is None and not merged:
        raise UsageError("give a model to calibrate, or matrices to merge (--merge)")
    with filelock.hold(target, FileSystem(), suffix=_LOCK, timeout=0):
        sums, resumed, run = ImportanceSums(), 0, None
        if candidate is not None:
            for other_path, other in merged:
                other.check(candidate.summary, str(other_path))
            run = Collector(candidate, target, options)
            sums, resumed = run.collect()
        for _, other in merged:
            sums.merge(other)
        write_sums(target, sums, request)
        if run is not None:
            run.remove_leftovers()
    return _report(path, sums, resumed, started, None if run is None else run.note)


def _report(
    path: Path, sums: ImportanceSums, resumed: int, started: float, note: str | None
) -> CalibrationReport:
    return CalibrationReport(
        path,
        sums.n_tokens,
        len(sums.entries),
        tuple(sums.datasets),
        resumed,
        time.monotonic() - started,
        tuple(line for line in (note, thin_note(sums.hardly_seen)) if line is not None),
    )


def _request(candidate: Candidate, options: CalibrationOptions) -> str | None:
    """A hash of all that decides what the matrix holds; None where that is not in files."""
    parts: list[object] = [model_hash(candidate)]
    parts += [options.process_output, options.n_ctx, options.chunks, options.n_dialogues]
    for source in (options.text, options.dialogues, *options.merge):
        if isinstance(source, Path) and source.is_file():
            parts.append(hashlib.sha256(source.read_bytes()).hexdigest())
        elif source is not None and not isinstance(source, str):
            return None
        else:
            parts.append(source)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def thin_note(hardly_seen: dict[str, int]) -> str | None:
    """What to say of weights that few tokens reached; None if there are none."""
    if not hardly_seen:
        return None
    name = min(hardly_seen, key=lambda weight: hardly_seen[weight])
    return (
        f"few tokens reached {len(hardly_seen)} of the weights, {name} only {hardly_seen[name]:,} "
        f"(at least {HARDLY_SEEN:,} are needed): calibrate on a longer text"
    )
