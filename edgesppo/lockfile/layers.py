"""Owns which locks count: a project's own, the user's, the shipped one; the first that knows wins.

    $EDGESPPO_LOCK (--lock)      a project's own, where one is named
    DATA_HOME/models.lock        the user's: what was pinned, converted and imported here
    models.lock                  shipped with this package

What this machine finds out is written to the first of these, else to the user's: whole or not at
all, by one process at a time. Knows nothing of networks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import BadLock, ModelNotFound, OutputError
from edgesppo.lockfile import toml
from edgesppo.lockfile.entries import Lock
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem, atomic_write, cannot_write
from edgesppo.system.paths import data_dir, expand_user

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.lockfile.entries import PinnedModel

PROJECT = "EDGESPPO_LOCK"
_PATIENCE = 30.0  # seconds for another process to write a few kilobytes


def project() -> Path | None:
    """The project's own lock, if one is named."""
    named = os.environ.get(PROJECT)
    return expand_user(PROJECT, named) if named else None


def write_target() -> Path:
    """Where what is found out here is written."""
    return project() or data_dir() / "models.lock"


def layers() -> list[Path]:
    """Every lock but the shipped one, the first wins."""
    user = data_dir() / "models.lock"
    named = project()
    return [user] if named is None else [named, user]


def read(*, may_begin: bool = False) -> Lock:
    """All entries that count. Raises BadLock.

    A project's lock that is named must be there, unless it may begin now.
    """
    models = dict(toml.read().models)
    for path in reversed(layers()):
        if path.exists() or path.is_symlink():
            models.update(toml.read(path).models)
        elif path == project() and not may_begin:
            raise BadLock(f"{path}: no such lock; `edgesppo lock NAME --lock {path}` begins one")
    return Lock(models)


def find(name: str) -> PinnedModel:
    """The entry of a name, or of OWNER/NAME. Raises ModelNotFound."""
    lock = read()
    entry = lock.models.get(name) or lock.of_repository(name)
    if entry is None:
        raise ModelNotFound(f"{name[:80]!r} is no model of a lock: {', '.join(lock.models)}")
    return entry


def holders(name: str) -> list[Path]:
    """The locks but the shipped one in which a name stands; the first is the one that counts."""
    return [path for path in layers() if path.exists() and name in toml.read(path).models]


def every_entry() -> list[PinnedModel]:
    """The entries of every lock that is known here, also those that another's name hides."""
    known = [toml.read(), *(toml.read(path) for path in layers() if path.exists())]
    return [entry for lock in known for entry in lock.models.values()]


def update_entry(
    name: str,
    change: Callable[[PinnedModel | None], PinnedModel | None],
    path: Path | None = None,
) -> Path:
    """Replace the entry of this name by what `change` makes of it as it counts now; where it is.

    That is our own lock, unless `path` names one. None from `change` removes the entry there.
    Raises OutputError and BadLock.
    """
    path, files = path or write_target(), FileSystem()
    try:
        if path != project():
            path.parent.mkdir(parents=True, exist_ok=True)
        with hold(path, files):
            before = read(may_begin=True).models.get(name)
            models = dict(toml.read(path).models) if path.exists() else {}
            models.pop(name, None)
            after = change(before)
            if after is not None:
                models[after.name] = after
            _write(path, Lock(dict(sorted(models.items()))), files)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def hold(path: Path, files: FileSystem) -> filelock.FileLock:
    """Let no other process of ours change this small file. Raises OutputError, OSError."""
    real = Path(os.path.realpath(path))
    try:
        return filelock.acquire(real.with_name(f".{real.name}.busy"), files, timeout=_PATIENCE)
    except filelock.LockHeld as held:
        raise OutputError(
            f"{path} is being written by {held.owner}; wait for it, or stop it"
        ) from None


def _write(path: Path, lock: Lock, files: FileSystem) -> None:
    """The whole lock under its name; one without entries is no file."""
    if not lock.models:
        files.unlink(path)
        return
    text = toml.render(lock)
    toml.parse(text, str(path))  # what could not be read again is not written
    atomic_write(Path(os.path.realpath(path)), text.encode(), files=files)
