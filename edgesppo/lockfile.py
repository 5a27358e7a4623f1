"""Owns `models.lock`: parse, check, write. TOML; knows nothing of networks.

    version = 1

    [[model]]
    name = "demo"                   what people type
    kind = "checkpoint"             "checkpoint" or "gguf"
    shipped = "edgesppo/demo"       the folder in this package that holds it
    license = "Apache-2.0"
    [[model.file]]
    path = "config.json"            inside the model's folder
    size = 842                      bytes
    sha256 = "..."                  64 hex digits

Run as `python -m edgesppo.lockfile` in a checkout, it writes the shipped demo's entry anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
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
_MODEL_KEYS = {"name", "kind", "shipped", "license", "description", "file"}
_FILE_KEYS = {"path", "size", "sha256"}


@dataclass(frozen=True)
class PinnedFile:
    """One file of a model: its path inside the model's folder, bytes, and hash."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class PinnedModel:
    """One entry of the lock."""

    name: str
    kind: str
    shipped: str
    license: str
    description: str
    files: tuple[PinnedFile, ...]


@dataclass(frozen=True)
class Lock:
    """A whole lock: its models by name."""

    models: dict[str, PinnedModel]


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
    _only(_MODEL_KEYS, entry, where)
    kind = _text(entry, "kind", where)
    if kind not in _KINDS:
        raise BadLock(f"{where}: kind is {kind!r}, expected one of {', '.join(_KINDS)}")
    files = tuple(
        _file(f, f"{where}, file {n}") for n, f in enumerate(_tables(entry, "file", where), 1)
    )
    return PinnedModel(
        name=_text(entry, "name", where),
        kind=kind,
        shipped=_relative(_text(entry, "shipped", where), where),
        license=_text(entry, "license", where),
        description=_text(entry, "description", where),
        files=files,
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


def _text(table: dict[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise BadLock(f"{where}: {key} is {value!r}, expected a text")
    return value


def _relative(text: str, where: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or ":" in text:
        raise BadLock(f"{where}: the path {text!r} leaves its folder")
    return text


def shipped_folder(model: PinnedModel) -> Path:
    """The folder of a model that ships with this package."""
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
        for key in ("name", "kind", "shipped", "license", "description"):
            lines.append(f"{key} = {json.dumps(getattr(model, key), ensure_ascii=False)}")
        for file in model.files:
            lines += ["", "[[model.file]]", f"path = {json.dumps(file.path)}"]
            lines += [f"size = {file.size}", f'sha256 = "{file.sha256}"']
    return "\n".join(lines) + "\n"


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
    path().write_text(render(Lock({"demo": _demo()})), encoding="utf-8")
    print(f"wrote {path()}")
