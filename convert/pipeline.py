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

from gguf import MODEL_TENSOR

from edgesppo._llama import ggml_base
from edgesppo.errors import BadCheckpoint, OutputError, UsageError
from edgesppo_convert import gemma2, metadata
from edgesppo_convert.files import Files, check_target
from edgesppo_convert.gguf_file import KeyValue, TensorInfo, plan_file
from edgesppo_convert.output import Output, sweep
from edgesppo_convert.quantize import Quantizer, rows_per_chunk
from edgesppo_convert.recipe import Recipe, block_type, find_recipe, row_bytes
from edgesppo_convert.remote import open_checkpoint
from edgesppo_convert.verify import check_written
from edgesppo_convert.vocab import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from concurrent.futures import Future

    from gguf import GGMLQuantizationType

    from edgesppo_convert.checkpoint import Checkpoint
    from edgesppo_convert.gemma2 import Weight
    from edgesppo_convert.safetensors import Tensor

LAYOUTS = ("edge", "standard")
COMPARED = 1 << 20  # elements of lm_head compared at a time


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


@dataclass(frozen=True)
class Job:
    """One tensor on its way: what it is, where it lies, what it becomes."""

    weight: Weight
    tensor: Tensor
    kind: GGMLQuantizationType

    @property
    def nbytes(self) -> int:
        """Bytes of its blocks."""
        return self.weight.rows * row_bytes(self.kind, self.weight.row)

    @property
    def info(self) -> TensorInfo:
        """How the file announces it."""
        return TensorInfo(self.weight.name, self.weight.shape, self.kind, self.nbytes)

    def chunks(self) -> Iterator[tuple[int, int]]:
        """First row and number of rows of every chunk."""
        step = rows_per_chunk(self.weight.row)
        for first in range(0, self.weight.rows, step):
            yield first, min(step, self.weight.rows - first)


def convert(
    source: str | Path,
    output: str | Path,
    *,
    type: str = "q4_k_m",
    layout: str = "edge",
    threads: int | None = None,
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
    recipe = find_recipe(type)
    if layout not in LAYOUTS:
        raise UsageError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    workers = _check_threads(threads)
    files = files or Files()
    sweep(Path(os.path.realpath(output)), files)
    target = check_target(Path(output), force=force)
    with open_checkpoint(source, target, files, keep=keep, fetched=fetched) as checkpoint:
        if target.exists() and checkpoint.holds(target):
            raise OutputError(f"the output {target} is a part of the checkpoint itself")
        jobs, keys = plan(checkpoint, recipe, layout)
        file = plan_file(keys, [job.info for job in jobs])
        mark = fingerprint(checkpoint, file.head)
        with Output(target, file, mark, files, checkpoint.spare) as out:
            resumed = len(out.digests)
            _write(out, checkpoint, jobs, workers, progress)
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
    )


def plan(checkpoint: Checkpoint, recipe: Recipe, layout: str) -> tuple[list[Job], list[KeyValue]]:
    """Every tensor in the order of the file, and the metadata; refuses what cannot be converted."""
    hyper = gemma2.read_hyper(checkpoint.config)
    weights = gemma2.plan_weights(hyper)
    gemma2.check_tensors(weights, checkpoint.tensors, checkpoint.config)
    vocabulary = read_vocabulary(checkpoint, hyper.vocabulary)
    keys = metadata.collect(checkpoint, recipe, hyper, weights, vocabulary)
    _check_head(checkpoint.tensors)
    jobs = [
        Job(weight, checkpoint.tensors[weight.source], block_type(recipe, weight, hyper.layers))
        for weight in weights
    ]
    return sorted(jobs, key=_edge_place if layout == "edge" else _standard_place), keys


def fingerprint(checkpoint: Checkpoint, head: bytes) -> str:
    """What the bytes of the output depend on: its head, the weights, and the library's code."""
    library = Path(ggml_base()._name).read_bytes()
    parts = (
        hashlib.sha256(head).hexdigest(),
        hashlib.sha256(library).hexdigest(),
        *(shard.state() for shard in checkpoint.shards),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _edge_place(job: Job) -> tuple[bool, bool, float, int]:
    """Norms, token_embd, then the blocks' matrices by bits a weight, most first.

    llama.cpp copies the types that it repacks (Q4_K first of all) at load, and can then give back
    the mapped pages at the end of the file only; so what it copies stands at the end. Sorting is
    stable: within a group the order is the checkpoint's.
    """
    weight = job.weight
    bits = row_bytes(job.kind, weight.row) / weight.row
    embedding = weight.role is MODEL_TENSOR.TOKEN_EMBD
    return not weight.is_norm, not embedding, -bits, weight.layer


def _standard_place(job: Job) -> tuple[int, str]:
    """By layer and name, as `llama_model_quantize` writes them."""
    return job.weight.layer, job.weight.name


def _check_threads(threads: int | None) -> int:
    """As many as asked for; else one for every core this process may use."""
    if threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if not 1 <= threads <= 1024:
        raise UsageError(f"threads is {threads}; expected 1 to 1024")
    return threads


def _check_head(tensors: Mapping[str, Tensor]) -> None:
    """The output is tied: a separate `lm_head` must be the embedding, bit for bit."""
    if gemma2.HEAD not in tensors:
        return
    head, embedding = tensors[gemma2.HEAD], tensors[gemma2.EMBEDDING]
    same = head.dtype == embedding.dtype
    for first in range(0, head.size, COMPARED):
        if not same:
            break
        count = min(COMPARED, head.size - first) * head.itemsize
        one, other = bytearray(count), bytearray(count)
        head.read(first, memoryview(one))
        embedding.read(first, memoryview(other))
        same = one == other
    if not same:
        raise BadCheckpoint(
            f"tensor {gemma2.HEAD} differs from {gemma2.EMBEDDING}; Gemma-2 ties them, and"
            " llama.cpp would silently use the embedding"
        )


def _write(
    out: Output,
    checkpoint: Checkpoint,
    jobs: list[Job],
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
        with closing(_blocks(stage, threads)) as blocks:
            for job, data in blocks:
                out.write(job.weight.name, data)
                done += len(data)
                report(Progress(job.weight.name, done, total))


def _blocks(jobs: list[Job], threads: int) -> Generator[tuple[Job, bytearray], None, None]:
    """Every chunk's blocks, in order; at most a few chunks a thread are under way at once."""
    quantizer = Quantizer(job.kind for job in jobs)
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
