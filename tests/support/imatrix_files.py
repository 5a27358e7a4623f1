"""Random importance matrices in both of llama.cpp's file formats."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGUFWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Sums = Mapping[str, NDArray[np.float32]]

CALLS = 7  # not a power of two, so that dividing by it rounds
CHUNKS = 5
DATASET = "/home/someone/texts/calibration.txt"


def random_sums(rows: Mapping[str, int], seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Random sums of squares over six orders of magnitude; `rows` gives the length of each."""
    random = np.random.default_rng(seed)
    return {
        name: (10 ** random.uniform(-3, 3, count)).astype(np.float32)
        for name, count in rows.items()
    }


def means(sums: Sums) -> dict[str, NDArray[np.float32]]:
    """The means that llama-quantize computes from the sums."""
    return {name: values / np.float32(CALLS) for name, values in sums.items()}


def write_gguf(path: Path, sums: Sums, *, counts: float = CALLS, metadata: bool = True) -> Path:
    """Write the current format, GGUF."""
    writer = GGUFWriter(path, "unused")
    writer.add_type("imatrix")
    if metadata:
        writer.add_array("imatrix.datasets", [DATASET])
        writer.add_uint32("imatrix.chunk_count", CHUNKS)
        writer.add_uint32("imatrix.chunk_size", 512)
    for name, values in sums.items():
        writer.add_tensor(f"{name}.in_sum2", values.reshape(1, -1))
        writer.add_tensor(f"{name}.counts", np.full((1, 1), counts, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_dat(path: Path, sums: Sums, *, trailer: bool = True) -> Path:
    """Write the older binary format."""
    data = struct.pack("<i", len(sums))
    for name, values in sums.items():
        data += struct.pack("<i", len(name)) + name.encode()
        data += struct.pack("<ii", CALLS, values.size) + values.astype("<f4").tobytes()
    if trailer:
        data += struct.pack("<ii", CHUNKS, len(DATASET)) + DATASET.encode()
    path.write_bytes(data)
    return path
