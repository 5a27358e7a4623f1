"""Owns what a model of the hub will take here, said before it is fetched: about, from its config.

The shape comes from the checkpoint's config.json, held against its pin, where the weights count as
what Q4_K_M makes of them; of a GGUF file from its first 64 kB. Both are read before a licence was
accepted: they say what the model is, which the hub's own pages show to everyone, and hold nothing
of it. Writes nothing to the disk.
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
_MAX_HEAD = 1 << 16  # bytes: Gemma-2's numbers stand before its vocabulary
_WEIGHTS = ".safetensors"
# Bits that Q4_K_M takes for a weight: 4.98 of the 9B, more of what has a large vocabulary.
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
    """What a model says of its size: keys as a GGUF file has them, bits of a stored weight."""

    keys: dict[str, Any]
    bits: int = 16


@dataclass(frozen=True)
class Needs:
    """What getting and running a model takes: bytes, of which some are there already."""

    left: int  # to be fetched
    weights: int  # as they will be run, about
    disk: int  # at the most, until all is done
    free: int | None  # on the disk of the store
    memory: MemoryPlan | None  # None where the shape is not known


def needs(entry: PinnedModel, *, convert: bool) -> Needs:
    """What a pinned model takes here; with `convert`, shard by shard into a GGUF file.

    Raises DownloadError and ModelNotFound.
    """
    shape = read_shape(entry)
    left, made = pull.left(entry), weights(entry, shape)
    shard = max((file.size for file in entry.files), default=0)
    disk = made + (0 if layout.is_there(entry) else shard) if convert else left
    return Needs(left, made, disk, pull.free(), memory(entry, shape))


def weights(entry: PinnedModel, shape: Shape | None) -> int:
    """Bytes of the weights as they will be run, about."""
    if entry.kind == GGUF:
        return entry.size
    stored = sum(file.size for file in entry.files if file.path.endswith(_WEIGHTS))
    return int(stored * _BITS / (shape.bits if shape is not None else 16))


def memory(entry: PinnedModel, shape: Shape | None) -> MemoryPlan | None:
    """What loading it will take, at its own context length; None where its shape is not known."""
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
    """The shape of what is pinned, from here or the hub; None where nothing tells it.

    Raises DownloadError and ModelNotFound.
    """
    if entry.kind == GGUF:
        file = _remote(entry.files[0])
        head = HubClient().span(repository(entry), file, 0, min(file.size, _MAX_HEAD))
        return Shape(reader.peek(head, file.size))
    pinned = next((file for file in entry.files if file.path == _CONFIG), None)
    if pinned is None or pinned.size > _MAX_CONFIG:
        return None
    with suppress(ValueError, RecursionError):
        config = json.loads(_checked(entry, pinned))
        if isinstance(config, dict):
            keys = {f"gemma2.{key}": config.get(name) for key, name in _KEYS.items()}
            keys["tokenizer.ggml.tokens"] = config.get("vocab_size")
            return Shape(keys, 32 if config.get("torch_dtype") == "float32" else 16)
    return None


def _remote(pinned: PinnedFile) -> RemoteFile:
    return RemoteFile(pinned.path, pinned.size, pinned.digest)


def _checked(entry: PinnedModel, pinned: PinnedFile) -> bytes:
    file, here = _remote(pinned), layout.model_dir(entry) / pinned.path
    with suppress(OSError):
        data, hasher = (
            here.read_bytes() if layout.size_of(here) == file.size else b"",
            file.hasher(),
        )
        hasher.update(data)
        if hasher.hexdigest() == file.digest:
            return data
    return HubClient().small(repository(entry), file)
