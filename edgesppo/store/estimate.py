"""Estimate the disk and memory that a model of the hub needs, before it is downloaded.

The hyper-parameters come from a checkpoint's config.json, verified against its pin, or from the
first 64 kB of a GGUF file; a checkpoint's weights count as Q4_K_M. Both may be read before the
licence is accepted: they describe the model, as the hub's public pages do, and hold no weights.
Writes nothing to the disk.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.gguf import reader
from edgesppo.gguf.gemma2 import Summary
from edgesppo.hub.client import HubClient
from edgesppo.hub.repository import RemoteFile
from edgesppo.lockfile.entries import GGUF
from edgesppo.planning import memory_plan, run_config
from edgesppo.planning.run_config import DEFAULT_BATCH
from edgesppo.store import layout, pull
from edgesppo.store.pull import repository

if TYPE_CHECKING:
    from edgesppo.lockfile.entries import PinnedFile, PinnedModel
    from edgesppo.planning.memory_plan import MemoryPlan

_CONFIG = "config.json"
_MAX_CONFIG = 1 << 20
_MAX_HEAD = 1 << 16  # bytes: Gemma-2's hyper-parameters precede its vocabulary
_WEIGHTS = ".safetensors"
# Bits per weight of Q4_K_M: 4.98 for the 9B, more where the vocabulary is a larger share.
_BITS = 5.1
_KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "context_length": "max_position_embeddings",
}


@dataclass(frozen=True)
class Shape:
    """A model's hyper-parameters under their GGUF keys, and the bits of a stored weight."""

    keys: dict[str, Any]
    bits: int = 16


@dataclass(frozen=True)
class Needs:
    """What downloading and running a model needs; all sizes in bytes."""

    to_fetch: int  # still to be downloaded
    weights: int  # roughly, in the form that will be run
    disk: int  # at most, while downloading and converting
    free: int | None  # on the store's disk; None if unknown
    memory: MemoryPlan | None  # None if the hyper-parameters are unknown


def needs(entry: PinnedModel, *, convert: bool) -> Needs:
    """Estimate what a pinned model needs; with `convert`, when converted shard by shard.

    Raises DownloadError and ModelNotFound.
    """
    shape = read_shape(entry)
    to_fetch, run_bytes = pull.bytes_to_fetch(entry), weights(entry, shape)
    shard = max((file.size for file in entry.files), default=0)
    disk = run_bytes + (0 if layout.is_present(entry) else shard) if convert else to_fetch
    return Needs(to_fetch, run_bytes, disk, pull.free_bytes(), memory(entry, shape))


def weights(entry: PinnedModel, shape: Shape | None) -> int:
    """Approximate bytes of the weights in the form that will be run."""
    if entry.kind == GGUF:
        return entry.size
    stored = sum(file.size for file in entry.files if file.path.endswith(_WEIGHTS))
    return int(stored * _BITS / (shape.bits if shape is not None else 16))


def memory(entry: PinnedModel, shape: Shape | None) -> MemoryPlan | None:
    """Memory needed at the model's own context length; None if its shape is unknown."""
    keys = {f"gemma2.{key}": None for key in _KEYS} if shape is None else shape.keys
    n_ctx, vocabulary = keys.get("gemma2.context_length"), keys.get("tokenizer.ggml.tokens")
    numbers = [keys.get(f"gemma2.{key}") for key in _KEYS]
    sound = all(type(value) is int and 0 < value < 1 << 30 for value in (*numbers, vocabulary))
    if not sound or n_ctx is None:
        return None
    size = weights(entry, shape)
    return memory_plan.plan_memory(
        Summary(Path(entry.name), keys, 0, size, size, (), {}),
        run_config.low_memory_config(),
        n_ctx=n_ctx,
        n_seqs=1,
        n_batch=DEFAULT_BATCH,
        cache_type="f16",
    )


def read_shape(entry: PinnedModel) -> Shape | None:
    """Read the shape of a pinned model from the store or the hub; None if it is unknown.

    Raises DownloadError and ModelNotFound.
    """
    if entry.kind == GGUF:
        file = _remote(entry.files[0])
        head = HubClient().read_range(repository(entry), file, 0, min(file.size, _MAX_HEAD))
        return Shape(reader.peek(head, file.size))
    pinned = next((file for file in entry.files if file.path == _CONFIG), None)
    if pinned is None or pinned.size > _MAX_CONFIG:
        return None
    with suppress(ValueError, RecursionError):
        config = json.loads(_read_verified(entry, pinned))
        if isinstance(config, dict):
            keys = {f"gemma2.{key}": config.get(name) for key, name in _KEYS.items()}
            keys["tokenizer.ggml.tokens"] = config.get("vocab_size")
            return Shape(keys, _stored_bits(config))
    return None


def _stored_bits(config: dict[str, Any]) -> int:
    """The bits of a stored weight; transformers 5 says `dtype`, older versions `torch_dtype`."""
    kind = config.get("dtype") or config.get("torch_dtype")
    return 32 if kind in ("float32", "torch.float32") else 16


def _remote(pinned: PinnedFile) -> RemoteFile:
    return RemoteFile(pinned.path, pinned.size, pinned.digest)


def _read_verified(entry: PinnedModel, pinned: PinnedFile) -> bytes:
    """Read a small pinned file from the store if its hash is right there, else from the hub."""
    file, local = _remote(pinned), layout.model_dir(entry) / pinned.path
    with suppress(OSError):
        data, hasher = (
            local.read_bytes() if layout.size_of(local) == file.size else b"",
            file.hasher(),
        )
        hasher.update(data)
        if hasher.hexdigest() == file.digest:
            return data
    return HubClient().read_verified(repository(entry), file)
