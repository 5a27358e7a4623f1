"""Owns the reading of a GGUF file's head that nobody vouches for: keys and tensor places, bounded.

It trusts no count, size or offset of the file, holds none of its tensors and none of its arrays,
and answers with a `Summary` or one clear `BadModelFile`. Knows nothing of models or llama.cpp.

    file:  magic "GGUF" | version u32 | n_tensors u64 | n_keys u64 | keys | infos | pad | data
    key:   name | type u32 | value           name, string: length u64 | bytes
    info:  name | n_dims u32 | dims u64[n_dims] | type u32 | offset u64 (from the start of data)
    (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)
"""

from __future__ import annotations

import errno
import io
import mmap
import stat
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from edgesppo.errors import BadModelFile, ModelNotFound, OutOfMemory
from edgesppo.gguf_texts import MAX_STRING, Misfit, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    # Says what is wrong with the keys and the lists among them, before tensors are looked at.
    Judge = Callable[[Mapping[str, Any], Mapping[str, "ArrayPlace"]], str | None]

MAX_KEYS = MAX_TENSORS = 8_192
MAX_ARRAY = 4_194_304
MAX_TEXT = 4_194_304  # bytes of all names and texts that are kept
MAX_DISTINCT = 524_288  # texts of a list that must differ
MAX_NAME = 65_535
MAX_TENSOR_NAME = 63
AGAIN = "; fetch or convert it again"
_ALIGNMENT, _U32 = "general.alignment", 4
_ALIGNMENTS = [2**n for n in range(17)]

_SCALARS = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}
STRING, _ARRAY = 8, 9
# ggml type, its name, weights in a block, bytes of a block
_SIZES = (
    *((0, "F32", 1, 4), (1, "F16", 1, 2), (30, "BF16", 1, 2), (2, "Q4_0", 32, 18)),
    *((3, "Q4_1", 32, 20), (6, "Q5_0", 32, 22), (7, "Q5_1", 32, 24), (8, "Q8_0", 32, 34)),
    *((20, "IQ4_NL", 32, 18), (10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110)),
    *((12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176), (14, "Q6_K", 256, 210)),
    *((16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74), (18, "IQ3_XXS", 256, 98)),
    *((19, "IQ1_S", 256, 50), (21, "IQ3_S", 256, 110), (22, "IQ2_S", 256, 82)),
    *((23, "IQ4_XS", 256, 136), (29, "IQ1_M", 256, 56)),
)
_BLOCKS = {kind: (name, weights, size) for kind, name, weights, size in _SIZES}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the file announces it."""

    name: str
    type: str  # "F32", "Q4_K", ...
    dims: tuple[int, ...]  # fastest first
    n_bytes: int
    at: int  # where its data begins in the file


@dataclass(frozen=True)
class ArrayPlace:
    """Where an array of the metadata lies, for who wants more of it than its length."""

    kind: int
    n: int
    at: int


@dataclass(frozen=True)
class Summary:
    """What a sound GGUF says of itself: keys (long arrays as their length), counts, bytes."""

    path: Path
    keys: dict[str, Any]
    n_tensors: int
    data_bytes: int
    file_bytes: int
    tensors: tuple[TensorEntry, ...]  # in the order of their data
    arrays: dict[str, ArrayPlace]


def read(path: Path, judge: Judge | None = None, distinct: Collection[str] = ()) -> Summary:
    """Check a file's structure against its real size, reading its head only.

    The texts of the arrays named in `distinct` must differ. Raises ModelNotFound when there is no
    such file, BadModelFile when it is no whole GGUF, and what `judge` raises.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise BadModelFile(f"{path} is no regular file, expected a GGUF file")
        with path.open("rb") as file:
            head = file.read(4)
            if head != b"GGUF":
                raise BadModelFile(_not_gguf(path, head))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _Reader(path, view, len(view), distinct).summary(judge)
    except FileNotFoundError:
        raise ModelNotFound(f"{path}: no such file") from None
    except IsADirectoryError:
        raise BadModelFile(f"{path} is a folder, expected a GGUF file") from None
    except OSError as error:
        kind = OutOfMemory if error.errno == errno.ENOMEM else BadModelFile
        raise kind(f"{path}: cannot be read: {error.strerror or error}") from None


def read_head(
    head: bytes, size: int, path: Path, judge: Judge | None = None, distinct: Collection[str] = ()
) -> Summary:
    """What `read` would say of a file of `size` bytes that begins so, before it is written."""
    return _Reader(path, head, size, distinct).summary(judge)


def read_array(summary: Summary, key: str, head: bytes | None = None) -> list[Any]:
    """The items of an array whose place was found sound; texts as far as they are UTF-8.

    They are read from the file or, where that is yet to be written, from its `head`.
    """
    place = summary.arrays[key]
    with summary.path.open("rb") if head is None else io.BytesIO(head) as file:
        file.seek(place.at)
        if place.kind == STRING:
            return [_string(file) for _ in range(place.n)]
        form = f"<{place.n}{_SCALARS[place.kind]}"
        return list(struct.unpack(form, file.read(struct.calcsize(form))))


def _string(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    return file.read(min(length, MAX_STRING)).decode("utf-8", "backslashreplace")


def _not_gguf(path: Path, head: bytes) -> str:
    if not head:
        return f"{path} is empty, expected a GGUF file; fetch or convert it again"
    return f"{path} is not a GGUF file: it begins with {head!r}, expected b'GGUF'"


class _Reader:
    """A cursor over the head of a file of `size` bytes; every read is checked against both."""

    def __init__(
        self, path: Path, view: mmap.mmap | bytes, size: int, distinct: Collection[str] = ()
    ) -> None:
        self.path = path
        self.view = view
        self.end = len(view)
        self.size = size
        self.distinct = distinct
        self.at = 4
        self.text = 0
        self.arrays: dict[str, ArrayPlace] = {}

    def fail(self, what: str) -> BadModelFile:
        return BadModelFile(f"{self.path}: damaged GGUF: {what}{AGAIN}")

    def take(self, form: str) -> Any:
        end = self.at + struct.calcsize("<" + form)
        if end > self.end:
            raise self.fail(f"the file ends at byte {self.end} inside its header")
        (value,) = struct.unpack_from("<" + form, self.view, self.at)
        self.at = end
        return value

    def count(self, what: str, limit: int) -> int:
        value = int(self.take("Q"))
        if value > limit:
            raise self.fail(f"{what} is {value}, expected at most {limit}")
        return value

    def skip(self, n_bytes: int) -> None:
        if n_bytes > self.end - self.at:
            raise self.fail(f"the file ends at byte {self.end} inside its header")
        self.at += n_bytes

    def string(self, what: str, limit: int = MAX_STRING) -> str:
        length = self.count(f"the length of {what}", limit)
        start = self.at
        self.skip(length)
        self.text += length
        if self.text > MAX_TEXT:
            raise self.fail(f"its names and texts take more than {MAX_TEXT} bytes")
        try:
            return self.view[start : self.at].decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail(f"{what} is not UTF-8") from None

    def summary(self, judge: Judge | None) -> Summary:
        version = self.take("I")
        if version not in (2, 3):
            raise self.fail(f"GGUF version {version}, expected 2 or 3")
        n_tensors = self.count("the number of tensors", MAX_TENSORS)
        n_keys = self.count("the number of keys", MAX_KEYS)
        keys = self.keys(n_keys)
        complaint = judge(keys, self.arrays) if judge else None
        if complaint:
            raise self.fail(complaint)
        alignment = keys.get(_ALIGNMENT, 32)
        if alignment not in _ALIGNMENTS:
            raise self.fail(f"general.alignment is {alignment!r}, expected a power of two")
        tensors = self.tensors(n_tensors, alignment)
        data_bytes = sum(tensor.n_bytes for tensor in tensors)
        sizes = n_tensors, data_bytes, self.size
        return Summary(self.path, keys, *sizes, tuple(tensors), self.arrays)

    def keys(self, n: int) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        for _ in range(n):
            name = self.string("a key's name", MAX_NAME)
            if not name:
                raise self.fail("a key has no name")
            if name in keys:
                raise self.fail(f"the key {name!r} stands twice")
            keys[name] = self.value(name)
        return keys

    def value(self, key: str) -> Any:
        kind = self.take("I")
        if key == _ALIGNMENT and kind != _U32:
            raise self.fail(f"{key} has the type {kind}, expected {_U32} (32 bits, unsigned)")
        if kind in _SCALARS:
            return self.take(_SCALARS[kind])
        if kind == STRING:
            return self.string(f"the value of {key!r}")
        if kind == _ARRAY:
            return self.array(key)
        raise self.fail(f"the key {key!r} has the unknown type {kind}")

    def array(self, key: str) -> int:
        """Step over an array; its length stands for it."""
        kind = self.take("I")
        n = self.count(f"the length of the array {key!r}", MAX_ARRAY)
        self.arrays[key] = ArrayPlace(kind, n, self.at)
        if kind in _SCALARS:
            self.skip(n * struct.calcsize("<" + _SCALARS[kind]))
        elif kind == STRING:
            self.skip_strings(key, n)
        else:
            raise self.fail(f"the array {key!r} has elements of the type {kind}")
        return n

    def skip_strings(self, key: str, n: int) -> None:
        must_differ = key in self.distinct
        if must_differ and n > MAX_DISTINCT:
            raise self.fail(f"the length of {key!r} is {n}, expected at most {MAX_DISTINCT}")
        try:
            self.at, differing = walk(self.view, self.at, n, distinct=must_differ)
        except Misfit as misfit:
            if misfit.length is None:
                raise self.fail(f"the file ends at byte {self.end} inside its header") from None
            raise self.fail(
                f"a string of {misfit.length} bytes in {key!r} does not fit the file"
            ) from None
        if differing != n:
            raise self.fail(f"{n - differing} of its {n} tokens stand twice")

    def tensors(self, n: int, alignment: int) -> list[TensorEntry]:
        """Every tensor in the order of their data, each one's place checked."""
        found: dict[str, tuple[int, TensorEntry]] = {}
        for _ in range(n):
            name = self.string("a tensor's name", MAX_TENSOR_NAME)
            if name in found:
                raise self.fail(f"the tensor {name!r} stands twice")
            tensor = self.tensor(name)
            offset = self.take("Q")
            if offset % alignment:
                raise self.fail(f"{name!r} begins at {offset}, not a multiple of {alignment}")
            found[name] = offset, tensor
        data = -(-self.at // alignment) * alignment
        placed = [replace(tensor, at=data + offset) for offset, tensor in found.values()]
        placed.sort(key=lambda tensor: (tensor.at, tensor.n_bytes))
        self.check_places(placed, data)
        return placed

    def tensor(self, name: str) -> TensorEntry:
        n_dims = self.take("I")
        if not 1 <= n_dims <= 4:
            raise self.fail(f"{name!r} has {n_dims} dimensions, expected 1 to 4")
        dims = tuple(self.take("Q") for _ in range(n_dims))
        kind = self.take("I")
        if kind not in _BLOCKS:
            raise self.fail(f"{name!r} has the unknown type {kind}")
        label, per_block, block_bytes = _BLOCKS[kind]
        if dims[0] == 0 or dims[0] % per_block:
            raise self.fail(f"{name!r} has rows of {dims[0]}, not whole blocks of {per_block}")
        n_bytes = dims[0] // per_block * block_bytes
        for dim in dims[1:]:  # checked at each step: llama.cpp's integers can overflow
            n_bytes *= dim
            if dim == 0 or n_bytes > self.size:
                raise self.fail(f"{name!r} has the shape {[*dims]}, larger than the file or empty")
        return TensorEntry(name, label, dims, int(n_bytes), 0)

    def check_places(self, tensors: list[TensorEntry], data: int) -> None:
        end, previous = data, "the header"
        for tensor in tensors:
            if tensor.at < end:
                raise self.fail(f"{tensor.name!r} overlaps {previous!r}")
            end, previous = tensor.at + tensor.n_bytes, tensor.name
            if end > self.size:
                raise BadModelFile(
                    f"{self.path}: truncated GGUF: {tensor.name!r} ends at byte {end}, "
                    f"the file at {self.size}{AGAIN}"
                )
