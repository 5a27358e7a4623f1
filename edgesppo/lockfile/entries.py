"""Owns what a lock says of a model, as plain values. Knows nothing of files or of TOML."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from edgesppo.errors import UsageError
from edgesppo.system.paths import portable_name_fault

UNRESOLVED = "unresolved"
CHECKPOINT, GGUF = "checkpoint", "gguf"
KINDS = (CHECKPOINT, GGUF)
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
# Where a licence may be read: shown to a person, who may click on it.
_LINK = re.compile(r"https://[a-z0-9.-]+(?::\d+)?(?:/[\w./?=&%#:+,;@!$*()~-]*)?", re.A | re.I)
_MAX_LINK = 500
SHA256_DIGITS = 64
# A name becomes part of a file's name.
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


def name_fault(name: str) -> str | None:
    """Why no file of a model can have this name, beside our own; None where one can."""
    if name.lower().endswith(".part"):
        return "is what we call a file on its way"
    return portable_name_fault(name)


def check_chosen(name: str) -> None:
    """Refuse what a person cannot call a model. Raises UsageError."""
    if not NAME.fullmatch(name):
        raise UsageError(f"the name is {name!r}, expected letters, digits, '.-_', 64 at most")
    if fault := name_fault(name):
        raise UsageError(f"the name {name!r} {fault}; choose another")


def is_link(text: str) -> bool:
    """Whether it is a plain https address; many cards give a file's name there, or a sentence."""
    return len(text) <= _MAX_LINK and bool(_LINK.fullmatch(text))


def same_name(path: str) -> str:
    """What is equal for paths that some file system takes for the same."""
    return unicodedata.normalize("NFC", path).casefold()


def hasher(digest: str, size: int) -> Any:
    """A hash that gives `digest` once it has been fed a file of `size` bytes.

    64 hex digits are sha256, 40 are git's.
    """
    return hashlib.sha256() if len(digest) == SHA256_DIGITS else git_blob(size)


def git_blob(size: int) -> Any:
    """The hash that git names a file of `size` bytes by: sha1 of "blob SIZE", a NUL, the file."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


@dataclass(frozen=True)
class PinnedFile:
    """One file of a model: its path inside the model's folder, bytes, and hash.

    `oid` is git's name of its blob, the sha1 that a small file is held against until it was here
    once; of a large file it is the name of a pointer. What is no repository's has none.
    """

    path: str
    size: int
    sha256: str | None
    oid: str | None = None

    @property
    def digest(self) -> str:
        """The hash that the file is held against: 64 hex digits of sha256, or 40 of git's sha1."""
        digest = self.sha256 or self.oid
        assert digest is not None
        return digest

    def hasher(self) -> Any:
        """A hash that gives `digest` once it has been fed the whole file."""
        return hasher(self.digest, self.size)


@dataclass(frozen=True, kw_only=True)
class PinnedBuild:
    """A GGUF file made of a checkpoint: by what, on what kind of machine, and its hash."""

    recipe: str  # such as "q4_k_m"
    platform: str  # such as "linux-x86_64": rounding differs from one to the next
    converter: str
    library: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PinnedModel:
    """One entry of a lock; the fields are the keys, in the order they are written."""

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
    files: tuple[PinnedFile, ...] = ()
    builds: tuple[PinnedBuild, ...] = ()

    @property
    def is_pinned(self) -> bool:
        """Whether its files are known."""
        return self.revision != UNRESOLVED

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def build(self, recipe: str, platform: str) -> PinnedBuild | None:
        """The file made by this recipe on machines of this kind."""
        found = (b for b in self.builds if (b.recipe, b.platform) == (recipe, platform))
        return next(found, None)


@dataclass(frozen=True)
class Lock:
    """A whole lock: its models by name."""

    models: dict[str, PinnedModel]

    def taken(self, name: str) -> PinnedModel | None:
        """The entry of this name, or of one that some file system takes for the same."""
        same = (m for m in self.models.values() if same_name(m.name) == same_name(name))
        return self.models.get(name) or next(same, None)

    def of_repository(self, repository: str) -> PinnedModel | None:
        """The entry of OWNER/NAME, a pinned one before others."""
        found = [model for model in self.models.values() if model.repository == repository]
        return min(found, key=lambda model: not model.is_pinned, default=None)
