"""The bytes of a file that other programs may change while they are read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgesppo.errors import BadModelFile

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO


class FileBytes:
    """The bytes of an open file, by slices that are read when they are asked for.

    The file is not mapped: one that another program shortens would end this process. Slicing raises
    BadModelFile for what is no longer there.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, end, _ = part.indices(self._size)
        self._file.seek(start)
        data = self._file.read(max(0, end - start))
        if len(data) < end - start:
            raise BadModelFile(f"{self._path}: became shorter while it was read; try again")
        return data
