"""What a LoRA adapter changes of a Gemma-2 model: which weights, by which products, how much.

    W + weight * scale * B @ A        scale = alpha / rank, with rsLoRA alpha / sqrt(rank)

    q_proj.lora_A.weight    A: rank x in            of a matrix of out rows of length in
    q_proj.lora_B.weight    B: out x rank
    embed_tokens.lora_embedding_A   A: rank x vocabulary, and the product is transposed
    embed_tokens.lora_embedding_B   B: hidden x rank
    norm.weight             a whole tensor, of `modules_to_save`, that replaces the model's

What is not plain LoRA is refused by name: left out, it would give another model silently.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo_convert.gemma2.adapter_config import LoraConfig
from edgesppo_convert.gemma2.architecture import EMBEDDING, HEAD
from edgesppo_convert.gemma2.tensor_names import MODEL, unwrapped
from edgesppo_convert.source.json_reader import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgesppo_convert.gemma2.architecture import Weight
    from edgesppo_convert.source.adapter import Adapter
    from edgesppo_convert.source.safetensors import Tensor

_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<part>[AB])(?:\.(?!bias)\w+)??(?:\.weight)?"
)
_WHOLE = re.compile(r"(?P<module>.+?)(?:\.(?:modules_to_save|base_layer)(?:\.\w+)?)?\.weight")
_OUTER = re.compile(r"(?:(?:base_model|language_model|model)\.)*")


@dataclass(frozen=True)
class LowRank:
    """A product to be added to a matrix: scale * B @ A, transposed for the embedding."""

    a: Tensor
    b: Tensor
    scale: float
    is_transposed: bool


@dataclass
class Changes:
    """What adapters change, by the names of the tensors in the checkpoint."""

    replaced: dict[str, Tensor] = field(default_factory=dict)
    products: dict[str, tuple[LowRank, ...]] = field(default_factory=dict)
    tokenizer: Adapter | None = None  # whose folder has the vocabulary of a resized embedding


def read_changes(adapters: Sequence[Adapter], weights: Sequence[Weight], rows: int) -> Changes:
    """Match the adapters' tensors to the model's weights; `rows` is what its embedding has.

    Raises BadCheckpoint, or UnsupportedCheckpoint for an adapter that is not plain LoRA.
    """
    changes = Changes()
    shapes = {weight.source: weight.shape for weight in weights}
    for adapter in adapters:
        config = LoraConfig(adapter.config)
        factors = _sort_tensors(adapter, shapes, changes)
        embedding = changes.replaced.get(EMBEDDING)
        if embedding is not None and embedding.shape[0] != rows:
            shapes[EMBEDDING] = embedding.shape
            changes.tokenizer = adapter
        for source, parts in factors.items():
            product = _product(adapter, config, source, parts, shapes[source])
            changes.products[source] = (*changes.products.get(source, ()), product)
    return changes


def _sort_tensors(
    adapter: Adapter, shapes: Mapping[str, tuple[int, ...]], changes: Changes
) -> dict[str, dict[str, Tensor]]:
    """Put whole tensors into `changes`; the factors of each matrix, by its name and theirs."""
    factors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in adapter.shard.tensors.items():
        if match := _FACTOR.fullmatch(unwrapped(name)):
            source = _source(match["module"])
            if source == HEAD:
                raise UnsupportedCheckpoint(
                    f"{adapter.where} changes the output head by {show(name)}; Gemma-2's head is"
                    " tied to its embedding, and llama.cpp cannot keep them apart: train an adapter"
                    " without lm_head among its target_modules"
                )
            key = (match["embedding"] or "") + match["part"]
            if source in shapes:
                factors.setdefault(source, {})[key] = tensor
                continue
        elif match := _WHOLE.fullmatch(unwrapped(name)):
            source = _source(match["module"])
            if source in shapes or source == HEAD:
                _replace(adapter, source, tensor, shapes.get(source, shapes[EMBEDDING]), changes)
                continue
        raise _unknown(adapter, name)
    if not adapter.shard.tensors:
        raise BadCheckpoint(f"{adapter.shard.path} has no tensors; expected an adapter's")
    return factors


def _source(module: str) -> str:
    """The name in a checkpoint of the weight of a module, whatever stands before it."""
    name = _OUTER.sub("", module, count=1) + ".weight"
    return name if name == HEAD else MODEL + name


def _unknown(adapter: Adapter, name: str) -> UnsupportedCheckpoint:
    kind = "has the tensor"
    if "lora_magnitude_vector" in name:
        kind = "is a DoRA adapter, with the magnitudes"
    elif name.endswith(".bias"):
        kind = "has the bias"
    return UnsupportedCheckpoint(
        f"{adapter.where} {kind} {show(name)}, which is no part of a plain LoRA adapter of a model"
        " of this shape; merge it with peft (merge_and_unload()), and convert what that saves"
    )


def _replace(
    adapter: Adapter, source: str, tensor: Tensor, shape: tuple[int, ...], changes: Changes
) -> None:
    if adapter.weight != 1:
        raise UnsupportedCheckpoint(
            f"{adapter.where} replaces the whole of {source}, so it cannot be merged with the"
            f" weight {adapter.weight:g}; expected 1"
        )
    if source in changes.replaced or source in changes.products:
        raise UnsupportedCheckpoint(
            f"{adapter.where} replaces {source}, which another adapter changes, too; merge one of"
            " them only"
        )
    resizable = source in (EMBEDDING, HEAD)
    if tensor.shape[resizable:] != shape[resizable:] or len(tensor.shape) != len(shape):
        raise _misfit(adapter, tensor, shape)
    changes.replaced[source] = tensor


def _product(
    adapter: Adapter,
    config: LoraConfig,
    source: str,
    parts: Mapping[str, Tensor],
    shape: tuple[int, ...],
) -> LowRank:
    kind = "embedding_" if source == EMBEDDING and "embedding_A" in parts else ""
    if set(parts) != {f"{kind}A", f"{kind}B"} or len(shape) != 2:
        found = " and ".join(f"lora_{part}" for part in sorted(parts))
        raise BadCheckpoint(
            f"{adapter.shard.path} has only {found} for {source}; expected lora_A and lora_B of a"
            " matrix: copy the adapter again from where it was trained"
        )
    a, b = parts[f"{kind}A"], parts[f"{kind}B"]
    rank, alpha = config.rank_and_alpha(source.removesuffix(".weight"))
    out, width = shape[::-1] if kind else shape
    for tensor, expected in ((a, (rank, width)), (b, (out, rank))):
        if tensor.shape != expected:
            raise _misfit(adapter, tensor, expected)
    scale = alpha / (math.sqrt(rank) if config.is_rank_stabilised else rank)
    return LowRank(a, b, adapter.weight * scale, is_transposed=bool(kind))


def _misfit(adapter: Adapter, tensor: Tensor, expected: tuple[int, ...]) -> BadCheckpoint:
    return BadCheckpoint(
        f"{adapter.shard.path}: {show(tensor.name)} has shape {list(tensor.shape)}; expected"
        f" {list(expected)} by its config and the base model: was it trained on another model?"
    )
