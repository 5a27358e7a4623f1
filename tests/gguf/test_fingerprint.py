"""The hash that tells model files apart."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from edgesppo.gguf.fingerprint import fingerprint

if TYPE_CHECKING:
    from pathlib import Path


def test_the_fingerprint_tells_models_apart(tmp_path: Path) -> None:
    """By header, size and weights, which differ everywhere in a fine-tune."""
    rng = random.Random(3)
    header, weights, tuned = rng.randbytes(999), rng.randbytes(300_000), rng.randbytes(300_000)
    files = [header + weights, header + tuned, header + weights + b"x", b"x" + header[1:] + weights]
    marks = set()
    for n, data in enumerate(files):
        path = tmp_path / str(n)
        path.write_bytes(data)
        with path.open("rb") as file:
            marks.add(fingerprint(file, len(header)))
            assert fingerprint(file, len(header)) in marks, "it is the same every time"
    assert len(marks) == len(files)
