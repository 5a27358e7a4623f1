"""Owns the file under a loaded model: whether it is still the one that was loaded.

llama.cpp maps the file. One that is replaced by renaming another over it does no harm: the old
one lives on as long as it is mapped. But pages of a file that was cut short end the process when
they are touched, and those of one that was written over hold another model. So the file is kept
open and looked at before they are used; only what happens while a step computes goes unnoticed.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from edgesppo.errors import BadModelFile, ModelNotFound

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

_AGAIN = "replace a model by renaming the new file over it, and load it again"


class MappedFile:
    """A file kept open. Raises ModelNotFound or BadModelFile when it cannot be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(path, flags)
        except FileNotFoundError:
            raise ModelNotFound(f"{path}: no such file") from None
        except OSError as error:
            raise BadModelFile(f"{path}: cannot be read: {error.strerror or error}") from None
        self._finalizer = weakref.finalize(self, os.close, self._descriptor)
        self._was = os.fstat(self._descriptor)

    @property
    def n_bytes(self) -> int:
        """The file's size when it was opened."""
        return self._was.st_size

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._finalizer()

    def check(self) -> None:
        """Raises BadModelFile when the file was cut short or written over since it was opened."""
        try:
            now = os.fstat(self._descriptor)
        except OSError as error:
            raise BadModelFile(f"{self.path}: is gone: {error.strerror or error}") from None
        if now.st_size != self._was.st_size:
            raise BadModelFile(
                f"{self.path}: was changed in place while it was loaded, from "
                f"{self._was.st_size:,} to {now.st_size:,} bytes; {_AGAIN}"
            )
        if now.st_mtime_ns != self._was.st_mtime_ns:
            raise BadModelFile(
                f"{self.path}: was written to in place while it was loaded; {_AGAIN}"
            )

    def check_path(self) -> None:
        """Raises BadModelFile when the path now names another file than the one held open."""
        self.check()
        try:
            same = os.path.samestat(self.path.stat(), self._was)
        except OSError:
            same = False
        if not same:
            raise BadModelFile(
                f"{self.path}: was replaced while it was being loaded; load it again"
            )

    def open(self) -> BinaryIO:
        """The very file that was loaded, whatever has its name by now; seek before reading."""
        return os.fdopen(os.dup(self._descriptor), "rb")
