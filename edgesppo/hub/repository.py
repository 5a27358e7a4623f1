"""Owns what a repository of the Hugging Face hub is: a name at a commit, and its files' hashes.

Pure: knows nothing of connections.
"""

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
    """What a name in a repository stood for when it was asked; its card's claim of a licence."""

    revision: str  # 40 hex digits
    license: str | None = None
    license_link: str | None = None
    base_model: str | None = None  # OWNER/NAME


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository: large ones have a sha256, the others git's sha1.

    `oid` is git's name of its blob; that of a large file is the name of a pointer to it.
    """

    path: str
    size: int
    digest: str
    oid: str | None = None

    def hasher(self) -> Any:
        """A hash that gives `digest` once it has been fed the whole file."""
        return hasher(self.digest, self.size)


def parse_repository(text: str) -> Repository | None:
    """OWNER/NAME@REVISION; None for what is no repository. Raises UsageError without a commit."""
    found = _split(text)
    if found is None:
        return None
    owner, name, revision = found
    if revision is None or not REVISION.fullmatch(revision):
        what = "needs the commit" if revision is None else f"names {revision[:80]!r}, no commit"
        raise UsageError(
            f"there is no folder {text}; as a repository of the hub it {what}: 40 hex digits, as"
            f" listed at {endpoint()}/{owner}/{name}/commits/main; type {owner}/{name}@COMMIT"
        )
    return Repository(owner, name, revision)


def parse_reference(text: str) -> Repository | None:
    """OWNER/NAME, or OWNER/NAME@REVISION with a branch, a tag or a commit; main without one."""
    found = _split(text)
    if found is None:
        return None
    owner, name, revision = found
    if revision is not None and not (0 < len(revision) <= _MAX_CLAIM and revision.isprintable()):
        raise UsageError(f"{revision[:80]!r} is no branch, tag or commit; type {owner}/{name}")
    return Repository(owner, name, revision or "main")


def _split(text: str) -> tuple[str, str, str | None] | None:
    """OWNER, NAME and what follows the @, if anything; None for what is no repository."""
    repository, at, revision = text.partition("@")
    if not REPOSITORY.fullmatch(repository):
        return None
    owner, name = repository.split("/")
    return owner, name, revision if at else None


def endpoint() -> str:
    """Where the hub is: $HF_ENDPOINT, else huggingface.co. Raises UsageError for no address."""
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not is_address(address) or "@" in address or "?" in address or "#" in address:
        shown = address.rpartition("@")[2][:80]  # before it there may be a password
        raise UsageError(
            f"HF_ENDPOINT is {shown!r}; expected the address of a hub, such as"
            " https://huggingface.co; set it right, or unset it"
        )
    return address.rstrip("/")


def is_address(text: str) -> bool:
    """Whether it is an absolute http or https address, fit to be asked for."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def parse_listing(data: bytes) -> dict[str, RemoteFile]:
    """The files that the hub lists, by path; ValueError for what is no such list."""
    try:
        entries = json.loads(data)
        if not isinstance(entries, list) or len(entries) > MAX_FILES:
            raise ValueError
        found = [_remote_file(entry) for entry in entries if entry["type"] == "file"]
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError from None
    return {file.path: file for file in found}


def parse_commit(data: bytes) -> Commit:
    """What the hub says of one revision; ValueError for what is no such answer."""
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
    """A short text of the card; a list of one counts as its text."""
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
