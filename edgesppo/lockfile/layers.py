"""The layers of locks: a project's, the user's and the shipped one; the first with a name wins.

    $EDGESPPO_LOCK (--lock)      the project's lock, where one is named
    DATA_HOME/models.lock        the user's lock: what was pinned, converted and imported here
    models.lock                  the lock that ships with this package

New entries are written to the project's lock if one is named, else to the user's: atomically, and
by one process at a time.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import BadLock, ModelNotFound
from edgesppo.lockfile import toml
from edgesppo.lockfile.entries import Lock
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem, atomic_write, cannot_write
from edgesppo.system.paths import data_dir, expand_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.lockfile.entries import PinnedModel

PROJECT = "EDGESPPO_LOCK"
_TIMEOUT_S = 30.0  # for another process to write a few kilobytes


def project() -> Path | None:
    """The path of the project's lock; None if $EDGESPPO_LOCK is not set."""
    path = os.environ.get(PROJECT)
    return expand_user(PROJECT, path) if path else None


def write_target() -> Path:
    """The path of the lock that new entries are written to."""
    return project() or data_dir() / "models.lock"


def layers() -> list[Path]:
    """The paths of all locks except the shipped one, the one that takes precedence first."""
    user = data_dir() / "models.lock"
    own = project()
    return [user] if own is None else [own, user]


def read(*, may_create: bool = False) -> Lock:
    """The entries of all layers together. Raises BadLock.

    A project's lock that is named must exist, unless `may_create` says that it will be created.
    """
    models = dict(toml.read().models)
    for path in reversed(layers()):
        if path.exists() or path.is_symlink():
            models.update(toml.read(path).models)
        elif path == project() and not may_create:
            raise BadLock(f"{path}: no such lock; `edgesppo lock NAME --lock {path}` creates one")
    return Lock(models)


def find(name: str) -> PinnedModel:
    """The entry with this name or this repository OWNER/NAME. Raises ModelNotFound."""
    lock = read()
    entry = lock.models.get(name) or lock.of_repository(name)
    if entry is None:
        raise ModelNotFound(
            f"{name[:80]!r}{lock.did_you_mean(name)} is not in models.lock;"
            f" known models: {', '.join(lock.models)}"
        )
    return entry


def locks_with(name: str) -> list[Path]:
    """The locks other than the shipped one that have this name; the first takes precedence."""
    return [path for path in layers() if path.exists() and name in toml.read(path).models]


def all_entries() -> list[PinnedModel]:
    """The entries of every layer, including those that are hidden by another layer."""
    locks = [toml.read(), *(toml.read(path) for path in layers() if path.exists())]
    return [entry for lock in locks for entry in lock.models.values()]


def update_entry(
    name: str,
    change: Callable[[PinnedModel | None], PinnedModel | None],
    path: Path | None = None,
) -> Path:
    """Replace the entry of this name by the result of `change`; returns the path of its lock.

    `change` gets the current entry of all layers, or None, and returns the new one, or None to
    remove it from the lock. That is `write_target()` unless `path` is given. Raises OutputError
    and BadLock.
    """
    path, files = path or write_target(), FileSystem()
    with _hold(path, files):
        before = read(may_create=True).models.get(name)
        models = dict(toml.read(path).models) if path.exists() else {}
        models.pop(name, None)
        after = change(before)
        if after is not None:
            models[after.name] = after
        _write(path, Lock(dict(sorted(models.items()))), files)
    return path


def check_writable() -> None:
    """Raise OutputError or BadLock where `update_entry` would: before work that ends in it."""
    path = write_target()
    with _hold(path, FileSystem()):
        if path.exists():
            toml.read(path)


@contextmanager
def _hold(path: Path, files: FileSystem) -> Iterator[None]:
    """Be the one process that changes this lock. Raises OutputError."""
    try:
        if path != project():
            path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.hold(path, files, timeout=_TIMEOUT_S):
            yield
    except OSError as error:
        raise cannot_write(path, error) from error


def _write(path: Path, lock: Lock, files: FileSystem) -> None:
    """Write the lock, with the mode and the first comment that it has; remove one that is empty."""
    if not lock.models:
        files.unlink(path)
        return
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    text = toml.render(lock, before)
    toml.parse(text, str(path))  # never write what could not be read again
    real = Path(os.path.realpath(path))
    mode = stat.S_IMODE(real.stat().st_mode) if before else 0o666
    atomic_write(real, text.encode(), files=files, mode=mode)
    if before:  # the umask may have taken some of it
        with suppress(OSError):
            real.chmod(mode)
