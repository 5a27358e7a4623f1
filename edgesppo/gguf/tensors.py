"""Read the tensor infos of a GGUF file: types, shapes and offsets, each checked against the file.

info:  name | n_dims u32 | dims u64[n_dims] | type u32 | offset u64 (from the start of the data)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesppo.errors import BadModelFile
from edgesppo.gguf.cursor import ADVICE

if TYPE_CHECKING:
    from edgesppo.gguf.cursor import Cursor

MAX_TENSOR_NAME = 63
# (ggml type, its name, weights per block, bytes per block)
_SIZES = (
    *((0, "F32", 1, 4), (1, "F16", 1, 2), (30, "BF16", 1, 2), (2, "Q4_0", 32, 18)),
    *((3, "Q4_1", 32, 20), (6, "Q5_0", 32, 22), (7, "Q5_1", 32, 24), (8, "Q8_0", 32, 34)),
    *((20, "IQ4_NL", 32, 18), (10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110)),
    *((12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176), (14, "Q6_K", 256, 210)),
    *((16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74), (18, "IQ3_XXS", 256, 98)),
    *((19, "IQ1_S", 256, 50), (21, "IQ3_S", 256, 110), (22, "IQ2_S", 256, 82)),
    *((23, "IQ4_XS", 256, 136), (29, "IQ1_M", 256, 56)),
    *((34, "TQ1_0", 256, 54), (35, "TQ2_0", 256, 66), (39, "MXFP4", 32, 17)),
    *((40, "NVFP4", 64, 36), (41, "Q1_0", 128, 18), (42, "Q2_0", 64, 18)),
)
# Types that llama.cpp has dropped -> the type whose file to take instead.
_DROPPED = {
    4: ("Q4_2", "Q4_K_M"),
    5: ("Q4_3", "Q4_K_M"),
    31: ("Q4_0_4_4", "Q4_0"),
    32: ("Q4_0_4_8", "Q4_0"),
    33: ("Q4_0_8_8", "Q4_0"),
    36: ("IQ4_NL_4_4", "IQ4_NL"),
    37: ("IQ4_NL_4_8", "IQ4_NL"),
    38: ("IQ4_NL_8_8", "IQ4_NL"),
}
_REARRANGED = ("Q4_0", "IQ4_NL")
# Types of llama.cpp that no weights are stored in.
_NO_WEIGHTS = {9: "Q8_1", 15: "Q8_K", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64"}
# The first number of the types that ik_llama.cpp has added.
_FOREIGN = 97
_BLOCKS = {kind: (name, weights, size) for kind, name, weights, size in _SIZES}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: its name, type, shape, and where its data is."""

    name: str
    type: str  # "F32", "Q4_K", ...
    dims: tuple[int, ...]  # the fastest-varying first
    n_bytes: int
    offset: int  # of its data, from the start of the file


def read_tensors(cursor: Cursor, n: int, alignment: int) -> list[TensorEntry]:
    """All `n` tensors in the order of their data. Raises BadModelFile for an invalid one."""
    infos: dict[str, tuple[int, TensorEntry]] = {}
    for _ in range(n):
        name = cursor.string("a tensor's name", MAX_TENSOR_NAME)
        if name in infos:
            raise cursor.fail(f"the tensor {name!r} occurs twice")
        tensor = _tensor(cursor, name)
        offset = cursor.take("Q")
        if offset % alignment:
            raise cursor.fail(f"{name!r} begins at {offset}, not a multiple of {alignment}")
        infos[name] = offset, tensor
    data = -(-cursor.at // alignment) * alignment
    placed = [replace(tensor, offset=data + offset) for offset, tensor in infos.values()]
    placed.sort(key=lambda tensor: (tensor.offset, tensor.n_bytes))
    _check_offsets(cursor, placed, data)
    return placed


def _tensor(cursor: Cursor, name: str) -> TensorEntry:
    n_dims = cursor.take("I")
    if not 1 <= n_dims <= 4:
        raise cursor.fail(f"{name!r} has {n_dims} dimensions, expected 1 to 4")
    dims = tuple(cursor.take("Q") for _ in range(n_dims))
    kind = cursor.take("I")
    if kind not in _BLOCKS:
        raise _not_run(cursor, name, kind)
    label, per_block, block_bytes = _BLOCKS[kind]
    if dims[0] == 0 or dims[0] % per_block:
        raise cursor.fail(f"{name!r} has rows of {dims[0]}, expected a multiple of {per_block}")
    n_bytes = dims[0] // per_block * block_bytes
    for dim in dims[1:]:  # checked at each step: llama.cpp's integers can overflow
        n_bytes *= dim
        if dim == 0 or n_bytes > cursor.size:
            raise cursor.fail(
                f"{name!r} has the shape {[*dims]}, which is empty or larger than the file"
            )
    return TensorEntry(name, label, dims, int(n_bytes), 0)


def _not_run(cursor: Cursor, name: str, kind: int) -> BadModelFile:
    """The error to raise for a type that llama.cpp does not run; it says what to take instead."""
    if kind in _DROPPED:
        label, instead = _DROPPED[kind]
        here = ", which is rearranged for this processor as it is loaded"
        return BadModelFile(
            f"{cursor.path}: {name!r} has the type {label}, which llama.cpp has dropped; take the"
            f" same model's {instead} file{here if instead in _REARRANGED else ''}"
        )
    if kind in _NO_WEIGHTS:
        return BadModelFile(
            f"{cursor.path}: {name!r} has the type {_NO_WEIGHTS[kind]}, which llama.cpp has no"
            " weights in; take another file of the model, such as its Q4_K_M file"
        )
    if kind >= _FOREIGN:
        return BadModelFile(
            f"{cursor.path}: {name!r} has the type {kind}, which llama.cpp does not have (the"
            " types from 97 on are ik_llama.cpp's own); take the same model's Q4_K_M file"
        )
    return cursor.fail(f"{name!r} has the unknown type {kind}")


def _check_offsets(cursor: Cursor, tensors: list[TensorEntry], data: int) -> None:
    end, previous = data, "the header"
    for tensor in tensors:
        if tensor.offset < end:
            raise cursor.fail(f"{tensor.name!r} overlaps {previous!r}")
        end, previous = tensor.offset + tensor.n_bytes, tensor.name
        if end > cursor.size:
            raise BadModelFile(
                f"{cursor.path}: truncated GGUF: {tensor.name!r} ends at byte {end}, "
                f"the file at {cursor.size}{ADVICE}"
            )
