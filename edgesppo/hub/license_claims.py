"""The licence that a repository claims, and whether the user must be asked to accept it.

A repository can claim a licence in three places:

    header    `license`, `license_name` and `license_link` of README.md, else of the hub's metadata
    text      the line "License: ..." of README.md
    file      LICENSE: the licence whose text it holds, else its first line
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from edgesppo.errors import DownloadError
from edgesppo.hub.model_card import parse_card
from edgesppo.lockfile.entries import UNKNOWN_LICENSE, is_link
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgesppo.hub.client import HubClient
    from edgesppo.hub.repository import Commit, RemoteFile, Repository
    from edgesppo.lockfile.entries import PinnedModel

_CARD, _MAX_BYTES = "README.md", 1 << 20
_FILE = re.compile(r"(licen[cs]e|copying)(\.(txt|md))?", re.IGNORECASE)
_REFUSED = (401, 403)
_SHOWN = 80
# Licences that need no acceptance.
_FREE = frozenset(
    ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "unlicense")
)
_OTHER = "other"
# How a licence's text begins, its name, and its maximum length: a longer file has added clauses.
_TEXTS = (
    (r"gemma terms of use\b", "gemma", 40_000),
    (r"apache license version 2\.0\b", "apache-2.0", 12_500),
    (r"(the )?mit license\b.*permission is hereby granted, free of charge", "mit", 1_300),
    (r"gnu affero general public license version 3\b", "agpl-3.0", 40_000),
    (r"gnu general public license version ([23])\b", r"gpl-\1.0", 40_000),
    (r"(creative commons )?attribution 4\.0 international\b", "cc-by-4.0", 22_000),
    (r"(creative commons )?cc0 1\.0 universal\b", "cc0-1.0", 8_000),
)
_HEAD = 1_300


def read(
    hub: HubClient, at: Repository, listing: Mapping[str, RemoteFile], commit: Commit, known: str
) -> dict[str, Any]:
    """Read the repository's licence claims, as fields of a lock entry.

    A field that the repository does not claim is left out, so that the entry keeps its value.
    `known` is the licence in the entry so far. Raises DownloadError and ModelNotFound.
    """
    named = sorted(path for path in listing if _FILE.fullmatch(path))
    text = _read(hub, at, listing.get(_CARD))
    card = parse_card(text or "")
    link = card.license_link or commit.license_link
    found: dict[str, Any] = {
        "license": card.license or commit.license,
        "license_link": link if link is not None and is_link(link) else None,
        "license_in_text": card.license_in_text,
    }
    found = {key: value for key, value in found.items() if value is not None}
    if card.license is not None:
        found["license_name"] = card.license_name
    if found.get("license", known) != known:
        found.setdefault("license_link")  # the known link belongs to another licence
    file = listing[named[0]] if named else None
    words = _read(hub, at, file)
    if file is None or words is not None:
        found["license_in_file"] = None if words is None else recognise(words)
        found["license_digest"] = None if file is None else file.digest
    return found


def _read(hub: HubClient, at: Repository, file: RemoteFile | None) -> str | None:
    if file is None or file.size > _MAX_BYTES:
        return None
    try:
        return hub.read_verified(at, file).decode("utf-8-sig", "replace")
    except DownloadError as error:
        if error.status in _REFUSED:  # gated: only the listing is public, so keep what is known
            return None
        raise


def recognise(text: str) -> str | None:
    """Name the licence that this text is, else quote its first line; None for an empty text."""
    words = " ".join(text.split())
    for begins, name, limit in _TEXTS:
        found = re.match(r"\W*" + begins, words[:_HEAD], re.IGNORECASE)
        if found and len(words) <= limit:
            return found.expand(name)
    first = next((line for line in text.splitlines() if line.strip("#*= \t-")), "")
    return f'begins "{one_line(first, _SHOWN)}"' if first else None


def is_free(entry: PinnedModel) -> bool:
    """Whether every claimed licence is one that needs no acceptance."""
    return {_normal(claim) for claim in _claims(entry)} <= _FREE


def agree(entry: PinnedModel) -> bool:
    """Whether all claims name the same licence."""
    return len({_normal(claim) for claim in _claims(entry)}) <= 1


def terms_digest(entry: PinnedModel) -> str:
    """SHA-256 of all claims and of the licence file: identifies the terms that a user accepts."""
    said = (entry.license, entry.license_name, entry.license_link, entry.license_in_text)
    all_of_it = json.dumps([*said, entry.license_in_file, entry.license_digest])
    return hashlib.sha256(all_of_it.encode()).hexdigest()


def title(entry: PinnedModel) -> str:
    """The licence that the header claims, on one line."""
    name = f" ({one_line(entry.license_name)})" if entry.license_name else ""
    return one_line(entry.license) + name


def line(entry: PinnedModel) -> str:
    """All claims and where they are made, on one line."""
    said = title(entry)
    if entry.license_link:
        said += f", {one_line(entry.license_link)}"
    if entry.license_in_text:
        said += f"; the card's text says {one_line(entry.license_in_text)}"
    if entry.license_in_file:
        said += f"; its licence file says {one_line(entry.license_in_file)}"
    return said if agree(entry) else f"{said}: follow the stricter"


def _claims(entry: PinnedModel) -> list[str]:
    """Every claimed licence; of a header that says "other", the `license_name` if it has one."""
    header = entry.license_name if entry.license == _OTHER else None
    found = (header or entry.license, entry.license_in_text, entry.license_in_file)
    claims = [claim for claim in found if claim is not None and claim != UNKNOWN_LICENSE]
    return claims or [_OTHER]


def _normal(claim: str) -> str:
    """Normalise the spelling of a licence: "Apache License 2.0" becomes "apache-2.0"."""
    plain = re.sub(r"[\s_-]+", "-", claim.strip().lower())
    plain = re.sub(r"(^the-|-?licen[cs]e|-?version|-?terms(-of-use)?)(?=-|$)", "", plain)
    return {"apache-2": "apache-2.0"}.get(plain.strip("-,"), plain.strip("-,"))
