"""A hash that tells a model file from others, of its header and samples of its weights."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16  # of the tensors


def fingerprint(file: BinaryIO, header_bytes: int) -> str:
    """A hash that tells a model file from others without reading all of it.

    Covers its size, its header (the first `header_bytes`) and samples from all over its tensors:
    two fine-tunes of one architecture differ everywhere. It does not detect a file that was made
    to have the same fingerprint.
    """
    size = file.seek(0, os.SEEK_END)
    digest = hashlib.sha256(str(size).encode())
    file.seek(0)
    digest.update(file.read(header_bytes))
    for n in range(_SAMPLES):
        file.seek(header_bytes + (size - header_bytes) * n // _SAMPLES)
        digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
