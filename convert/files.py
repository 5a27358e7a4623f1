"""Owns every operation that changes the disk, and the promise that no half file is ever seen.

`Files` has one method an operation, so that a test can make any of them fail; `NewFile` is a file
that appears under its name only when it is whole. Knows nothing of what is written.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    Bytes = bytes | bytearray | memoryview


class Files:
    """The operations, straight through to the system."""

    def create(self, path: Path) -> int:
        """Open a new file for writing; fails where there is one."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        return os.open(path, flags, 0o666)

    def write(self, descriptor: int, data: Bytes) -> int:
        """Write some of the data; says how much."""
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Wait until the file's data is on the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another name, in place of what had that name."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        """Wait until the folder's names are on the disk; Windows cannot, and need not."""
        if os.name != "nt":
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def check_target(path: Path, *, force: bool) -> Path:
    """Where the output will really go; refuses, before any work, what could not succeed."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise OutputError(f"the output folder {target.parent} does not exist; create it first")
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(mode):
        raise OutputError(f"the output {path} exists and is not a file; name a file")
    if not force:
        raise OutputError(f"the output {path} exists; use --force (force=True) to replace it")
    return target


def check_space(target: Path, needed: int) -> None:
    """Refuse at once what would fail after minutes; where the system cannot tell, go on."""
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:
        return
    if free < needed:
        raise OutputError(
            f"no space left for {target}: it needs {needed:,} bytes, {free:,} are free in"
            f" {target.parent}"
        )


class NewFile:
    """A file written front to back under another name, hashed on the way.

    Leaving the `with` block by an exception, or without `commit`, removes it.
    """

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self.size = 0
        self._files = files
        self._hash = hashlib.sha256()
        self._draft = path.with_name(f".edgesppo-{secrets.token_hex(8)}.part")
        self._descriptor: int | None = None
        self._stands = False

    def __enter__(self) -> NewFile:
        with self._explained():
            self._descriptor = self._files.create(self._draft)
            self._stands = True
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._close()
        if self._stands:
            with suppress(OSError):
                self._files.unlink(self._draft)

    @property
    def sha256(self) -> str:
        """The hash of everything written so far."""
        return self._hash.hexdigest()

    def write(self, data: Bytes) -> None:
        """Append all of the data."""
        if self._descriptor is None:
            raise ValueError(f"{self.path} is not open")
        rest = memoryview(data)
        with self._explained():
            while rest:
                rest = rest[self._files.write(self._descriptor, rest) :]
        self._hash.update(data)
        self.size += len(data)

    def commit(self, *, force: bool) -> None:
        """Make it durable and let it appear under its name."""
        if self._descriptor is None:
            raise ValueError(f"{self.path} is not open")
        with self._explained():
            self._files.sync(self._descriptor)
            self._close()
            check_target(self.path, force=force)  # someone may have been quicker
            self._files.replace(self._draft, self.path)
            self._stands = False
            self._files.sync_folder(self.path.parent)

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._files.close(descriptor)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(self._explain(error)) from error

    def _explain(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"no space left for {self.path} after {self.size:,} bytes; free some first"
        return f"cannot write {self.path}: {error.strerror or error}"
