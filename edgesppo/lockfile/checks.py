"""Owns the checks of a lock's single values; each refusal names the place.

Knows nothing of where a lock is, nor of what its values are for.
"""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadLock
from edgesppo.lockfile.entries import (
    NAME,
    REPOSITORY,
    UNRESOLVED,
    PinnedBuild,
    PinnedFile,
    is_link,
    name_fault,
    same_name,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_HASHES = {
    "sha256": (re.compile(r"[0-9a-f]{64}"), "64 lower-case hex digits"),
    "oid": (re.compile(r"[0-9a-f]{40}"), "40 lower-case hex digits"),
}
_REVISION = re.compile(rf"[0-9a-f]{{40}}|{UNRESOLVED}")
FILE_KEYS = tuple(field.name for field in fields(PinnedFile))
BUILD_KEYS = tuple(field.name for field in fields(PinnedBuild))


def read_file(entry: dict[str, Any], where: str) -> PinnedFile:
    """One `[[model.file]]`."""
    only(FILE_KEYS, entry, where)
    hashes = {key: _hash(entry, key, where) for key in _HASHES if key in entry}
    if not hashes:
        raise BadLock(f"{where}: sha256 is None, expected {_HASHES['sha256'][1]}, or else oid")
    path = relative(text(entry, "path", where), where)
    return PinnedFile(path, _size(entry, where), hashes.get("sha256"), hashes.get("oid"))


def read_build(entry: dict[str, Any], where: str) -> PinnedBuild:
    """One `[[model.build]]`."""
    only(BUILD_KEYS, entry, where)
    texts = {key: text(entry, key, where) for key in BUILD_KEYS if key not in ("size", "sha256")}
    for key in ("recipe", "platform"):
        if not NAME.fullmatch(texts[key]):
            raise BadLock(f"{where}: {key} is {texts[key]!r}, expected letters, digits, '.-_'")
    return PinnedBuild(**texts, size=_size(entry, where), sha256=_hash(entry, "sha256", where))


def _size(entry: dict[str, Any], where: str) -> int:
    size = entry.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 63:
        raise BadLock(f"{where}: size is {size!r}, expected a number of bytes")
    return size


def _hash(entry: dict[str, Any], key: str, where: str) -> str:
    form, expected = _HASHES[key]
    value: str = text(entry, key, where)
    if not form.fullmatch(value):
        raise BadLock(f"{where}: {key} is {value!r}, expected {expected}")
    return value


def only(known: Collection[str], table: dict[str, Any], where: str) -> None:
    """Refuse keys that nobody knows."""
    for key in table:
        if key not in known:
            raise BadLock(f"{where}: unknown key {key!r}; known: {', '.join(sorted(known))}")


def tables(table: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """All tables of this name; at least one."""
    value = table.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
        raise BadLock(f"{where}: expected at least one [[{key}]] table")
    return value


def text(table: dict[str, Any], key: str, where: str) -> Any:
    """A text; for `iteration`, a number."""
    value = table.get(key)
    kind, expected = (int, "a number") if key == "iteration" else (str, "a text")
    if type(value) is not kind or not value:
        raise BadLock(f"{where}: {key} is {value!r}, expected {expected}")
    return value


def relative(text: str, where: str) -> str:
    """A path that stays in its folder, on every system."""
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or ":" in text:
        raise BadLock(f"{where}: the path {text!r} leaves its folder")
    if str(path) != text or text == ".":
        raise BadLock(f"{where}: the path {text!r} is not written as one is")
    for part in path.parts:
        check_name(part, f"{where}: the path {text!r}")
    return text


def check_name(name: str, what: str) -> None:
    """Refuse what cannot be a file's name on every system."""
    fault = name_fault(name)
    if fault is not None:
        raise BadLock(f"{what}: the name {name!r} {fault}")


def check_differing(paths: Sequence[str], where: str) -> None:
    """Refuse two paths that are the same file on some system, or of which one is inside another."""
    seen: dict[str, str] = {}
    for path in paths:
        same = same_name(path)
        if same in seen:
            also = "" if seen[same] == path else f", also as {seen[same]!r}"
            raise BadLock(f"{where}: the path {path!r} stands twice{also}")
        seen[same] = path
    for same, path in seen.items():
        above = next((str(p) for p in PurePosixPath(same).parents if str(p) in seen), None)
        if above is not None:
            raise BadLock(f"{where}: the path {path!r} is inside of the file {seen[above]!r}")


def check_location(text: str, where: str) -> None:
    """Refuse what is no folder's whole path in this system's own form.

    A share is refused everywhere: to look for it would send a person's name and password to a
    host of the lock's choice. A device is no folder, and what holds ".." is not what it seems.
    """
    windows = PureWindowsPath(text)
    if len(text) > 1 and set(text[:2]) <= set("/\\"):
        raise BadLock(
            f"{where}: location is {text!r}, a share or a device; expected a folder of this machine"
        )
    if ".." in windows.parts:
        raise BadLock(f"{where}: location is {text!r}, expected no '..' in it")
    whole = (windows if os.name == "nt" else PurePosixPath(text)).is_absolute()
    if not whole or "\0" in text:
        raise BadLock(f"{where}: location is {text!r}, expected a folder's whole path")


def check_claims(values: dict[str, Any], where: str) -> None:
    """Refuse a round that is none, and a link that nobody should click on."""
    iteration, link = values.get("iteration"), values.get("license_link")
    if iteration is not None and iteration < 1:
        raise BadLock(f"{where}: iteration is {iteration}, expected 1 or more")
    if link is not None and not is_link(link):
        raise BadLock(f"{where}: license_link is {link!r}, expected a plain https address")


def check_builds(builds: Sequence[PinnedBuild], where: str) -> None:
    """Refuse two files for one recipe and platform: which would be it?"""
    seen: set[tuple[str, str]] = set()
    for build in builds:
        key = same_name(build.recipe), same_name(build.platform)
        if key in seen:
            raise BadLock(f"{where}: the build {build.recipe} for {build.platform} stands twice")
        seen.add(key)


def check_repository(values: dict[str, Any], key: str, revision_key: str, where: str) -> None:
    """OWNER/NAME and its commit: both or neither."""
    repository, revision = values.get(key), values.get(revision_key)
    if repository is not None and not REPOSITORY.fullmatch(repository):
        raise BadLock(f"{where}: {key} is {repository!r}, expected OWNER/NAME")
    if repository is not None:
        check_name(repository.replace("/", "--"), f"{where}: {key} is {repository!r}")
    if (repository is None) != (revision is None):
        raise BadLock(f"{where}: expected {key} and {revision_key} together")
    if revision is not None and not _REVISION.fullmatch(revision):
        raise BadLock(
            f"{where}: {revision_key} is {revision!r}, expected 40 hex digits or {UNRESOLVED!r};"
            " a branch is no pin"
        )
