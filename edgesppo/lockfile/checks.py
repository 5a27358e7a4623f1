"""Check single values of a lock. Each BadLock names the file and entry by the argument `where`."""

from __future__ import annotations

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
from edgesppo.system.validate import quoted

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
    """The values of a `[[model.file]]` table."""
    check_keys(FILE_KEYS, entry, where)
    hashes = {key: _hash(entry, key, where) for key in _HASHES if key in entry}
    if not hashes:
        raise BadLock(
            f"{where}: sha256 is None, expected {_HASHES['sha256'][1]}, or an oid instead"
        )
    path = relative_path(required_value(entry, "path", where), where)
    return PinnedFile(path, _size(entry, where), hashes.get("sha256"), hashes.get("oid"))


def read_build(entry: dict[str, Any], where: str) -> PinnedBuild:
    """The values of a `[[model.build]]` table."""
    check_keys(BUILD_KEYS, entry, where)
    texts = {
        key: required_value(entry, key, where)
        for key in BUILD_KEYS
        if key not in ("size", "sha256")
    }
    for key in ("recipe", "platform"):
        if not NAME.fullmatch(texts[key]):
            raise BadLock(
                f"{where}: {key} is {quoted(texts[key])}, expected letters, digits, '.-_'"
            )
    return PinnedBuild(**texts, size=_size(entry, where), sha256=_hash(entry, "sha256", where))


def _size(entry: dict[str, Any], where: str) -> int:
    size = entry.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 63:
        raise BadLock(f"{where}: size is {quoted(size)}, expected a number of bytes")
    return size


def _hash(entry: dict[str, Any], key: str, where: str) -> str:
    form, expected = _HASHES[key]
    value: str = required_value(entry, key, where)
    if not form.fullmatch(value):
        raise BadLock(f"{where}: {key} is {quoted(value)}, expected {expected}")
    return value


def check_keys(known: Collection[str], table: dict[str, Any], where: str) -> None:
    """Raise BadLock for unknown keys."""
    for key in table:
        if key not in known:
            raise BadLock(f"{where}: unknown key {quoted(key)}; known: {', '.join(sorted(known))}")


def required_tables(table: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """The tables `[[key]]`. Raises BadLock where there is none."""
    value = table.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
        raise BadLock(f"{where}: expected at least one [[{key}]] table")
    return value


def required_value(table: dict[str, Any], key: str, where: str) -> Any:
    """The value of a key: a string, or a number for `iteration`. Raises BadLock."""
    value = table.get(key)
    kind, expected = (int, "a number") if key == "iteration" else (str, "a string")
    if type(value) is not kind or not value:
        raise BadLock(f"{where}: {key} is {quoted(value)}, expected {expected}")
    return value


def relative_path(text: str, where: str) -> str:
    """The path again. Raises BadLock unless it stays in its folder on every system."""
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or ":" in text:
        raise BadLock(f"{where}: the path {quoted(text)} leaves the folder of its model")
    if str(path) != text or text == ".":
        raise BadLock(
            f"{where}: the path {quoted(text)} is not in its simplest form, such as a/b.json"
        )
    for part in path.parts:
        check_name(part, f"{where}: the path {quoted(text)}")
    return text


def check_name(name: str, what: str) -> None:
    """Raise BadLock for a name that a file cannot have on every system."""
    fault = name_fault(name)
    if fault is not None:
        raise BadLock(f"{what}: the name {quoted(name)} {fault}")


def check_distinct_paths(paths: Sequence[str], where: str) -> None:
    """Raise BadLock for paths that name one file on some system, or a file inside another file."""
    seen: dict[str, str] = {}
    for path in paths:
        same = same_name(path)
        if same in seen:
            also = "" if seen[same] == path else f", also as {quoted(seen[same])}"
            raise BadLock(f"{where}: the path {quoted(path)} occurs twice{also}")
        seen[same] = path
    for same, path in seen.items():
        above = next((str(p) for p in PurePosixPath(same).parents if str(p) in seen), None)
        if above is not None:
            raise BadLock(
                f"{where}: the path {quoted(path)} is inside the file {quoted(seen[above])}"
            )


def check_location(text: str, where: str) -> None:
    """Raise BadLock unless it is the absolute path of a local folder, in any system's form.

    A lock may be shared by several systems: where the form is another's, the folder is missing.
    Network shares are refused on every system: accessing one would send the user's name and
    password to a host that the lock chooses. So are devices, and paths with "..", which may not
    lead where they seem to.
    """
    windows = PureWindowsPath(text)
    if len(text) > 1 and set(text[:2]) <= set("/\\"):
        raise BadLock(
            f"{where}: location is {quoted(text)}, a network share or a device; expected a local"
            " folder"
        )
    if ".." in windows.parts:
        raise BadLock(f"{where}: location is {quoted(text)}, expected no '..' in it")
    is_absolute = windows.is_absolute() or PurePosixPath(text).is_absolute()
    if not is_absolute or "\0" in text:
        raise BadLock(
            f"{where}: location is {quoted(text)}, expected the absolute path of a folder"
        )


def check_claims(values: dict[str, Any], where: str) -> None:
    """Raise BadLock for an invalid iteration, or a licence link that is not plain https."""
    iteration, link = values.get("iteration"), values.get("license_link")
    if iteration is not None and iteration < 1:
        raise BadLock(f"{where}: iteration is {iteration}, expected 1 or more")
    if link is not None and not is_link(link):
        raise BadLock(f"{where}: license_link is {quoted(link)}, expected a plain https address")


def check_builds(builds: Sequence[PinnedBuild], where: str) -> None:
    """Raise BadLock for two builds of the same recipe, platform and hash."""
    seen: set[tuple[str, str, str]] = set()
    for build in builds:
        key = same_name(build.recipe), same_name(build.platform), build.sha256
        if key in seen:
            raise BadLock(f"{where}: the build {build.recipe} for {build.platform} occurs twice")
        seen.add(key)


def check_repository(values: dict[str, Any], key: str, revision_key: str, where: str) -> None:
    """Raise BadLock unless OWNER/NAME and its commit are valid and both given, or both missing."""
    repository, revision = values.get(key), values.get(revision_key)
    if repository is not None and not REPOSITORY.fullmatch(repository):
        raise BadLock(f"{where}: {key} is {quoted(repository)}, expected OWNER/NAME")
    if repository is not None:
        check_name(repository.replace("/", "--"), f"{where}: {key} is {quoted(repository)}")
    if (repository is None) != (revision is None):
        raise BadLock(f"{where}: expected {key} and {revision_key} together")
    if revision is not None and not _REVISION.fullmatch(revision):
        raise BadLock(
            f"{where}: {revision_key} is {quoted(revision)}, expected 40 hex digits or"
            f" {UNRESOLVED!r}; a branch cannot be pinned"
        )
