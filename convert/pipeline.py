"""Owns the chain: checkpoint -> plan -> blocks -> file, in bounded memory, on all cores.

Worker threads read and quantise chunks of rows; this thread hashes and writes them in order, so
the file does not depend on the number of threads. What an interrupted run of the same conversion
left is gone on from. Prints nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo._llama import ggml_base
from edgesppo.errors import OutputError, UsageError
from edgesppo.files import Files
from edgesppo.machine import usable_cpus
from edgesppo_convert import gemma2, metadata
from edgesppo_convert.gguf_file import KeyValue, plan_file
from edgesppo_convert.importance import Importance, read_importance
from edgesppo_convert.layout import LAYOUTS, Job, in_order
from edgesppo_convert.output import Output, sweep
from edgesppo_convert.quantize import Quantizer
from edgesppo_convert.recipe import (
    Override,
    Recipe,
    Setting,
    block_types,
    find_recipe,
    parse_override,
)
from edgesppo_convert.remote import at_work, open_checkpoint
from edgesppo_convert.target import check_target
from edgesppo_convert.tied import check_head
from edgesppo_convert.verify import check_written
from edgesppo_convert.vocab import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from edgesppo_convert.checkpoint import Checkpoint


@dataclass(frozen=True)
class Progress:
    """How far a conversion is, told after every chunk."""

    tensor: str
    done_bytes: int  # of the tensors in the output
    total_bytes: int


@dataclass(frozen=True)
class ConvertResult:
    """What a conversion made."""

    output: Path
    bytes: int
    sha256: str
    seconds: float
    bits_per_weight: float
    tensors: int
    types: Mapping[str, int]  # block type -> tensors
    resumed: int  # tensors that an interrupted run had made
    kernels: str  # what made the blocks: "fast" or "ggml"


@dataclass(frozen=True)
class Choices:
    """What the caller chose of what the file shall hold."""

    recipe: Recipe
    overrides: Sequence[Override]
    importance: Importance | None
    layout: str

    @property
    def importances(self) -> Mapping[str, NDArray[np.float32]]:
        """Those of each tensor that has any."""
        return self.importance.values if self.importance else {}


def convert(
    source: str | Path,
    output: str | Path,
    *,
    type: str = "q4_k_m",
    tensor_types: Sequence[str] = (),
    imatrix: str | Path | None = None,
    layout: str = "edge",
    threads: int | None = None,
    kernels: str = "auto",
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
    keep: bool = False,
    fetched: Callable[[str, int, int], None] | None = None,
    files: Files | None = None,
) -> ConvertResult:
    """Make a GGUF file of a Gemma-2 checkpoint; it appears only when it is whole.

    `source` is a folder, or OWNER/NAME@COMMIT: then each shard is fetched from the hub, used and
    dropped (with `keep`, kept beside the output), and `fetched` hears its name, how many bytes
    are there, and of how many.
    """
    started = time.monotonic()
    choices = check_choices(type, tensor_types, imatrix, layout)
    workers = _check_threads(threads)
    files = files or Files()
    sweep(Path(os.path.realpath(output)), files)
    target = check_target(Path(output), force=force)
    with open_checkpoint(source, target, files, keep=keep, fetched=fetched) as checkpoint:
        if target.exists() and checkpoint.holds(target):
            raise OutputError(f"the output {target} is a part of the checkpoint itself")
        jobs, keys = plan(checkpoint, choices)
        file = plan_file(keys, [job.info for job in jobs])
        mark = fingerprint(checkpoint, file.head, choices)
        quantizer = Quantizer(
            [(job.weight, job.kind) for job in jobs], choices.importances, kernels
        )
        with (
            Output(target, file, mark, files, checkpoint.spare) as out,
            at_work(checkpoint, target, files),
        ):
            resumed = len(out.digests)
            _write(out, checkpoint, jobs, quantizer, workers, progress)
            out.complete()
            sha256 = out.read_back()
            check_written(out.part, target)
            out.commit(force=force)
    return ConvertResult(
        output=Path(output),
        bytes=file.size,
        sha256=sha256,
        seconds=time.monotonic() - started,
        bits_per_weight=8 * sum(j.nbytes for j in jobs) / sum(j.weight.size for j in jobs),
        tensors=len(jobs),
        types=dict(Counter(job.kind.name for job in jobs)),
        resumed=resumed,
        kernels=quantizer.kernels,
    )


def check_choices(
    type: str, tensor_types: Sequence[str], imatrix: str | Path | None, layout: str
) -> Choices:
    """What the words of the caller mean; refuses those that mean nothing."""
    if layout not in LAYOUTS:
        raise UsageError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    return Choices(
        find_recipe(type),
        [parse_override(text) for text in tensor_types],
        None if imatrix is None else read_importance(Path(imatrix)),
        layout,
    )


def plan(checkpoint: Checkpoint, choices: Choices) -> tuple[list[Job], list[KeyValue]]:
    """Every tensor in the order of the file, and the metadata; refuses what cannot be converted."""
    hyper = gemma2.read_hyper(checkpoint.config)
    weights = gemma2.plan_weights(hyper)
    gemma2.check_tensors(weights, checkpoint.tensors, checkpoint.config)
    vocabulary = read_vocabulary(checkpoint, hyper.vocabulary)
    keys = metadata.collect(checkpoint, choices.recipe, hyper, weights, vocabulary)
    check_head(checkpoint)
    if choices.importance is not None:
        choices.importance.check(weights)
        keys += choices.importance.keys
    calibrated = choices.importance is not None
    setting = Setting(hyper.layers, hyper.heads // hyper.kv_heads, calibrated)
    kinds = block_types(choices.recipe, weights, setting, choices.overrides)
    jobs = [Job(w, checkpoint.tensors[w.source], kinds[w.name]) for w in weights]
    return in_order(jobs, choices.layout), keys


def fingerprint(checkpoint: Checkpoint, head: bytes, choices: Choices) -> str:
    """What the output's bytes depend on: its head, the weights, their importance, ggml's code."""
    parts = (
        _sha256(head),
        _sha256(Path(ggml_base()._name).read_bytes()),
        *(shard.state() for shard in checkpoint.shards),
        *((name, _sha256(values.tobytes())) for name, values in choices.importances.items()),
    )
    return _sha256(json.dumps(parts).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_threads(threads: int | None) -> int:
    """As many as asked for; else one for every core this process may use."""
    if threads is None:
        return usable_cpus()
    if not 1 <= threads <= 1024:
        raise UsageError(f"threads is {threads}; expected 1 to 1024")
    return threads


def _write(
    out: Output,
    checkpoint: Checkpoint,
    jobs: list[Job],
    quantizer: Quantizer,
    threads: int,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Every tensor that is not there yet; those that are count as progress, too."""
    report = progress or (lambda _: None)
    total, done = sum(job.nbytes for job in jobs), 0
    for job in jobs:
        if job.weight.name in out.digests:
            done += job.nbytes
            report(Progress(job.weight.name, done, total))
    lacking = [job for job in jobs if job.weight.name not in out.digests]
    for shards in checkpoint.visits({job.tensor.shard for job in lacking}):
        stage = [job for job in lacking if job.tensor.shard in shards]
        with closing(_blocks(stage, quantizer, threads)) as blocks:
            for job, data in blocks:
                out.write(job.weight.name, data)
                done += len(data)
                report(Progress(job.weight.name, done, total))


def _blocks(
    jobs: list[Job], quantizer: Quantizer, threads: int
) -> Generator[tuple[Job, bytearray], None, None]:
    """Every chunk's blocks, in order; at most a few chunks a thread are under way at once."""
    pending: deque[tuple[Job, Future[bytearray]]] = deque()
    with ThreadPoolExecutor(threads, "edgesppo-convert") as pool:
        try:
            for job in jobs:
                for first, rows in job.chunks():
                    job.tensor.expect(first * job.weight.row, rows * job.weight.row)
                    task = (job.weight, job.tensor, job.kind, first, rows)
                    pending.append((job, pool.submit(quantizer.blocks, *task)))
                    if len(pending) > 2 * threads:
                        yield _finished(pending)
            while pending:
                yield _finished(pending)
        finally:
            pool.shutdown(cancel_futures=True)


def _finished(pending: deque[tuple[Job, Future[bytearray]]]) -> tuple[Job, bytearray]:
    job, future = pending.popleft()
    return job, future.result()
