"""Owns `models.lock`: parse, check, write. TOML; knows nothing of networks.

    version = 1

    [[model]]
    name = "sppo-iter3"             what people type
    kind = "checkpoint"             "checkpoint" or "gguf"
    description = "..."
    shipped = "edgesppo/demo"       the folder in this package that holds it, or else
    repository = "OWNER/NAME"       where the hub has it, and
    revision = "0123..."            at which commit: 40 hex digits, or "unresolved"
    license = "gemma"               as the card's header claims
    license_in_text = "..."         as its text claims, where that is another
    license_link = "https://..."
    base_model = "OWNER/NAME"       what it was made from, by which method and round of it, on
    base_revision = "unresolved"    which prompts, and the paper that tells how
    method = "SPPO"
    iteration = 3
    dataset = "OWNER/NAME"
    paper = "https://..."
    [[model.file]]                  every file; none while the revision is unresolved
    path = "config.json"            inside the model's folder
    size = 842                      bytes
    sha256 = "..."                  64 hex digits

A branch is no revision: what it names changes. An unresolved one is pinned by the first machine
that reaches the hub, in its user's own lock.

Run as `python -m edgesppo.lockfile` in a checkout, it writes the shipped demo's entry anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from edgesppo.errors import BadLock

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VERSION = 1
_PACKAGE = Path(__file__).parent
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KINDS = ("checkpoint", "gguf")
UNRESOLVED = "unresolved"
_REVISION = re.compile(rf"[0-9a-f]{{40}}|{UNRESOLVED}")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_FILE_KEYS = {"path", "size", "sha256"}


@dataclass(frozen=True)
class PinnedFile:
    """One file of a model: its path inside the model's folder, bytes, and hash."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PinnedModel:
    """One entry of the lock; the fields are the keys, in the order they are written."""

    name: str
    kind: str
    description: str
    shipped: str | None = None
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


@dataclass(frozen=True)
class Lock:
    """A whole lock: its models by name."""

    models: dict[str, PinnedModel]

    def of_repository(self, repository: str) -> PinnedModel | None:
        """The entry of OWNER/NAME."""
        found = (model for model in self.models.values() if model.repository == repository)
        return next(found, None)


_KEYS = tuple(field.name for field in fields(PinnedModel) if field.name != "files")


def path() -> Path:
    """Where models.lock is: in the installed package, or at the root of a checkout."""
    installed = _PACKAGE / "pins" / "models.lock"
    return installed if installed.exists() else _PACKAGE.parent / "models.lock"


def read(file: Path | None = None) -> Lock:
    """Read and check a lock, by default our own. Raises BadLock, naming the place."""
    file = file or path()
    try:
        return parse(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise BadLock(f"{file}: cannot be read: {error}; install edgesppo again") from None


def parse(text: str, origin: str) -> Lock:
    """Check the text of a lock; `origin` names it in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadLock(f"{origin}: not TOML: {error}") from None
    if data.get("version") != VERSION:
        raise BadLock(f"{origin}: version is {data.get('version')!r}, expected {VERSION}")
    _only({"version", "model"}, data, origin)
    models: dict[str, PinnedModel] = {}
    for n, entry in enumerate(_tables(data, "model", origin), 1):
        model = _model(entry, f"{origin}: model {n}")
        if model.name in models:
            raise BadLock(f"{origin}: the name {model.name!r} stands twice")
        models[model.name] = model
    return Lock(models)


def _model(entry: dict[str, Any], where: str) -> PinnedModel:
    _only({*_KEYS, "file"}, entry, where)
    required = ("name", "kind", "description", "license")
    values = {key: _text(entry, key, where) for key in _KEYS if key in entry or key in required}
    kind, shipped, repository = (values.get(key) for key in ("kind", "shipped", "repository"))
    if kind not in _KINDS:
        raise BadLock(f"{where}: kind is {kind!r}, expected one of {', '.join(_KINDS)}")
    if (shipped is None) == (repository is None):
        raise BadLock(f"{where}: expected either shipped or repository, and not both")
    if shipped is not None:
        _relative(shipped, where)
    _check_repository(values, "repository", "revision", where)
    _check_repository(values, "base_model", "base_revision", where)
    unresolved = values.get("revision") == UNRESOLVED
    if unresolved and "file" in entry:
        raise BadLock(f"{where}: files are listed, but the revision is {UNRESOLVED}")
    tables = () if unresolved else _tables(entry, "file", where)
    files = tuple(_file(table, f"{where}, file {n}") for n, table in enumerate(tables, 1))
    return PinnedModel(**values, files=files)


def _check_repository(values: dict[str, Any], key: str, revision_key: str, where: str) -> None:
    """OWNER/NAME and its commit: both or neither."""
    repository, revision = values.get(key), values.get(revision_key)
    if repository is not None and not REPOSITORY.fullmatch(repository):
        raise BadLock(f"{where}: {key} is {repository!r}, expected OWNER/NAME")
    if (repository is None) != (revision is None):
        raise BadLock(f"{where}: expected {key} and {revision_key} together")
    if revision is not None and not _REVISION.fullmatch(revision):
        raise BadLock(
            f"{where}: {revision_key} is {revision!r}, expected 40 hex digits or {UNRESOLVED!r};"
            " a branch is no pin"
        )


def _file(entry: dict[str, Any], where: str) -> PinnedFile:
    _only(_FILE_KEYS, entry, where)
    size = entry.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise BadLock(f"{where}: size is {size!r}, expected a number of bytes")
    sha256 = _text(entry, "sha256", where)
    if not _SHA256.fullmatch(sha256):
        raise BadLock(f"{where}: sha256 is {sha256!r}, expected 64 lower-case hex digits")
    return PinnedFile(_relative(_text(entry, "path", where), where), size, sha256)


def _only(known: set[str], table: dict[str, Any], where: str) -> None:
    for key in table:
        if key not in known:
            raise BadLock(f"{where}: unknown key {key!r}; known: {', '.join(sorted(known))}")


def _tables(table: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    value = table.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
        raise BadLock(f"{where}: expected at least one [[{key}]] table")
    return value


def _text(table: dict[str, Any], key: str, where: str) -> Any:
    """A text; for `iteration`, a number."""
    value = table.get(key)
    kind, expected = (int, "a number") if key == "iteration" else (str, "a text")
    if type(value) is not kind or not value:
        raise BadLock(f"{where}: {key} is {value!r}, expected {expected}")
    return value


def _relative(text: str, where: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or ":" in text:
        raise BadLock(f"{where}: the path {text!r} leaves its folder")
    return text


def shipped_folder(model: PinnedModel) -> Path:
    """The folder of a model that ships with this package."""
    assert model.shipped is not None
    return _PACKAGE.parent / model.shipped


def describe_files(folder: Path, names: list[str]) -> tuple[PinnedFile, ...]:
    """Sizes and hashes of files as they are now."""
    found = []
    for name in names:
        data = (folder / name).read_bytes()
        found.append(PinnedFile(name, len(data), hashlib.sha256(data).hexdigest()))
    return tuple(found)


def render(lock: Lock) -> str:
    """The lock as TOML; `parse` gives the same lock back."""
    lines = ["# What edgesppo runs, file by file. Paths are inside the model's folder.", ""]
    lines += [f"version = {VERSION}"]
    for model in lock.models.values():
        lines += ["", "[[model]]"]
        for key in _KEYS:
            value = getattr(model, key)
            if value is not None:
                lines.append(f"{key} = {_quoted(value)}")
        for file in model.files:
            lines += ["", "[[model.file]]", f"path = {_quoted(file.path)}"]
            lines += [f"size = {file.size}", f'sha256 = "{file.sha256}"']
    return "\n".join(lines) + "\n"


def _quoted(value: str | int) -> str:
    """A value as TOML, which takes all of JSON's escapes and wants one more."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _demo() -> PinnedModel:
    folder = _PACKAGE / "demo"
    names = sorted(
        p.name for p in folder.iterdir() if p.suffix in (".json", ".model", ".safetensors")
    )
    return PinnedModel(
        name="demo",
        kind="checkpoint",
        shipped="edgesppo/demo",
        license="Apache-2.0",
        description="A tiny Gemma-2 trained for this package, to try everything at once",
        files=describe_files(folder, names),
    )


if __name__ == "__main__":
    lock = read()
    path().write_text(render(Lock({**lock.models, "demo": _demo()})), encoding="utf-8")
    print(f"wrote {path()}")
