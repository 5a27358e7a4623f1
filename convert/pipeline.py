"""Owns the chain: checkpoint -> blueprint -> blocks -> file, in bounded memory, on all cores.

Worker threads read and quantise chunks of rows, in the order in which they lie in the checkpoint;
this thread hashes and writes them in order, so the file does not depend on the number of threads.
What an interrupted run of the same conversion left is gone on from. Prints nothing.
"""

from __future__ import annotations

import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import OutOfMemory, OutputError, UsageError
from edgesppo.system.fs import FileSystem
from edgesppo.system.hardware import usable_cpus
from edgesppo.system.signals import deferred_interrupts
from edgesppo_convert.output.output import Output, sweep
from edgesppo_convert.output.preconditions import check_target
from edgesppo_convert.plan.plan import check_choices, plan_conversion
from edgesppo_convert.plan.verify import check_written
from edgesppo_convert.progress import Progress, Report
from edgesppo_convert.quant.quantize import WAITING, Quantizer, fitting
from edgesppo_convert.source.hub_checkpoint import (
    RemoteCheckpoint,
    cleanup_on_error,
    open_checkpoint,
)
from edgesppo_convert.source.shard_hashes import ShardHashes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from edgesppo.system.fs import Bytes
    from edgesppo_convert.plan.plan import ConversionPlan
    from edgesppo_convert.plan.tensor_order import TensorJob
    from edgesppo_convert.source.checkpoint import Checkpoint

    Made = tuple[memoryview, bytearray]  # rows as they are stored, and their blocks
    Chunk = tuple[TensorJob, int, Bytes, Bytes]  # and where in the shard they begin


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
    doubt: str | None  # why the fast kernels were not used, though they are installed


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
    progress: Report | None = None,
    keep: bool = False,
    fetched: Callable[[str, int, int], None] | None = None,
    files: FileSystem | None = None,
) -> ConvertResult:
    """Make a GGUF file of a Gemma-2 checkpoint; it appears only when it is whole.

    `source` is a folder, or OWNER/NAME@COMMIT: then each shard is fetched from the hub, used and
    dropped (with `keep`, kept beside the output), and `fetched` hears its name, how many bytes
    are there, and of how many.
    """
    started, files, report = time.monotonic(), files or FileSystem(), progress or (lambda _: None)
    choices = check_choices(type, tensor_types, imatrix, layout)
    _check_threads(threads)
    sweep(Path(os.path.realpath(output)), files)
    target = check_target(Path(output), force=force)
    with open_checkpoint(source, target, files, keep=keep, fetched=fetched) as checkpoint:
        work = _Conversion(checkpoint, plan_conversion(checkpoint, choices), threads, kernels)
        work.check_apart(target)
        with (
            work.output(target, files, report) as out,
            cleanup_on_error(checkpoint, target, files),
            _lack_told(),
        ):
            resumed = len(out.digests)
            out.complete(work.do(out, report))
            sha256 = out.read_back()
            check_written(out.part, target, work.blueprint.laid)
            out.commit(force=force)
    return work.result(Path(output), sha256, resumed, time.monotonic() - started)


@contextmanager
def _lack_told() -> Iterator[None]:
    """What the system does not give is no defect, and may be there the next time."""
    try:
        yield
    except MemoryError:
        raise OutOfMemory("there is not enough memory; convert with fewer --threads") from None
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        raise OutOfMemory(
            "the system lets this process start no more threads; convert with fewer --threads"
        ) from None


def _check_threads(threads: int | None) -> None:
    if threads is not None and not 1 <= threads <= 1024:
        raise UsageError(f"threads is {threads}; expected 1 to 1024")


class _Conversion:
    """One conversion: the blueprint of a file, and those who make it."""

    def __init__(
        self, checkpoint: Checkpoint, blueprint: ConversionPlan, threads: int | None, kernels: str
    ) -> None:
        self.blueprint = blueprint
        self._checkpoint = checkpoint
        self._threads = fitting(threads or usable_cpus(), (job.weight for job in blueprint.jobs))
        self._witness = ShardHashes(
            checkpoint.shards, fetched=isinstance(checkpoint, RemoteCheckpoint)
        )
        self._quantizer = Quantizer(
            [(job.weight, job.kind) for job in blueprint.jobs], blueprint.importances, kernels
        )

    def check_apart(self, target: Path) -> None:
        """Refuse to write over what is read."""
        if target.exists() and self._checkpoint.holds(target):
            raise OutputError(f"the output {target} is a part of the checkpoint itself")

    def output(self, target: Path, files: FileSystem, report: Report) -> Output:
        """Where it goes."""
        plan, spare = self.blueprint.file, self._checkpoint.spare
        return Output(target, plan, self.blueprint.fingerprint, files, spare=spare, report=report)

    def do(self, out: Output, report: Report) -> bytes:
        """Write every tensor that is not there yet; the head, now that all shards were read."""
        lacking = [job for job in self.blueprint.jobs if job.weight.name not in out.digests]
        lacking.sort(key=lambda job: job.place)
        total = sum(job.nbytes for job in self.blueprint.jobs)
        done = total - sum(job.nbytes for job in lacking)
        report(Progress("", done, total))
        needed = {*self._witness.unproven, *(job.tensor.shard for job in lacking)}
        for shards in self._checkpoint.visits(needed):
            stage = [job for job in lacking if job.tensor.shard in shards]
            with (
                deferred_interrupts() as look,
                self._witness.watch(shards) as watch,
                closing(self._blocks(stage)) as blocks,
            ):
                for job, begin, stored, data in blocks:
                    watch.read(job.tensor.shard, begin, stored)
                    out.write(job.weight.name, data)
                    done += len(data)
                    report(Progress(job.weight.name, done, total))
                    look()
        return self.blueprint.head(self._witness.digests)

    def _blocks(self, jobs: Sequence[TensorJob]) -> Generator[Chunk, None, None]:
        """Every chunk in order; few at a time."""
        waiting = 0  # bytes of what is pending
        pending: deque[tuple[TensorJob, int, int, Future[Made]]] = deque()
        with ThreadPoolExecutor(self._threads, "edgesppo-convert") as pool:
            try:
                for job in jobs:
                    for first, rows in job.chunks():
                        begin = job.expect(first, rows)
                        task = (job.weight, job.tensor, job.kind, first, rows)
                        made = pool.submit(self._quantizer.blocks, *task)
                        pending.append((job, begin, job.held(rows), made))
                        waiting += job.held(rows)
                        while len(pending) > self._threads and waiting > WAITING:
                            waiting -= pending[0][2]
                            yield _finished(pending)
                while pending:
                    yield _finished(pending)
            finally:
                pool.shutdown(cancel_futures=True)

    def result(self, output: Path, sha256: str, resumed: int, seconds: float) -> ConvertResult:
        """What is to be said of it, when all is done."""
        return ConvertResult(
            output=output,
            bytes=self.blueprint.file.size,
            sha256=sha256,
            seconds=seconds,
            bits_per_weight=self.blueprint.bits_per_weight,
            tensors=len(self.blueprint.jobs),
            types=self.blueprint.types,
            resumed=resumed,
            kernels=self._quantizer.kernels,
            doubt=self._quantizer.doubt,
        )


def _finished(pending: deque[tuple[TensorJob, int, int, Future[Made]]]) -> Chunk:
    job, begin, _, made = pending.popleft()
    return job, begin, *made.result()
