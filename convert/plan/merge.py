"""Match a checkpoint's tensors to the model's weights, with what adapters change of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesppo.errors import UnsupportedCheckpoint
from edgesppo.system import notices
from edgesppo_convert.gemma2 import architecture
from edgesppo_convert.gemma2.adapter_config import base_model
from edgesppo_convert.gemma2.architecture import EMBEDDING, HEAD
from edgesppo_convert.gemma2.lora import Changes, read_changes
from edgesppo_convert.gemma2.tensor_names import plain_names
from edgesppo_convert.gemma2.vocab import TOKENIZERS
from edgesppo_convert.plan.tensor_order import TensorJob
from edgesppo_convert.plan.tied_head import check_head
from edgesppo_convert.source.json_reader import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gguf import GGMLQuantizationType

    from edgesppo_convert.gemma2.architecture import HParams, Weight
    from edgesppo_convert.source.adapter import Adapter
    from edgesppo_convert.source.checkpoint import Checkpoint
    from edgesppo_convert.source.safetensors import Tensor


@dataclass(frozen=True)
class Merged:
    """The weights of the model, and where each of them comes from."""

    hparams: HParams
    weights: Sequence[Weight]
    tensors: Mapping[str, Tensor]  # by the names that Gemma2ForCausalLM gives them
    changes: Changes

    @property
    def tokenizer(self) -> Adapter | None:
        """The adapter whose folder has the vocabulary, None if the checkpoint has it."""
        adapter = self.changes.tokenizer
        has_one = adapter is not None and any(map(adapter.read_small, TOKENIZERS))
        return adapter if has_one else None

    def job(self, weight: Weight, kind: GGMLQuantizationType) -> TensorJob:
        """The job of converting a weight."""
        products = self.changes.products.get(weight.source, ())
        return TensorJob(weight, self.tensors[weight.source], kind, products)


def merge(checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> Merged:
    """Match tensors and weights. BadCheckpoint where one is missing, unexpected or misshapen."""
    hparams = architecture.read_hparams(checkpoint.config)
    tensors = plain_names(checkpoint.tensors, checkpoint.where)
    hparams = _with_rows(hparams, tensors, checkpoint)
    weights = architecture.plan_weights(hparams)
    architecture.check_tensors(weights, tensors, checkpoint.config)
    check_head(checkpoint, tensors)
    for adapter in adapters:
        _note_other_base(adapter, checkpoint)
    changes = read_changes(adapters, weights, hparams.vocabulary)
    if not adapters:
        return Merged(hparams, weights, tensors, changes)
    tensors = {**tensors, **changes.replaced}
    _check_tie(checkpoint, tensors, changes)
    hparams = replace(hparams, vocabulary=tensors[EMBEDDING].shape[0])
    return Merged(hparams, architecture.plan_weights(hparams), tensors, changes)


def _with_rows(hparams: HParams, tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> HParams:
    """The hyper-parameters, with as many tokens as the embedding has rows."""
    shape = tensors[EMBEDDING].shape if EMBEDDING in tensors else ()
    if len(shape) != 2 or shape[1] != hparams.hidden or shape[0] in (0, hparams.vocabulary):
        return hparams
    notices.notify(
        f"{checkpoint.config.where}: 'vocab_size' is {hparams.vocabulary:,}, but the embedding has"
        f" {shape[0]:,} rows; that number is used"
    )
    return replace(hparams, vocabulary=shape[0])


def _check_tie(checkpoint: Checkpoint, tensors: dict[str, Tensor], changes: Changes) -> None:
    """Refuse adapters after which the head would differ from the embedding it is tied to."""
    is_changed = EMBEDDING in changes.replaced or EMBEDDING in changes.products
    if HEAD in changes.replaced:
        if EMBEDDING in changes.products:
            raise _untied("one of them replaces lm_head, and another adds to embed_tokens")
        check_head(checkpoint, tensors)
    elif is_changed and not checkpoint.config.flag("tie_word_embeddings", default=True):
        raise _untied("one of them changes embed_tokens alone, and the config does not tie them")


def _untied(why: str) -> UnsupportedCheckpoint:
    return UnsupportedCheckpoint(
        f"with these adapters, {HEAD} would differ from {EMBEDDING}: {why}; llama.cpp ties them for"
        " Gemma-2, so the head would be lost"
    )


def _note_other_base(adapter: Adapter, checkpoint: Checkpoint) -> None:
    """Say so where an adapter says that it was trained on a model of another name."""
    base = base_model(adapter.config)
    name = (base or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    origin = checkpoint.origin
    if base and origin.owner is not None and name.casefold() != origin.name.casefold():
        notices.notify(
            f"{adapter.where} was trained on {show(base)}, and is merged into"
            f" {origin.owner}/{origin.name}"
        )
