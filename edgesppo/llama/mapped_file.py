"""The file that a loaded model is mapped from, and whether it has changed since.

llama.cpp maps the file into memory. Renaming another file over it does no harm: the old one lives
on while it is mapped. But if it is truncated, touching its lost pages kills the process, and if
it is overwritten in place, its pages hold another model. So the file is kept open and checked
before every step; only a change while a step computes goes unnoticed.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import TYPE_CHECKING

from edgesppo.errors import BadModelFile, ModelNotFound
from edgesppo.llama.fork import ForkSafeLock
from edgesppo.system.signals import shielded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_AGAIN = "load it again, and replace a model only by renaming the new file over it"


class MappedFile:
    """A model file, kept open. Raises ModelNotFound or BadModelFile if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._location = path.absolute()  # also after the process has changed its folder
        try:
            flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(path, flags)
        except FileNotFoundError:
            raise ModelNotFound(f"{path}: no such file") from None
        except OSError as error:
            raise BadModelFile(f"{path}: cannot be read: {error.strerror or error}") from None
        self._finalizer = weakref.finalize(self, os.close, self._descriptor)
        self._was = os.fstat(self._descriptor)
        self._reading = ForkSafeLock()

    @property
    def n_bytes(self) -> int:
        """The file's size when it was opened."""
        return self._was.st_size

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._finalizer()

    def check(self) -> None:
        """Raise BadModelFile if the file was truncated or written to since it was opened."""
        try:
            now = os.fstat(self._descriptor)
        except OSError as error:
            raise BadModelFile(
                f"{self.path}: can no longer be read: {error.strerror or error}"
            ) from None
        if now.st_size != self._was.st_size:
            raise BadModelFile(
                f"{self.path}: was changed in place while it was in use, from "
                f"{self._was.st_size:,} to {now.st_size:,} bytes; {_AGAIN}"
            )
        if now.st_mtime_ns != self._was.st_mtime_ns:
            raise BadModelFile(
                f"{self.path}: was written to in place while it was in use; {_AGAIN}"
            )

    def check_path(self) -> None:
        """Raise BadModelFile if the path no longer names the file that is held open."""
        self.check()
        try:
            same = os.path.samestat(self._location.stat(), self._was)
        except OSError:
            same = False
        if not same:
            raise BadModelFile(
                f"{self.path}: was replaced while it was being loaded; load it again"
            )

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file that was loaded, even if its path names another by now; seek before reading.

        One reader at a time, as the copies of a descriptor have one position; and no Ctrl-C
        meanwhile, which could leave the others locked out.
        """
        with shielded(), self._reading, os.fdopen(os.dup(self._descriptor), "rb") as file:
            yield file
