"""Pin a repository of the hub: resolve a branch to a commit, and record every file's size and hash.

The branch is resolved once; everything else is then read at that commit. Writes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgesppo.errors import DownloadError
from edgesppo.hub import license_claims
from edgesppo.hub.repository import REVISION, Repository
from edgesppo.lockfile.entries import (
    CHECKPOINT,
    GGUF,
    SHA256_DIGITS,
    UNKNOWN_LICENSE,
    UNRESOLVED,
    PinnedFile,
    PinnedModel,
    check_model_name,
    name_fault,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgesppo.hub.client import HubClient
    from edgesppo.hub.repository import Commit, RemoteFile

_CONFIG = "config.json"
_WEIGHTS = ".safetensors"
# The kinds of files in a checkpoint, without pickles, which can run code.
_KINDS = (".json", ".jinja", ".md", ".model", ".txt", _WEIGHTS)
_ADAPTER, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def new_entry(repository: Repository, name: str | None) -> PinnedModel:
    """Create an unpinned entry for a repository that is in no lock yet."""
    name = name or repository.name.lower()
    check_model_name(name)
    return PinnedModel(
        name=name,
        kind=CHECKPOINT,
        description=f"{repository} from the Hugging Face hub",
        repository=str(repository),
        revision=UNRESOLVED,
        license=UNKNOWN_LICENSE,
    )


def resolve(
    hub: HubClient, entry: PinnedModel, reference: str = "main", file: str | None = None
) -> PinnedModel:
    """Pin the entry to the commit that `reference` (a branch, tag or commit) is on the hub now.

    `file` chooses one GGUF file of a repository that has several. The record of converted files is
    dropped if the pinned files differ. Raises DownloadError and ModelNotFound.
    """
    assert entry.repository is not None
    owner, name = entry.repository.split("/")
    commit = hub.commit(Repository(owner, name, reference))
    if REVISION.fullmatch(reference) and commit.revision != reference:
        raise DownloadError(
            f"the hub returned the commit {commit.revision} of {entry.repository}, but {reference}"
            " was requested; check the commit"
        )
    at = Repository(owner, name, commit.revision)
    listing = hub.files(at)
    kind, paths = _choose(listing, entry, file)
    known = {file.path: file for file in entry.files}
    files = tuple(_pin(listing[path], known.get(path)) for path in sorted(paths))
    same = (entry.revision, entry.files) == (commit.revision, files)
    return replace(
        _with_base_model(entry, commit),
        **license_claims.read(hub, at, listing, commit, entry.license),
        kind=kind,
        revision=commit.revision,
        files=files,
        builds=entry.builds if same else (),
    )


def _with_base_model(entry: PinnedModel, commit: Commit) -> PinnedModel:
    """The entry, with the base model that the hub reports if it had none."""
    base = commit.base_model if entry.base_model is None else None
    return replace(
        entry,
        base_model=base or entry.base_model,
        base_revision=UNRESOLVED if base else entry.base_revision,
    )


def _choose(
    listing: Collection[str], entry: PinnedModel, file: str | None
) -> tuple[str, list[str]]:
    """Decide whether this is a checkpoint or a GGUF file, and which paths belong to it."""
    known = file or (entry.files[0].path if entry.kind == GGUF and entry.files else None)
    if known is not None:
        if known not in listing or not known.endswith(".gguf"):
            raise DownloadError(f"{entry.repository} has no GGUF file {known!r}; check its name")
        return GGUF, [known]
    if _CONFIG in listing and any(_holds_weights(path) for path in listing):
        return CHECKPOINT, [path for path in listing if _belongs_to_checkpoint(path)]
    found = sorted(path for path in listing if path.endswith(".gguf") and _is_plain(path))
    if len(found) == 1:
        return GGUF, found
    if found:
        raise DownloadError(
            f"{entry.repository} has {len(found)} GGUF files; choose one with --file:"
            f" {', '.join(found)}"
        )
    raise _no_model(entry, listing)


def _no_model(entry: PinnedModel, listing: Collection[str]) -> DownloadError:
    """The error for a repository without a model: what it has, and what to do."""
    if _ADAPTER in listing:
        return DownloadError(
            f"{entry.repository} is an adapter (LoRA), not a model; download its files, and merge"
            " it into its base model: edgesppo pull BASE --convert --adapter DIR"
        )
    if any(path.endswith(_PICKLES) for path in listing):
        return DownloadError(
            f"{entry.repository} has its weights only as a pickle, which can run code when it is"
            " read; expected safetensors or a GGUF file"
        )
    return DownloadError(
        f"{entry.repository} has neither {_CONFIG} with safetensors nor a GGUF file; is it a model?"
    )


def _holds_weights(path: str) -> bool:
    return path.endswith(_WEIGHTS) and path != _ADAPTER_WEIGHTS


def _belongs_to_checkpoint(path: str) -> bool:
    return _is_plain(path) and (path.endswith(_KINDS) or path.startswith(("LICENSE", "NOTICE")))


def _is_plain(path: str) -> bool:
    """Whether the path is a valid, visible file name at the top level of the repository."""
    return name_fault(path) is None and not path.startswith(".")


def _pin(file: RemoteFile, known: PinnedFile | None) -> PinnedFile:
    """Pin a file: with every hash that the hub reports, and the sha256 known for the same bytes."""
    if len(file.digest) == SHA256_DIGITS:
        return PinnedFile(file.path, file.size, file.digest, file.oid)
    same = known is not None and (known.size, known.oid) == (file.size, file.digest)
    return PinnedFile(file.path, file.size, known.sha256 if known and same else None, file.digest)
