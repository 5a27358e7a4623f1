"""Plan a conversion: parse the caller's options, and work out the file for a checkpoint.

Everything that can be refused before the first weight is read is refused here. The only weights
that are read are those of a separate `lm_head`, to compare it with the embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.llama.library import ggml_base
from edgesppo.system import validate
from edgesppo_convert.gemma2.vocab import read_vocabulary
from edgesppo_convert.gguf_format import FilePlan, KeyValue, plan_file
from edgesppo_convert.plan import metadata, provenance
from edgesppo_convert.plan.merge import merge
from edgesppo_convert.plan.tensor_order import LAYOUTS, TensorJob, sort_jobs
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

    from edgesppo_convert.source.adapter import Adapter
    from edgesppo_convert.source.checkpoint import Checkpoint


@dataclass(frozen=True)
class ConvertOptions:
    """The caller's options that decide what the file holds."""

    recipe: Recipe
    overrides: Sequence[Override]
    importance: Importance | None
    layout: str

    @property
    def importances(self) -> Mapping[str, NDArray[np.float32]]:
        """Tensor name -> importance of each of its columns; empty without an importance matrix."""
        return self.importance.values if self.importance else {}


@dataclass(frozen=True)
class ConversionPlan:
    """Everything about the output that is known before the first weight is read."""

    jobs: Sequence[TensorJob]  # in the order of the file
    file: FilePlan  # its head has zeros for the sha256 of every shard
    added: Mapping[int, bool]  # id of each added token -> whether it is special
    importances: Mapping[str, NDArray[np.float32]]
    fingerprint: str  # a hash of everything that the file's bytes depend on
    keys: Sequence[KeyValue]

    def head(self, digests: Mapping[str, str]) -> bytes:
        """The final head, with the sha256 of every shard by name; as long as the planned one."""
        keys = provenance.with_weights(self.keys, digests)
        return plan_file(keys, [job.info for job in self.jobs]).head

    @property
    def types(self) -> Mapping[str, int]:
        """Block type -> number of tensors."""
        return dict(Counter(job.kind.name for job in self.jobs))

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight, on average."""
        weights = sum(job.weight.size for job in self.jobs)
        return 8 * sum(job.nbytes for job in self.jobs) / weights


def parse_options(
    type: str, tensor_types: Sequence[str], imatrix: str | Path | None, layout: str
) -> ConvertOptions:
    """Parse the arguments of `convert`; UsageError, BadOverride or BadModelFile if one is wrong."""
    validate.texts("tensor_types", tensor_types)
    if imatrix is not None:
        validate.path("imatrix", imatrix)
    validate.choice("layout", layout, LAYOUTS)
    return ConvertOptions(
        find_recipe(type),
        [parse_override(text) for text in tensor_types],
        None if imatrix is None else read_importance(Path(imatrix)),
        layout,
    )


def plan_conversion(
    checkpoint: Checkpoint, options: ConvertOptions, adapters: Sequence[Adapter]
) -> ConversionPlan:
    """Plan the file for a checkpoint; raises BadCheckpoint if it cannot be converted."""
    merged = merge(checkpoint, adapters)
    hparams, weights = merged.hparams, merged.weights
    vocabulary = read_vocabulary(checkpoint, hparams.vocabulary, merged.tokenizer)
    keys = metadata.collect(checkpoint, options.recipe, hparams, weights, vocabulary, adapters)
    calibrated = options.importance is not None
    if options.importance is not None:
        options.importance.check(weights)
        keys += options.importance.keys
    setting = Setting(hparams.layers, hparams.heads // hparams.kv_heads, calibrated)
    kinds = block_types(options.recipe, weights, setting, options.overrides)
    jobs = [merged.job(weight, kinds[weight.name]) for weight in weights]
    jobs = sort_jobs(jobs, options.layout)
    file = plan_file(keys, [job.info for job in jobs])
    check_planned(file.head, file.size, checkpoint.where, vocabulary.added)
    fingerprint = _fingerprint(checkpoint, file.head, options)
    return ConversionPlan(jobs, file, vocabulary.added, options.importances, fingerprint, keys)


def _fingerprint(checkpoint: Checkpoint, head: bytes, options: ConvertOptions) -> str:
    """A hash of the file's head, the shards, the importance matrix, and the ggml library."""
    parts = (
        _sha256(head),
        _sha256(Path(ggml_base()._name).read_bytes()),
        *((*shard.state(), shard.sample()) for shard in checkpoint.shards),
        *((name, _sha256(values.tobytes())) for name, values in options.importances.items()),
    )
    return _sha256(json.dumps(parts).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
