"""The tensors that a file of a given shape will have, before there is a checkpoint to convert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.gguf.reader import TensorEntry
from edgesppo_convert.gemma2.architecture import HParams, plan_weights
from edgesppo_convert.plan.tensor_order import edge_key
from edgesppo_convert.quant.recipe import Setting, block_types, find_recipe, row_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator


def expected_tensors(hparams: HParams, type: str) -> Iterator[TensorEntry]:
    """The tensors that `convert` would write in edge order; offsets are from the data's start."""
    weights, setting = plan_weights(hparams), Setting(hparams.layers, _sharing(hparams))
    kinds = block_types(find_recipe(type), weights, setting)
    offset = 0
    for weight in sorted(weights, key=lambda weight: edge_key(weight, kinds[weight.name])):
        kind = kinds[weight.name]
        n_bytes = weight.rows * row_bytes(kind, weight.row)
        yield TensorEntry(weight.name, kind.name, weight.shape[::-1], n_bytes, offset)
        offset += n_bytes


def _sharing(hparams: HParams) -> int:
    """The number of heads that share a head for keys and values."""
    return hparams.heads // hparams.kv_heads
