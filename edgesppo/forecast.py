"""Owns what a model of the hub will take here, said before it is fetched: about, from its config.

The shape comes from the checkpoint's config.json, held against its pin; the weights count as what
Q4_K_M makes of them. Writes nothing to the disk.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo import place, plan, tune
from edgesppo.hub import Hub
from edgesppo.obtain import repository
from edgesppo.pinned import GGUF
from edgesppo.preflight import Summary
from edgesppo.repository import RemoteFile
from edgesppo.settings import DEFAULT_BATCH

if TYPE_CHECKING:
    from edgesppo.pinned import PinnedFile, PinnedModel
    from edgesppo.plan import Plan

_CONFIG = "config.json"
_MAX_CONFIG = 1 << 20
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


def weights(entry: PinnedModel, config: dict[str, Any] | None) -> int:
    """Bytes of the weights as they will be run, about."""
    if entry.kind == GGUF:
        return entry.size
    stored = sum(file.size for file in entry.files if file.path.endswith(_WEIGHTS))
    wide = 32 if config is not None and config.get("torch_dtype") == "float32" else 16
    return int(stored * _BITS / wide)


def memory(entry: PinnedModel, config: dict[str, Any] | None) -> Plan | None:
    """What loading it will take, at its own context length; None where its shape is not known."""
    if config is None:
        return None
    keys = {f"gemma2.{key}": config.get(name) for key, name in _KEYS.items()}
    vocabulary, n_ctx = config.get("vocab_size"), config.get("max_position_embeddings")
    sound = all(type(value) is int and 0 < value < 1 << 30 for value in keys.values())
    if not sound or type(vocabulary) is not int or type(n_ctx) is not int:
        return None
    keys["tokenizer.ggml.tokens"] = vocabulary
    size = weights(entry, config)
    return plan.plan(
        Summary(Path(entry.name), keys, 0, size, size, (), {}),
        tune.frugal(),
        n_ctx=n_ctx,
        n_seqs=1,
        n_batch=DEFAULT_BATCH,
        cache_type="f16",
    )


def read_config(entry: PinnedModel) -> dict[str, Any] | None:
    """The checkpoint's config.json, from here or the hub; None where there is none."""
    pinned = next((file for file in entry.files if file.path == _CONFIG), None)
    if entry.kind == GGUF or pinned is None or pinned.size > _MAX_CONFIG:
        return None
    data = _checked(entry, pinned)
    with suppress(ValueError, RecursionError):
        config = json.loads(data)
        return config if isinstance(config, dict) else None
    return None


def _checked(entry: PinnedModel, pinned: PinnedFile) -> bytes:
    file = RemoteFile(pinned.path, pinned.size, pinned.digest)
    here = place.folder(entry) / pinned.path
    with suppress(OSError):
        data, hasher = here.read_bytes() if place.size_of(here) == file.size else b"", file.hasher()
        hasher.update(data)
        if hasher.hexdigest() == file.digest:
            return data
    return Hub().small(repository(entry), file)
