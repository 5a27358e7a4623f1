"""A model to be measured: its file, and the model itself while it is in memory."""

from __future__ import annotations

import contextlib
import math
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.engine.forward import ForwardPass, rows_of_block
from edgesppo.errors import UsageError
from edgesppo.evaluate import logits
from edgesppo.gguf import gemma2
from edgesppo.gguf.fingerprint import fingerprint
from edgesppo.llama.library import can_offload
from edgesppo.llama.load_weights import load_weights
from edgesppo.llama.mapped_file import MappedFile
from edgesppo.llama.model import Model
from edgesppo.planning import memory_plan
from edgesppo.planning.run_config import DEFAULT_BATCH, gpu_layers
from edgesppo.store import converted, locate
from edgesppo.system.hardware import available_memory
from edgesppo.tuning.choose import LoadOptions, choose_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.evaluate.corpus import Sample
    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.llama.weights import Weights
    from edgesppo.planning.run_config import Gpu, RunConfig
    from edgesppo.store.locate import Found
    from edgesppo.system.conversion_progress import Progress
    from edgesppo.system.in_use import InUse
    from edgesppo_convert.quant.recipe import RecipeName

# Processors that compute prompts faster with weights as they are in the file than repacked.
_PLAIN_IS_FASTER = ("x86_64", "amd64")
# A checkpoint is run in its own precision where that leaves this share of memory free.
_SHARE = 0.8


@dataclass(frozen=True)
class RunOptions:
    """How models are run while they are measured."""

    n_threads: int | None = None
    gpu: Gpu = "auto"
    on_convert: Callable[[Progress], None] | None = None


class Candidate:
    """A model file that is to be measured. `name` is for people.

    `opened` loads it; `tokens_per_second` is how fast it computed since then.
    """

    def __init__(
        self, name: str, summary: Summary, options: RunOptions, hold: InUse | None = None
    ) -> None:
        self.name = name
        self._hold = hold
        self.summary = summary
        self.path = summary.path
        self._options = options
        self._seconds, self._n_tokens = 0.0, 0

    def release(self) -> None:
        """Let a converted copy be removed; without this it is kept while the candidate lives."""
        if self._hold is not None:
            self._hold.release()

    @property
    def n_bytes(self) -> int:
        """The size of the file."""
        return self.summary.file_bytes

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight, on average."""
        weights = sum(math.prod(tensor.dims) for tensor in self.summary.tensors)
        return 8 * self.summary.data_bytes / weights

    @property
    def trained_context(self) -> int:
        """The context that it was trained for, in tokens."""
        return memory_plan.trained_context(self.summary)

    @property
    def tokens_per_second(self) -> float:
        """How fast it read the text."""
        return self._n_tokens / self._seconds if self._seconds else 0.0

    def settings(self, n_ctx: int, *, fast: bool = False) -> RunConfig:
        """How to run it here: as llama.cpp's tools do, so that figures agree with theirs.

        Other kernels give a quantised model slightly other logits, which a divergence shows. Where
        that does not matter `fast` chooses what was measured for long prompts, else what suits the
        kind of processor.
        """
        options = LoadOptions(
            n_ctx=n_ctx,
            n_threads=self._options.n_threads,
            gpu=self._options.gpu,
            tune="prefill" if fast else "off",
            force=True,
        )
        tuning, _ = choose_settings(self.summary, options, measure=False)
        if fast and tuning.prefill_tps is None and platform.machine().lower() in _PLAIN_IS_FASTER:
            tuning = replace(tuning, repack=False)
        if tuning.plain_from is not None:  # the better weights for prompts are the plain ones
            tuning = replace(tuning, repack=False, plain_from=None)
        return tuning

    def needs(self, n_ctx: int) -> int:
        """The bytes of memory that it takes while it is measured, without the program's own."""
        plan = memory_plan.plan_memory(
            self.summary,
            self.settings(n_ctx),
            n_ctx=n_ctx,
            n_seqs=1,
            n_batch=DEFAULT_BATCH,
            cache_type="f16",
            n_outputs=rows_of_block(self.n_vocab),
        )
        return plan.weights + plan.kv + plan.compute + plan.logits

    @property
    def n_vocab(self) -> int:
        """The number of its tokens."""
        return int(self.summary.keys["tokenizer.ggml.tokens"])

    def weights(self, *, repack: bool, gpu: Gpu | None = None, mmap: bool = True) -> Weights:
        """Its weights without the vocabulary, to compute with ids; see Weights. Close them."""
        with contextlib.closing(MappedFile(self.path)) as file:
            wanted = self._options.gpu if gpu is None else gpu
            return load_weights(
                file,
                self.summary,
                n_gpu_layers=gpu_layers(wanted, can_offload=can_offload()),
                repack=repack,
                n_entries=self.n_vocab,
                mmap=mmap,
            )

    def vocabulary(self) -> Model:
        """Its vocabulary alone, to tokenise with; close it."""
        return Model(self.path, vocabulary_only=True, summary=self.summary)

    def opened(self, n_ctx: int) -> OpenCandidate:
        """Load it for sequences of up to `n_ctx` tokens; a context manager."""
        return OpenCandidate(self, self.settings(n_ctx), n_ctx)

    def count(self, n_tokens: int, seconds: float) -> None:
        """Note that it computed so many tokens in this time."""
        self._n_tokens += n_tokens
        self._seconds += seconds


class OpenCandidate:
    """A candidate in memory; leaving the block frees it."""

    def __init__(self, candidate: Candidate, tuning: RunConfig, n_ctx: int) -> None:
        self.candidate = candidate
        self._weights = candidate.weights(repack=tuning.repack)
        try:
            self._forward = ForwardPass(self._weights, candidate.summary, tuning, n_ctx)
        except BaseException:
            self._weights.close()
            raise

    @property
    def n_threads(self) -> int:
        """How many threads compute."""
        return self._forward.n_threads

    def __enter__(self) -> OpenCandidate:
        return self

    def __exit__(self, *_: object) -> None:
        self._forward.close()
        self._weights.close()

    def blocks(self, sample: Sample) -> Iterator[tuple[int, logits.Floats]]:
        """(position, logits) for each block of a sample's scored tokens, valid until the next.

        The last token, which predicts nothing, is computed as well, as llama-perplexity does:
        kernels for groups of rows give those that are left over slightly other values.
        """
        started = time.perf_counter()
        for position, block in self._forward.blocks(sample.ids, sample.first):
            self.candidate.count(0, time.perf_counter() - started)
            rows = logits.as_rows(block, self._forward.n_vocab)[: len(sample.ids) - 1 - position]
            if len(rows):
                yield position, rows
            started = time.perf_counter()
        self.candidate.count(len(sample.ids), 0.0)


def find_candidate(
    model: str | Path | Found, options: RunOptions, *, type: RecipeName = "q4_k_m"
) -> Candidate:
    """A model by its name, GGUF file or checkpoint folder; a folder is converted to `type` once.

    Raises what `locate.find`, the conversion and `gemma2.load_summary` raise.
    """
    if not isinstance(model, str | Path | locate.Found):
        raise UsageError(f"the model is {model!r}, expected a name, a GGUF file or a folder")
    found = model if isinstance(model, locate.Found) else locate.find(model)
    if not found.is_checkpoint:
        return Candidate(found.name, gemma2.load_summary(found.path), options)
    summary, hold = converted.use(found, options.on_convert, type=type)
    return Candidate(found.name, summary, options, hold)


def find_unquantised(model: str | Path | Found, run: RunOptions) -> Candidate:
    """The model to run; a checkpoint as its `unquantised_type`."""
    found = model if isinstance(model, locate.Found) else locate.find(model)
    kind = unquantised_type(found) if found.is_checkpoint else "bf16"
    return find_candidate(found, run, type=kind)


def unquantised_type(checkpoint: Found) -> RecipeName:
    """The type to run a checkpoint in: its own precision if memory holds that, else Q8_0.

    A copy that is there already is used, though, whatever memory is free by now: what an
    interrupted run has measured is of that copy.
    """
    size = sum(shard.stat().st_size for shard in checkpoint.path.glob("*.safetensors"))
    free = available_memory()
    is_tight = free is not None and size > _SHARE * free
    kinds: tuple[RecipeName, ...] = ("q8_0", "bf16") if is_tight else ("bf16", "q8_0")
    made = (kind for kind in kinds if converted.copy_of(checkpoint, kind).exists())
    return next(made, kinds[0])


def model_hash(candidate: Candidate) -> str:
    """A hash that tells this model file from others."""
    summary = candidate.summary
    with candidate.path.open("rb") as file:
        return fingerprint(file, max(0, summary.file_bytes - summary.data_bytes))
