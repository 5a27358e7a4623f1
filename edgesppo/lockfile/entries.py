"""The entries of a lock as plain values: models, their files, and the builds made of them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.errors import UsageError
from edgesppo.system.paths import portable_name_fault
from edgesppo.system.suggest import SIMILAR, SOMEWHAT_SIMILAR, did_you_mean, nearest

if TYPE_CHECKING:
    from edgesppo.lockfile.published import Citation, Result, Shape, Training

UNRESOLVED = "unresolved"
UNKNOWN_LICENSE = "unknown"
CHECKPOINT, GGUF = "checkpoint", "gguf"
KINDS = (CHECKPOINT, GGUF)
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
# The address of a licence, which is shown to people who may click on it.
_LINK = re.compile(r"https://[a-z0-9.-]+(?::\d+)?(?:/[\w./?=&%#:+,;@!$*()~-]*)?", re.A | re.I)
_MAX_LINK = 500
SHA256_DIGITS = 64
# The name of a model, which becomes part of file names.
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


def name_fault(name: str) -> str | None:
    """Why a model's file cannot have this name, as "has ..."; None if it can."""
    if name.lower().endswith(".part"):
        return "ends in .part, which is reserved for downloads in progress"
    return portable_name_fault(name)


def check_model_name(name: str) -> None:
    """Raise UsageError for a name that a model cannot be given."""
    if not NAME.fullmatch(name):
        raise UsageError(f"the name is {name!r}, expected letters, digits, '.-_', 64 at most")
    if fault := name_fault(name):
        raise UsageError(f"the name {name!r} {fault}; choose another")


def is_link(text: str) -> bool:
    """Whether it is a plain https address; many cards have a file name or a sentence there."""
    return len(text) <= _MAX_LINK and bool(_LINK.fullmatch(text))


def same_name(path: str) -> str:
    """A form of a path that is equal for all paths that some file system considers the same."""
    return unicodedata.normalize("NFC", path).casefold()


def hasher(digest: str, size: int) -> Any:
    """A new hash object of the kind of `digest`, for a file of `size` bytes.

    A digest of 64 hex digits is sha256, one of 40 is git's sha1.
    """
    return hashlib.sha256() if len(digest) == SHA256_DIGITS else git_blob(size)


def git_blob(size: int) -> Any:
    """A hash object for git's blob id of `size` bytes: sha1 of "blob SIZE", a NUL, and the file."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


@dataclass(frozen=True)
class PinnedFile:
    """One file of a model: its path inside the model's folder, bytes, and hash.

    `oid` is git's blob id: of a small file, which is verified against it until its sha256 is known,
    or of a large file's LFS pointer. A file that is not from a repository has none.
    """

    path: str
    size: int
    sha256: str | None
    oid: str | None = None

    @property
    def digest(self) -> str:
        """The hash to verify the file against: 64 hex digits of sha256, or 40 of git's sha1."""
        digest = self.sha256 or self.oid
        assert digest is not None
        return digest

    def hasher(self) -> Any:
        """A new hash object that yields `digest` after the whole file."""
        return hasher(self.digest, self.size)


@dataclass(frozen=True, kw_only=True)
class PinnedBuild:
    """A GGUF file made from a checkpoint: how, on what kind of machine, its size and hash."""

    recipe: str  # such as "q4_k_m"
    platform: str  # such as "linux-x86_64": rounding differs between platforms
    converter: str
    library: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PinnedModel:
    """One entry of a lock; the fields are the keys of the file, in the order of writing."""

    name: str
    kind: str
    description: str
    shipped: str | None = None
    location: str | None = None
    repository: str | None = None
    revision: str | None = None
    license: str
    license_name: str | None = None
    license_in_text: str | None = None
    license_in_file: str | None = None
    license_digest: str | None = None
    license_link: str | None = None
    base_model: str | None = None
    base_revision: str | None = None
    method: str | None = None
    iteration: int | None = None
    dataset: str | None = None
    paper: str | None = None
    shape: Shape | None = None
    training: Training | None = None
    results: tuple[Result, ...] = ()
    citation: Citation | None = None
    files: tuple[PinnedFile, ...] = ()
    builds: tuple[PinnedBuild, ...] = ()

    @property
    def is_pinned(self) -> bool:
        """Whether its revision, and so the list of its files, is known."""
        return self.revision != UNRESOLVED

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(file.size for file in self.files)

    def is_of(self, repository: str) -> bool:
        """Whether it is of the repository OWNER/NAME, whose case does not count on the hub."""
        return self.repository is not None and self.repository.lower() == repository.lower()


def name_is_taken(entry: PinnedModel, choose: str) -> UsageError:
    """The error for a new entry's name that `entry` has; `choose` says how to give another."""
    location = entry.location
    if location is not None and entry.kind == GGUF:
        location = str(Path(location) / entry.files[0].path)
    whose = location or entry.repository or "what comes with edgesppo"
    return UsageError(f"the name {entry.name} is taken by {whose}; choose another: {choose}")


@dataclass(frozen=True)
class Lock:
    """The contents of a lock: its models by name."""

    models: dict[str, PinnedModel]

    def same_named(self, name: str) -> PinnedModel | None:
        """The entry of this name, or of one that some file system considers equal; else None."""
        same = (m for m in self.models.values() if same_name(m.name) == same_name(name))
        return self.models.get(name) or next(same, None)

    def of_repository(self, repository: str) -> PinnedModel | None:
        """The entry of a repository OWNER/NAME, preferably a pinned one; None if there is none."""
        matching = [model for model in self.models.values() if model.is_of(repository)]
        return min(matching, key=lambda model: not model.is_pinned, default=None)

    def nearest(self, name: str, similarity: float = SIMILAR) -> str | None:
        """The name in the lock that is most similar; a repository's name stands for its entry's."""
        entries = [m for m in self.models.values() if m.repository]
        known = {str(m.repository).partition("/")[2]: m.name for m in reversed(entries)}
        known |= {its_name: its_name for its_name in self.models}
        near = nearest(name, known, similarity)
        return None if near is None else known[near]

    def did_you_mean(self, name: str) -> str:
        """The text " (did you mean ...?)" for a mistyped name or OWNER/NAME, or an empty text."""
        if "/" in name:
            repositories = [model.repository for model in self.models.values() if model.repository]
            return did_you_mean(name, repositories)
        near = self.nearest(name, SOMEWHAT_SIMILAR)
        return f" (did you mean {near}?)" if near else ""
