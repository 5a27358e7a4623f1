"""Repositories of the Hugging Face hub: names, commits, file listings; parsing only, no network."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from edgesppo.errors import UsageError
from edgesppo.lockfile.entries import REPOSITORY, hasher

MAX_FILES = 10_000
_MAX_CLAIM = 200
REVISION = re.compile(r"[0-9a-f]{40}")
_HEX = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True)
class Repository:
    """A model on the hub, at one commit."""

    owner: str
    name: str
    revision: str

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True)
class Commit:
    """A commit, with the licence and base model that the hub reports for it."""

    revision: str  # 40 hex digits
    license: str | None = None
    license_link: str | None = None
    base_model: str | None = None  # OWNER/NAME


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository, with its size in bytes.

    `digest` is a SHA-256 for large files (Git LFS) and git's SHA-1 for the others. `oid` is git's
    SHA-1 of the blob; for a large file, that of the LFS pointer.
    """

    path: str
    size: int
    digest: str
    oid: str | None = None

    def hasher(self) -> Any:
        """A new hash object that yields `digest` once it has been fed the whole file."""
        return hasher(self.digest, self.size)


def parse_repository(text: str) -> Repository | None:
    """Parse OWNER/NAME@COMMIT; None if it is not a repository.

    Raises UsageError for a repository without a 40-digit commit.
    """
    found = _split(text)
    if found is None:
        return None
    owner, name, revision = found
    if revision is None or not REVISION.fullmatch(revision):
        what = "" if revision is None else f", but {revision[:80]!r} is not one"
        raise UsageError(
            f"there is no folder {text}; a repository of the hub needs a commit{what}: 40 hex"
            f" digits, as listed at {endpoint()}/{owner}/{name}/commits/main; type"
            f" {owner}/{name}@COMMIT"
        )
    return Repository(owner, name, revision)


def parse_reference(text: str) -> Repository | None:
    """Parse OWNER/NAME[@REVISION], where REVISION is a branch, tag or commit, by default main.

    None if it is not a repository. Raises UsageError for an invalid REVISION.
    """
    found = _split(text)
    if found is None:
        return None
    owner, name, revision = found
    if revision is not None and not (0 < len(revision) <= _MAX_CLAIM and revision.isprintable()):
        raise UsageError(
            f"{revision[:80]!r} is not a branch, tag or commit; type {owner}/{name} for main"
        )
    return Repository(owner, name, revision or "main")


def _split(text: str) -> tuple[str, str, str | None] | None:
    """Split into owner, name and what follows the @, if anything; None if not a repository."""
    repository, at, revision = text.partition("@")
    if not REPOSITORY.fullmatch(repository):
        return None
    owner, name = repository.split("/")
    return owner, name, revision if at else None


def endpoint() -> str:
    """The hub's address: $HF_ENDPOINT, else huggingface.co. Raises UsageError if it is invalid."""
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not is_http_url(address) or "@" in address or "?" in address or "#" in address:
        shown = address.rpartition("@")[2][:80]  # before it there may be a password
        raise UsageError(
            f"HF_ENDPOINT is {shown!r}; expected the address of a hub, such as"
            " https://huggingface.co; correct it, or unset it"
        )
    return address.rstrip("/")


def is_http_url(text: str) -> bool:
    """Whether it is a valid absolute http or https URL."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def parse_listing(data: bytes) -> dict[str, RemoteFile]:
    """Parse the hub's listing of files, by path. Raises ValueError if it is malformed."""
    try:
        entries = json.loads(data)
        if not isinstance(entries, list) or len(entries) > MAX_FILES:
            raise ValueError
        found = [_remote_file(entry) for entry in entries if entry["type"] == "file"]
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError from None
    return {file.path: file for file in found}


def parse_commit(data: bytes) -> Commit:
    """Parse what the hub reports for one revision. Raises ValueError if it is malformed."""
    try:
        answer = json.loads(data)
        revision, card = answer["sha"], answer.get("cardData")
        if not REVISION.fullmatch(revision):
            raise ValueError
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError from None
    card = card if isinstance(card, dict) else {}
    base = _claim(card, "base_model")
    named = base is not None and REPOSITORY.fullmatch(base) is not None
    return Commit(
        revision,
        _claim(card, "license"),
        _claim(card, "license_link"),
        base if named else None,
    )


def _claim(card: dict[str, Any], key: str) -> str | None:
    """A short string of the card's header; a list of one string counts as that string."""
    value = card.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    fine = isinstance(value, str) and 0 < len(value) <= _MAX_CLAIM and value.isprintable()
    return value if fine else None


def _remote_file(entry: dict[str, Any]) -> RemoteFile:
    lfs = entry.get("lfs")
    path, size = entry["path"], (lfs or entry)["size"]
    digest = lfs["oid"].removeprefix("sha256:") if lfs else entry["oid"]
    sound = isinstance(path, str) and type(size) is int and 0 <= size < 1 << 48
    if not sound or not _HEX.fullmatch(digest) or (len(digest) == 64) != bool(lfs):
        raise ValueError
    oid = entry.get("oid")
    plain = isinstance(oid, str) and len(oid) == 40 and _HEX.fullmatch(oid)
    return RemoteFile(path, size, digest, oid if plain else None)
