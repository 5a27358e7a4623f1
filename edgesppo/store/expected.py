"""What a model that is not on this machine will be: its file, its disk space, its rate.

Computed from the shape in its lock's entry; opens no connection. The converter, which knows the
tensors and their types, is imported only here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.cards.published import how_to_get
from edgesppo.errors import BadLock, ModelNotFound
from edgesppo.gguf import gemma2
from edgesppo.gguf.gemma2 import ARCHITECTURE, Summary
from edgesppo.gguf.reader import MAX_DISTINCT
from edgesppo.lockfile.entries import CHECKPOINT
from edgesppo.store import layout, locate, pull

if TYPE_CHECKING:
    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.lockfile.published import Shape
    from edgesppo_convert.gemma2.architecture import HParams

# Bytes of a file beside its tensors: for each token, which is nearly all, for each tensor, and for
# what is said of the model.
_TOKEN_BYTES, _TENSOR_BYTES, _HEAD_BYTES = 30, 100, 4096
# The largest shard of a checkpoint, by the default of transformers that published models have.
_SHARD = 5_000_000_000
_STORED = 2  # bytes of a weight in a published checkpoint: bfloat16


@dataclass(frozen=True)
class Disk:
    """The bytes that getting a model takes; `free` is None where it is unknown."""

    download: int
    file: int  # the converted file
    most: int  # at most, while it is fetched and converted shard by shard
    free: int | None


def absent_entry(model: str | Path) -> PinnedModel | None:
    """The lock's entry of a model of the hub that is not on this machine.

    None for a path, for a model that is here, and for one that no lock has.
    """
    entry = locate.entry_of(model)
    if entry is None or entry.repository is None:
        return None
    try:
        locate.of_entry(entry)
    except ModelNotFound:
        return entry
    return None


def expected_summary(entry: PinnedModel) -> Summary:
    """The header of the Q4_K_M file that the model will be converted to.

    Raises ModelNotFound where the lock does not give the model's shape.
    """
    from edgesppo_convert.gemma2.architecture import HParams, metadata

    hparams = HParams(**_numbers(entry))
    _check(entry, {key: value for key, _, value in metadata(hparams)})
    return converted_file(entry.name, hparams)


def converted_file(name: str, hparams: HParams) -> Summary:
    """The header of the Q4_K_M file that a checkpoint of this shape will be converted to."""
    from edgesppo_convert.gemma2.architecture import metadata
    from edgesppo_convert.plan.expected import expected_tensors

    keys = {key: value for key, _, value in metadata(hparams)}
    tensors = tuple(expected_tensors(hparams, layout.RECIPE))
    data = sum(tensor.n_bytes for tensor in tensors)
    texts = {"general.architecture": ARCHITECTURE}
    known: dict[str, Any] = {**texts, **keys, "tokenizer.ggml.tokens": hparams.vocabulary}
    head = _TOKEN_BYTES * hparams.vocabulary + _TENSOR_BYTES * len(tensors) + _HEAD_BYTES
    path = Path(f"{name}-{layout.RECIPE}.gguf")
    return Summary(path, known, len(tensors), data, data + head, tensors, {})


def expected_disk(entry: PinnedModel, summary: Summary) -> Disk:
    """The disk space that `pull --convert` takes, in all and at most."""
    checkpoint = entry.size or _STORED * _shape(entry).parameters
    file = summary.file_bytes if entry.kind == CHECKPOINT else entry.size
    return Disk(checkpoint, file, most_disk(entry, file), pull.free_bytes())


def most_disk(entry: PinnedModel, file_bytes: int) -> int:
    """The bytes that getting a model takes at most, if it is converted to a file of this size."""
    if entry.kind != CHECKPOINT:
        return entry.size
    largest = min(_SHARD, _STORED * _shape(entry).parameters) if not entry.files else 0
    shard = max((file.size for file in entry.files), default=largest)
    return file_bytes + (0 if layout.is_present(entry) else shard)


def _numbers(entry: PinnedModel) -> dict[str, Any]:
    """The fields of the converter's HParams."""
    shape = _shape(entry)
    return {
        "vocabulary": shape.vocabulary,
        "hidden": shape.hidden_size,
        "ffn": shape.feed_forward_size,
        "layers": shape.layers,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "context": shape.context,
        "window": shape.window,
        "rms_eps": 1e-6,
        "rope_base": 10_000.0,
        "attention_cap": shape.attention_softcap,
        "final_cap": shape.output_softcap,
    }


def _check(entry: PinnedModel, keys: dict[str, Any]) -> None:
    """Raise BadLock for a shape that no Gemma-2 model has."""
    for key, value in keys.items():
        name = key.removeprefix(f"{ARCHITECTURE}.")
        fault = gemma2.check_number(name, value)
        if fault is not None:
            raise BadLock(f"the lock's shape of {entry.name}: {name} is {value}, {fault}")
    shape = _shape(entry)
    if shape.heads % shape.kv_heads or not 0 < shape.vocabulary <= MAX_DISTINCT:
        raise BadLock(
            f"the lock's shape of {entry.name}: {shape.kv_heads} kv_heads, expected a divisor of"
            f" the {shape.heads} heads; {shape.vocabulary} tokens, expected 1 to {MAX_DISTINCT}"
        )


def _shape(entry: PinnedModel) -> Shape:
    if entry.shape is None:
        raise ModelNotFound(
            f"{entry.name} ({entry.repository}) is not on this machine, and its lock does not say"
            f" what it will take; this shows that before it downloads: {how_to_get(entry)}"
        )
    return entry.shape
