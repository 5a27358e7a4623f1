"""Collect an importance matrix: run a model, and sum the squares of its matrix products' inputs.

The runtime's evaluation callback shows the inputs (`llama/graph_observer.py`). Where the output
matrix is not wanted the graph is left after the last layer, so the head, a quarter of a small
model's work, is never computed. What is done is saved every half minute, and when it is
interrupted; the same call goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgesppo.engine.forward import ForwardPass
from edgesppo.errors import EdgesppoError, NativeError, OutputError, UsageError
from edgesppo.evaluate.candidate import Candidate, RunOptions, find_candidate
from edgesppo.evaluate.corpus import Corpus, dialogue_corpus, read_corpus
from edgesppo.evaluate.importance import (
    HARDLY_SEEN,
    ImportanceSums,
    PartialSums,
    read_sums,
    request_of,
    write_sums,
)
from edgesppo.evaluate.self_dialogues import DEFAULT_DIALOGUES, SelfDialogues
from edgesppo.llama.graph_observer import GraphObserver
from edgesppo.llama.model import Model
from edgesppo.sessions.kv_snapshot import fingerprint
from edgesppo.store import locate
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem, cannot_write
from edgesppo.system.hardware import available_memory
from edgesppo.system.signals import shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from edgesppo.evaluate.corpus import Dialogues, Text
    from edgesppo.llama.graph_observer import Input
    from edgesppo.store.locate import Found

    Sums = NDArray[np.float32]

_OUTPUT = "token_embd.weight"  # the embedding is the output matrix, too
_SAVE_S = 30.0
# A checkpoint is calibrated in its own precision where that leaves this share of memory free.
_SHARE = 0.8


@dataclass(frozen=True)
class CalibrationOptions:
    """What to calibrate on, and how.

    Without a text and dialogues the model answers `n_dialogues` shipped questions itself. `merge`
    names matrices whose sums are added. With `reuse`, a matrix that is there already and was asked
    for in the same way is left as it is.
    """

    text: Text | None = None
    dialogues: Dialogues | None = None
    n_dialogues: int = DEFAULT_DIALOGUES
    process_output: bool = False
    n_ctx: int | None = None
    chunks: int | None = None
    merge: Sequence[str | Path] = ()
    force: bool = False
    reuse: bool = False
    run: RunOptions = field(default_factory=RunOptions)
    # Called with the name of the stage, and how much of it is done, of how much.
    on_progress: Callable[[str, int, int], None] | None = None


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
    with _alone(target):
        sums, resumed, run = ImportanceSums(), 0, None
        if candidate is not None:
            for other_path, other in merged:
                other.check(candidate.summary, str(other_path))
            run = _Calibration(candidate, target, options)
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


def find_unquantised(model: str | Path | Found, run: RunOptions) -> Candidate:
    """The model to run; a checkpoint in its own precision if memory holds that, else as Q8_0."""
    found = model if isinstance(model, locate.Found) else locate.find(model)
    kind = "bf16"
    if found.is_checkpoint:
        size = sum(shard.stat().st_size for shard in found.path.glob("*.safetensors"))
        free = available_memory()
        if free is not None and size > _SHARE * free:
            kind = "q8_0"
    return find_candidate(found, run, type=kind)


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep other processes from calibrating into the same file."""
    try:
        lock = filelock.acquire(
            target.with_name(f".{target.name}.edgesppo-lock"), FileSystem(), timeout=0
        )
    except filelock.LockHeld as held:
        raise OutputError(f"{target} is being written by {held.owner}; wait for it") from None
    except OSError as error:
        raise cannot_write(target, error) from error
    with lock:
        yield


class _Calibration:
    """One run over all samples, from the first that is not done yet."""

    def __init__(self, candidate: Candidate, target: Path, options: CalibrationOptions) -> None:
        self._candidate = candidate
        self._options = options
        self._report = options.on_progress or (lambda _stage, _done, _total: None)
        self._model_hash = model_hash(candidate)
        self.own = SelfDialogues(candidate, target, self._model_hash)
        self._corpus = self._read()
        self.partial = PartialSums(target, self._fingerprint())
        self._done = 0  # samples
        # Of the sample that is computed: weights, sums of squares of their inputs, tokens.
        self._squares: list[tuple[list[str], Sums, int]] = []

    @property
    def note(self) -> str | None:
        """What to say of the samples."""
        return self._corpus.note

    def remove_leftovers(self) -> None:
        """Remove what was kept to resume."""
        self.partial.remove()
        self.own.remove()

    def _read(self) -> Corpus:
        options = self._options
        own = None
        if options.text is None and options.dialogues is None:
            stage = f"{self._candidate.name} answers questions to be calibrated on"
            own = self.own.generate(
                options.n_dialogues,
                options.run,
                lambda done, total: self._report(stage, done, total),
            )
        with contextlib.closing(self._candidate.vocabulary()) as model:
            if own is not None:
                return dialogue_corpus(model, own, "its own dialogues")
            return read_corpus(
                model,
                options.text,
                options.dialogues,
                n_ctx=options.n_ctx,
                chunks=options.chunks,
            )

    def _fingerprint(self) -> str:
        ids = [sample.ids for sample in self._corpus.samples]
        parts = (self._model_hash, self._options.process_output, ids)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def collect(self) -> tuple[ImportanceSums, int]:
        """The sums over all samples, and how many of those an earlier run had done."""
        first, sums = self.partial.load()
        samples, self._done = self._corpus.samples, first
        saved_at = time.monotonic()
        try:
            with self._forward() as forward:
                for sample in samples[first:]:
                    self._add(forward, sample.ids, sums)
                    self._report(f"Calibrating {self._candidate.name}", self._done, len(samples))
                    if time.monotonic() - saved_at > _SAVE_S:
                        self.partial.save(self._done, sums)
                        saved_at = time.monotonic()
        except (KeyboardInterrupt, EdgesppoError) as error:
            self._keep(error, sums)
            raise
        sums.datasets = [Path(self._corpus.origin).name]
        return sums, first

    def _keep(self, error: BaseException, sums: ImportanceSums) -> None:
        """Save what is done after an interruption, and say so in the error."""
        if not self._done or isinstance(error, NativeError):
            return
        with contextlib.suppress(OutputError):
            self.partial.save(self._done, sums)
            kept = (
                f"{self._done} of {len(self._corpus.samples)} samples are kept in "
                f"{self.partial.path}: run the same command again to continue"
            )
            error.args = (f"{'; '.join((str(error) or 'stopped', kept))}",)

    @contextlib.contextmanager
    def _forward(self) -> Iterator[ForwardPass]:
        n_ctx, candidate = self._corpus.n_ctx, self._candidate
        tuning = candidate.settings(n_ctx)
        layers = candidate.summary.keys["gemma2.block_count"]
        last = None if self._options.process_output else f"blk.{layers - 1}.ffn_down.weight"
        observer = GraphObserver(self._wants, self._on_input, last)
        model = Model(
            candidate.path,
            gpu=self._options.run.gpu,
            repack=tuning.repack,
            summary=candidate.summary,
        )
        with contextlib.closing(model):
            forward = ForwardPass(model, tuning, n_ctx, observer=observer)
            with contextlib.closing(forward):
                yield forward

    def _wants(self, weight: str) -> bool:
        return weight.startswith("blk.") or (self._options.process_output and weight == _OUTPUT)

    def _on_input(self, found: Input) -> None:
        sums = np.einsum("ij,ij->j", found.rows, found.rows)
        # The list of weights still grows: others may have the same input.
        self._squares.append((found.weights, sums, len(found.rows)))

    def _add(self, forward: ForwardPass, ids: Sequence[int], sums: ImportanceSums) -> None:
        """Add one sample, completely or not at all."""
        self._squares.clear()
        # Logits are asked for, or the last layer would be computed for no token.
        for _ in forward.blocks(ids, 0):
            pass
        for weights, squares, _ in self._squares:
            if not np.isfinite(squares).all():
                raise NativeError(
                    f"the inputs of {weights[0]} are NaN or infinite in sample {self._done + 1} of "
                    f"{self._corpus.origin}: the weights before it are damaged, or overflow in "
                    "this type; convert the checkpoint again, or try --type bf16"
                )
        with shielded():  # a Ctrl-C must not leave half of a sample in the sums
            for weights, squares, count in self._squares:
                for weight in weights:
                    sums.add(weight, squares, count)
            self._done += 1


def model_hash(candidate: Candidate) -> str:
    """A hash that tells this model file from others."""
    summary = candidate.summary
    with candidate.path.open("rb") as file:
        return fingerprint(file, max(0, summary.file_bytes - summary.data_bytes))
