"""What a model of the hub needs of the disk and of memory, before it is downloaded.

Computed from a checkpoint's config.json, verified against its pin, or from the first 64 kB of a
GGUF file. Both may be read before the licence is accepted: they describe the model, as the hub's
public pages do, and hold no weights. Writes nothing to the disk.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint
from edgesppo.gguf import gemma2, reader
from edgesppo.gguf.gemma2 import Summary
from edgesppo.hub.client import HubClient
from edgesppo.hub.repository import RemoteFile
from edgesppo.lockfile.entries import GGUF
from edgesppo.planning import memory_plan, run_config
from edgesppo.planning.run_config import DEFAULT_BATCH
from edgesppo.store import layout, pull
from edgesppo.store.expected import converted_file, most_disk
from edgesppo.store.pull import repository

if TYPE_CHECKING:
    from edgesppo.lockfile.entries import PinnedFile, PinnedModel
    from edgesppo.planning.memory_plan import MemoryPlan

_CONFIG = "config.json"
_MAX_HEAD = 1 << 16  # bytes: Gemma-2's hyper-parameters precede its vocabulary


@dataclass(frozen=True)
class Needs:
    """What downloading and running a model needs; all sizes in bytes."""

    to_fetch: int  # still to be downloaded
    file: int  # the file that will be run
    disk: int  # at most, while downloading and converting
    free: int | None  # on the store's disk; None if unknown
    memory: MemoryPlan | None  # None if the hyper-parameters are unknown


def needs(entry: PinnedModel, *, convert: bool) -> Needs:
    """Compute what a pinned model needs; with `convert`, when converted shard by shard.

    Raises DownloadError and ModelNotFound, and what the converter raises for a config.json of
    another model.
    """
    summary, to_fetch = _read_summary(entry), pull.bytes_to_fetch(entry)
    disk = most_disk(entry, summary.file_bytes) if convert else to_fetch
    return Needs(to_fetch, summary.file_bytes, disk, pull.free_bytes(), _memory(summary))


def _memory(summary: Summary) -> MemoryPlan | None:
    """Memory needed at the model's own context length; None if its shape is unknown."""
    keys = summary.keys
    n_ctx = keys.get("gemma2.context_length")
    faults = (gemma2.check_number(name, keys.get(f"gemma2.{name}")) for name in gemma2.NUMBERS)
    if any(faults) or type(n_ctx) is not int or "tokenizer.ggml.tokens" not in keys:
        return None
    return memory_plan.plan_memory(
        summary,
        run_config.low_memory_config(),
        n_ctx=n_ctx,
        n_seqs=1,
        n_batch=DEFAULT_BATCH,
        cache_type="f16",
    )


def _read_summary(entry: PinnedModel) -> Summary:
    """The header of the file that will be run, from the store or the hub, as far as it is known."""
    if entry.kind == GGUF:
        file = _remote(entry.files[0])
        head = HubClient().read_range(repository(entry), file, 0, min(file.size, _MAX_HEAD))
        keys = reader.peek(head, file.size)
        return Summary(Path(entry.name), keys, 0, file.size, file.size, (), {})
    from edgesppo_convert.gemma2.architecture import read_hparams
    from edgesppo_convert.source.json_reader import MAX_JSON, parse_json

    where = f"{_CONFIG} of {entry.repository}"
    pinned = next((file for file in entry.files if file.path == _CONFIG), None)
    if pinned is None or pinned.size > MAX_JSON:
        has = "is missing" if pinned is None else f"has {pinned.size:,} bytes"
        raise BadCheckpoint(f"{where} {has}, expected one of at most {MAX_JSON:,} bytes")
    config = parse_json(_read_verified(entry, pinned), where)
    return converted_file(entry.name, read_hparams(config))


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
