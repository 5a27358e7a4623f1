"""Owns what a lock says of a model, as plain values. Knows nothing of files or of TOML."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNRESOLVED = "unresolved"
CHECKPOINT, GGUF = "checkpoint", "gguf"
KINDS = (CHECKPOINT, GGUF)
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
# A name becomes part of a file's name.
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class PinnedFile:
    """One file of a model: its path inside the model's folder, bytes, and hash.

    Of a small file git tells only the sha1 of its blob, `oid`; of the others sha256 is known.
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
    license_in_text: str | None = None
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

    def of_repository(self, repository: str) -> PinnedModel | None:
        """The entry of OWNER/NAME, a pinned one before others."""
        found = [model for model in self.models.values() if model.repository == repository]
        return min(found, key=lambda model: not model.is_pinned, default=None)
