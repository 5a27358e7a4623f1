"""Convert a checkpoint: checkpoint -> plan -> blocks -> file, in bounded memory, on all cores.

Worker threads read and quantise chunks of rows, in the order of the checkpoint; the calling thread
hashes and writes them in order, so the file does not depend on the number of threads. A conversion
that was interrupted is resumed where it stopped.
"""

from __future__ import annotations

import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import OutOfMemory, OutputError
from edgesppo.system import validate
from edgesppo.system.conversion_progress import CONVERTING, HASHING, Progress
from edgesppo.system.fs import FileSystem
from edgesppo.system.hardware import usable_cpus
from edgesppo.system.signals import deferred_interrupts
from edgesppo_convert.output.output import Output, clean_up_after_kill
from edgesppo_convert.output.preconditions import check_target
from edgesppo_convert.plan.plan import parse_options, plan_conversion
from edgesppo_convert.plan.verify import check_written
from edgesppo_convert.progress import StageProgress
from edgesppo_convert.quant.quantize import MAX_PENDING, Quantizer, max_threads
from edgesppo_convert.source.adapter import open_adapters
from edgesppo_convert.source.hub_checkpoint import (
    RemoteCheckpoint,
    cleanup_on_error,
    open_checkpoint,
)
from edgesppo_convert.source.shard_hashes import ShardHashes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from edgesppo.system.fs import Bytes
    from edgesppo_convert.plan.plan import ConversionPlan
    from edgesppo_convert.plan.tensor_order import Layout, TensorJob
    from edgesppo_convert.progress import Report
    from edgesppo_convert.quant.kernels import Kernels
    from edgesppo_convert.quant.recipe import RecipeName
    from edgesppo_convert.source.adapter import Adapter
    from edgesppo_convert.source.checkpoint import Checkpoint
    from edgesppo_convert.source.safetensors import Shard

    Quantised = tuple[memoryview, bytearray]  # rows as they are stored, and their blocks
    Chunk = tuple[TensorJob, int, Bytes, Bytes]  # job, offset in the shard, stored rows, blocks


@dataclass(frozen=True)
class ConvertResult:
    """The file that a conversion wrote, and how."""

    output: Path
    bytes: int
    sha256: str
    seconds: float
    bits_per_weight: float
    tensors: int
    types: Mapping[str, int]  # block type -> number of tensors
    resumed: int  # tensors taken over from an interrupted run
    kernels: str  # the code that made the blocks: "fast" or "ggml"
    doubt: str | None  # why the fast kernels were not used, although they are installed


@validate.suggests_keywords
def convert(
    source: str | Path,
    output: str | Path,
    *,
    type: RecipeName = "q4_k_m",
    tensor_types: Sequence[str] = (),
    imatrix: str | Path | None = None,
    layout: Layout = "edge",
    adapters: Sequence[str | Path] = (),
    n_threads: int | None = None,
    kernels: Kernels = "auto",
    force: bool = False,
    keep: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_fetch: Callable[[str, int, int], None] | None = None,
) -> ConvertResult:
    """Convert a Gemma-2 checkpoint to a GGUF file, which appears only when it is complete.

    Interrupted, it keeps what is finished, and the same call continues from there.

    Args:
        source: A checkpoint folder, or OWNER/NAME@COMMIT on the hub: then each shard is
            downloaded, converted and removed.
        output: The file to write.
        type: The recipe, such as "q4_k_m", "q8_0" or "bf16".
        tensor_types: PATTERN=TYPE, other types for matrices whose names match a regular
            expression.
        imatrix: An importance matrix, as llama-imatrix writes it.
        layout: The order of the tensors: "edge", for the least memory at run time, or
            "standard", llama.cpp's own.
        adapters: Folders of LoRA adapters to merge, each as DIR or DIR=WEIGHT.
        n_threads: Worker threads, 1 to 1024; by default one per usable core.
        kernels: The code that makes the blocks: "auto", "fast" or "ggml"; the bytes are the same.
        force: Replace `output` if it exists.
        keep: Keep downloaded files in the folder OUTPUT.checkpoint.
        on_progress: Called with a Progress when a stage begins and after every chunk.
        on_fetch: Called with a file's name, how many bytes of it are downloaded, and its size.

    Raises:
        ModelNotFound: There is no such folder.
        BadCheckpoint: The checkpoint is damaged, of another kind (UnsupportedCheckpoint), or
            cannot be read now (SourceUnreadable).
        DownloadError: A file could not be downloaded.
        BadModelFile: `imatrix` is damaged.
        OutputError: The output is there already, or could not be written.
        OutOfMemory: There is not enough memory.
        UsageError: An argument is invalid.
    """
    validate.path("source", source)
    validate.path("output", output)
    validate.boolean("force", force)
    validate.boolean("keep", keep)
    validate.callback("on_progress", on_progress)
    validate.callback("on_fetch", on_fetch)
    if n_threads is not None:
        n_threads = validate.integer("n_threads", n_threads, 1, 1024)
    options = parse_options(type, tensor_types, imatrix, layout)
    started, files, report = time.monotonic(), FileSystem(), on_progress or (lambda _: None)
    clean_up_after_kill(Path(os.path.realpath(output)), files)
    target = check_target(Path(output), force=force)
    with (
        open_adapters(adapters) as opened,
        open_checkpoint(source, target, files, keep=keep, on_progress=on_fetch) as checkpoint,
    ):
        plan = plan_conversion(checkpoint, options, opened)
        conversion = _Conversion(checkpoint, plan, opened, n_threads, kernels)
        conversion.check_not_in_checkpoint(target)
        sha256, resumed = conversion.run(target, files, report, force=force)
    return conversion.result(Path(output), sha256, resumed, time.monotonic() - started)


@contextmanager
def _shortages_explained() -> Iterator[None]:
    """Turn a lack of memory or threads into OutOfMemory, after which a later run can resume."""
    try:
        yield
    except MemoryError:
        raise OutOfMemory("there is not enough memory; use fewer --threads") from None
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        raise OutOfMemory(
            "the system does not let this process start more threads; use fewer --threads"
        ) from None


class _Conversion:
    """One conversion: its plan, and what reads, quantises and hashes the weights for it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        plan: ConversionPlan,
        adapters: Sequence[Adapter],
        n_threads: int | None,
        kernels: Kernels,
    ) -> None:
        self.plan = plan
        self._adapters = adapters
        self._checkpoint = checkpoint
        self._threads = max_threads(n_threads or usable_cpus(), (job.weight for job in plan.jobs))
        self._hashes = ShardHashes(
            checkpoint.shards, downloaded=isinstance(checkpoint, RemoteCheckpoint)
        )
        self._quantizer = Quantizer(
            [(job.weight, job.kind) for job in plan.jobs], plan.importances, kernels
        )

    def check_not_in_checkpoint(self, target: Path) -> None:
        """Refuse to overwrite a file of the checkpoint or of an adapter."""
        if target.exists() and (
            self._checkpoint.contains_file(target)
            or any(adapter.contains_file(target) for adapter in self._adapters)
        ):
            raise OutputError(
                f"the output {target} is a file of the checkpoint itself; choose another name"
            )

    def run(
        self, target: Path, files: FileSystem, report: Report, *, force: bool
    ) -> tuple[str, int]:
        """Write the output; its sha256, and how many tensors an earlier run had written."""
        extra, fingerprint = self._checkpoint.extra_disk_space, self.plan.fingerprint
        output = Output(target, self.plan.file, fingerprint, files, extra=extra, report=report)
        with (
            output as out,
            cleanup_on_error(self._checkpoint, target, files),
            _shortages_explained(),
        ):
            resumed = len(out.digests)
            out.complete(self._write_tensors(out, report))
            sha256 = out.read_back()
            check_written(out.part, target, self.plan.added)
            out.commit(force=force)
        return sha256, resumed

    def _write_tensors(self, out: Output, report: Report) -> bytes:
        """Write every tensor that is not written yet; the final head, with the shards' hashes."""
        missing = [job for job in self.plan.jobs if job.weight.name not in out.digests]
        missing.sort(key=lambda job: job.location)
        total = sum(job.nbytes for job in self.plan.jobs)
        done = total - sum(job.nbytes for job in missing)
        count = StageProgress(CONVERTING, total, report, done)
        own = set(self._checkpoint.shards)
        if foreign := [job for job in missing if job.tensor.shard not in own]:
            self._write(foreign, (), out, count, report)
        needed = {*self._hashes.unverified, *(job.tensor.shard for job in missing)} & own
        for shards in self._checkpoint.shard_groups(needed):
            jobs = [job for job in missing if job.tensor.shard in shards]
            self._write(jobs, shards, out, count, report)
        for adapter in self._adapters:
            adapter.check_unchanged()
        return self.plan.head(self._hashes.digests)

    def _write(
        self,
        jobs: Sequence[TensorJob],
        hashed: Collection[Shard],
        out: Output,
        count: StageProgress,
        report: Report,
    ) -> None:
        """Write the tensors of these jobs, and hash the shards that they are read from."""
        with (
            deferred_interrupts() as check_interrupt,
            self._hashes.watch(hashed, partial(_on_hashing, check_interrupt, report)) as hashing,
            closing(self._chunks(jobs)) as chunks,
        ):
            for job, offset, stored, blocks in chunks:
                if hashed:
                    hashing.read(job.tensor.shard, offset, stored)
                out.write(job.weight.name, blocks)
                count(job.weight.name, len(blocks))
                check_interrupt()

    def _chunks(self, jobs: Sequence[TensorJob]) -> Generator[Chunk, None, None]:
        """Quantise the jobs' chunks on worker threads, and yield them in order; few are pending."""
        pending_bytes = 0
        pending: deque[tuple[TensorJob, int, int, Future[Quantised]]] = deque()
        with ThreadPoolExecutor(self._threads, "edgesppo-convert") as pool:
            try:
                for job in jobs:
                    for first, rows in job.chunks():
                        offset = job.prefetch(first, rows)
                        task = (job.weight, job.tensor, job.kind, first, rows, job.products)
                        future = pool.submit(self._quantizer.blocks, *task)
                        pending.append((job, offset, job.buffer_bytes(rows), future))
                        pending_bytes += job.buffer_bytes(rows)
                        while len(pending) > self._threads and pending_bytes > MAX_PENDING:
                            pending_bytes -= pending[0][2]
                            yield _next_chunk(pending)
                while pending:
                    yield _next_chunk(pending)
            finally:
                pool.shutdown(cancel_futures=True)

    def result(self, output: Path, sha256: str, resumed: int, seconds: float) -> ConvertResult:
        """The result to return for the finished file."""
        return ConvertResult(
            output=output,
            bytes=self.plan.file.size,
            sha256=sha256,
            seconds=seconds,
            bits_per_weight=self.plan.bits_per_weight,
            tensors=len(self.plan.jobs),
            types=self.plan.types,
            resumed=resumed,
            kernels=self._quantizer.kernels,
            doubt=self._quantizer.fallback_reason,
        )


def _on_hashing(check_interrupt: Callable[[], None], report: Report, done: int, total: int) -> None:
    """Called while the parts of the shards are hashed that the conversion did not read."""
    check_interrupt()
    report(Progress("", done, total, HASHING))


def _next_chunk(pending: deque[tuple[TensorJob, int, int, Future[Quantised]]]) -> Chunk:
    job, offset, _, future = pending.popleft()
    return job, offset, *future.result()
