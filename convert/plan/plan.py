"""Owns the blueprint of a file: what the caller chose, and what that makes of a checkpoint.

Everything that can be refused before the first weight is read is refused here. Reads config,
vocabulary and headers; of the weights only a separate head, to compare it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.llama.library import ggml_base
from edgesppo_convert.gemma2 import architecture
from edgesppo_convert.gemma2.vocab import read_vocabulary
from edgesppo_convert.gguf_format import FilePlan, KeyValue, plan_file
from edgesppo_convert.plan import metadata, provenance
from edgesppo_convert.plan.tensor_order import LAYOUTS, TensorJob, in_order
from edgesppo_convert.plan.tied_head import check_head
from edgesppo_convert.plan.verify import check_planned
from edgesppo_convert.quant.imatrix import Importance, read_importance
from edgesppo_convert.quant.recipe import (
    Override,
    Recipe,
    Setting,
    block_types,
    find_recipe,
    parse_override,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edgesppo_convert.source.checkpoint import Checkpoint


@dataclass(frozen=True)
class ConvertOptions:
    """What the caller chose of what the file shall hold."""

    recipe: Recipe
    overrides: Sequence[Override]
    importance: Importance | None
    layout: str

    @property
    def importances(self) -> Mapping[str, NDArray[np.float32]]:
        """Those of each tensor that has any."""
        return self.importance.values if self.importance else {}


@dataclass(frozen=True)
class ConversionPlan:
    """A file before its first weight is read."""

    jobs: Sequence[TensorJob]  # in the order of the file
    file: FilePlan  # its head has a placeholder for the sha256 of every shard
    laid: Mapping[int, bool]  # added token -> whether it is special
    importances: Mapping[str, NDArray[np.float32]]
    fingerprint: str  # of all that the file's bytes depend on
    keys: Sequence[KeyValue]

    def head(self, digests: Mapping[str, str]) -> bytes:
        """The head as it is when the sha256 of every shard is known; it has the same length."""
        keys = provenance.with_weights(self.keys, digests)
        return plan_file(keys, [job.info for job in self.jobs]).head

    @property
    def types(self) -> Mapping[str, int]:
        """Block type -> tensors."""
        return dict(Counter(job.kind.name for job in self.jobs))

    @property
    def bits_per_weight(self) -> float:
        """On average."""
        weights = sum(job.weight.size for job in self.jobs)
        return 8 * sum(job.nbytes for job in self.jobs) / weights


def check_choices(
    type: str, tensor_types: Sequence[str], imatrix: str | Path | None, layout: str
) -> ConvertOptions:
    """What the words of the caller mean; refuses those that mean nothing."""
    if layout not in LAYOUTS:
        raise UsageError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    return ConvertOptions(
        find_recipe(type),
        [parse_override(text) for text in tensor_types],
        None if imatrix is None else read_importance(Path(imatrix)),
        layout,
    )


def plan_conversion(checkpoint: Checkpoint, choices: ConvertOptions) -> ConversionPlan:
    """Every tensor in the order of the file, and its head; refuses what cannot be converted."""
    hyper = architecture.read_hparams(checkpoint.config)
    weights = architecture.plan_weights(hyper)
    architecture.check_tensors(weights, checkpoint.tensors, checkpoint.config)
    vocabulary = read_vocabulary(checkpoint, hyper.vocabulary)
    keys = metadata.collect(checkpoint, choices.recipe, hyper, weights, vocabulary)
    check_head(checkpoint)
    calibrated = choices.importance is not None
    if choices.importance is not None:
        choices.importance.check(weights)
        keys += choices.importance.keys
    setting = Setting(hyper.layers, hyper.heads // hyper.kv_heads, calibrated)
    kinds = block_types(choices.recipe, weights, setting, choices.overrides)
    jobs = [TensorJob(w, checkpoint.tensors[w.source], kinds[w.name]) for w in weights]
    jobs = in_order(jobs, choices.layout)
    file = plan_file(keys, [job.info for job in jobs])
    check_planned(file.head, file.size, checkpoint.where, vocabulary.laid)
    mark = _fingerprint(checkpoint, file.head, choices)
    return ConversionPlan(jobs, file, vocabulary.laid, choices.importances, mark, keys)


def _fingerprint(checkpoint: Checkpoint, head: bytes, choices: ConvertOptions) -> str:
    """Of the file's head, the weights, their importance, and ggml's code."""
    parts = (
        _sha256(head),
        _sha256(Path(ggml_base()._name).read_bytes()),
        *(shard.identity() for shard in checkpoint.shards),
        *((name, _sha256(values.tobytes())) for name, values in choices.importances.items()),
    )
    return _sha256(json.dumps(parts).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
