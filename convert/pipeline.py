"""Owns the chain: checkpoint -> plan -> blocks -> file, in bounded memory, on all cores.

Worker threads read and quantise chunks of rows; this thread hashes and writes them in order, so
the file does not depend on the number of threads. Prints nothing.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gguf import MODEL_TENSOR

from edgesppo.errors import BadCheckpoint, OutputError, UsageError
from edgesppo.plan import usable_cpus
from edgesppo_convert import gemma2, metadata
from edgesppo_convert.checkpoint import Checkpoint
from edgesppo_convert.files import Files, NewFile, check_space, check_target
from edgesppo_convert.gguf_file import GGUFWriter, KeyValue, TensorInfo, padded
from edgesppo_convert.importance import Importance, read_importance
from edgesppo_convert.quantize import Quantizer, rows_per_chunk
from edgesppo_convert.recipe import (
    Override,
    Recipe,
    Setting,
    block_types,
    find_recipe,
    parse_override,
    row_bytes,
)
from edgesppo_convert.vocab import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from gguf import GGMLQuantizationType

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
    kernels: str  # what made the blocks: "fast" or "ggml"


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


@dataclass(frozen=True)
class Choices:
    """What the caller chose of what the file shall hold."""

    recipe: Recipe
    overrides: Sequence[Override]
    importance: Importance | None
    layout: str


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
    files: Files | None = None,
) -> ConvertResult:
    """Make a GGUF file of a Gemma-2 checkpoint folder; it appears only when it is whole."""
    started = time.monotonic()
    choices = check_choices(type, tensor_types, imatrix, layout)
    workers = _check_threads(threads)
    target = check_target(Path(output), force=force)
    with Checkpoint(Path(source)) as checkpoint:
        if target.exists() and checkpoint.holds(target):
            raise OutputError(f"the output {target} is a part of the checkpoint itself")
        jobs, keys = plan(checkpoint, choices)
        check_space(target, sum(padded(job.nbytes) for job in jobs))
        values = choices.importance.values if choices.importance else {}
        quantizer = Quantizer([(job.weight, job.kind) for job in jobs], values, kernels)
        with NewFile(target, files or Files()) as file:
            _write(GGUFWriter(file), jobs, keys, quantizer, workers, progress)
            file.commit(force=force)
    return ConvertResult(
        output=Path(output),
        bytes=file.size,
        sha256=file.sha256,
        seconds=time.monotonic() - started,
        bits_per_weight=8 * sum(j.nbytes for j in jobs) / sum(j.weight.size for j in jobs),
        tensors=len(jobs),
        types=dict(Counter(job.kind.name for job in jobs)),
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
    _check_head(checkpoint.tensors)
    if choices.importance is not None:
        choices.importance.check(weights)
        keys += choices.importance.keys
    calibrated = choices.importance is not None
    setting = Setting(hyper.layers, hyper.heads // hyper.kv_heads, calibrated)
    kinds = block_types(choices.recipe, weights, setting, choices.overrides)
    jobs = [Job(w, checkpoint.tensors[w.source], kinds[w.name]) for w in weights]
    return sorted(jobs, key=_edge_place if choices.layout == "edge" else _standard_place), keys


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
        return usable_cpus()
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
    writer: GGUFWriter,
    jobs: list[Job],
    keys: list[KeyValue],
    quantizer: Quantizer,
    threads: int,
    progress: Callable[[Progress], None] | None,
) -> None:
    total, done = sum(job.nbytes for job in jobs), 0
    writer.write_keys(keys, len(jobs))
    writer.write_infos([job.info for job in jobs])
    with closing(_blocks(jobs, quantizer, threads)) as blocks:
        for job, data in blocks:
            writer.write_data(data)
            done += len(data)
            if progress is not None:
                progress(Progress(job.weight.name, done, total))
    writer.finish()


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
