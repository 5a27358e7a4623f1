"""Owns the reading of a GGUF file's head that nobody vouches for: keys and tensor places, bounded.

It trusts no count, size or offset of the file, holds none of its tensors and none of its arrays,
and answers with a `Summary` or one clear `BadModelFile`. Knows nothing of models or llama.cpp.

    file:  magic "GGUF" | version u32 | n_tensors u64 | n_keys u64 | keys | infos | pad | data
    key:   name | type u32 | value           name, string: length u64 | bytes
    info:  see gguf_tensors.py
    (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)
"""

from __future__ import annotations

import errno
import io
import mmap
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from edgesppo.errors import BadModelFile, ModelNotFound, OutOfMemory
from edgesppo.gguf.cursor import AGAIN, Cursor
from edgesppo.gguf.strings import MAX_STRING, Misfit, Vocabulary, walk
from edgesppo.gguf.tensors import TensorEntry, read_tensors
from edgesppo.system.validate import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    # Arrays whose texts must all differ, have no NUL and not be empty -> what must be among them.
    Distinct = Mapping[str, Collection[bytes]]

    # Says what is wrong with the keys and the lists among them, before tensors are looked at.
    Judge = Callable[[Mapping[str, Any], Mapping[str, "ArrayPlace"]], str | None]

__all__ = [
    "AGAIN",
    "ArrayPlace",
    "Summary",
    "TensorEntry",
    "peek",
    "read",
    "read_array",
    "read_head",
]

MAX_KEYS = MAX_TENSORS = 8_192
MAX_ARRAY = 4_194_304  # items of all arrays
MAX_DISTINCT = 300_000  # texts of a list that must differ; Gemma-2 has 256,000
MAX_NAME = 65_535
_ALIGNMENT, _U32 = "general.alignment", 4
# Less is in order for GGUF, but where weights are mapped llama.cpp aborts on some of it.
_ALIGNMENTS = [2**n for n in range(5, 17)]
_EXPECTED = f"expected a power of two from {_ALIGNMENTS[0]} to {_ALIGNMENTS[-1]}"

_SCALARS = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}
STRING, _ARRAY = 8, 9
_NONE: Distinct = {}


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


def read(path: Path, judge: Judge | None = None, distinct: Distinct = _NONE) -> Summary:
    """Check a file's structure against its real size, reading its head only.

    The texts of the arrays that `distinct` names must differ, and what it says be among them; none
    may be empty or hold a NUL, as llama.cpp looks them up as C strings. Raises ModelNotFound
    when there is no such file, BadModelFile when it is no whole GGUF, and what `judge` raises.
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
    head: bytes, size: int, path: Path, judge: Judge | None = None, distinct: Distinct = _NONE
) -> Summary:
    """What `read` would say of a file of `size` bytes that begins so, before it is written."""
    return _Reader(path, head, size, distinct).summary(judge)


def peek(head: bytes, size: int) -> dict[str, Any]:
    """Keys that stand in the beginning of a file of `size` bytes, long arrays as their length.

    Nothing is known of what comes behind; a head that is no GGUF's has no keys.
    """
    reader = _Reader(Path(), head, size)
    if head[:4] == b"GGUF":
        with suppress(BadModelFile):
            reader.summary(None)
    return {**{name: place.n for name, place in reader.arrays.items()}, **reader.found}


def read_array(
    summary: Summary, key: str, head: bytes | None = None, *, file: BinaryIO | None = None
) -> list[Any]:
    """The items of an array whose place was found sound; texts as far as they are UTF-8.

    They are read from the file at `summary.path`, from an open `file`, which is closed, or, where
    it is yet to be written, from its `head`.
    """
    place = summary.arrays[key]
    if file is None:
        file = summary.path.open("rb") if head is None else io.BytesIO(head)
    with file:
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


class _Reader(Cursor):
    """The keys and the tensors behind the magic."""

    def __init__(
        self, path: Path, view: mmap.mmap | bytes, size: int, distinct: Distinct = _NONE
    ) -> None:
        super().__init__(path, view, size)
        self.distinct = distinct
        self.n_items = 0
        self.found: dict[str, Any] = {}
        self.arrays: dict[str, ArrayPlace] = {}

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
            raise self.fail(f"{_ALIGNMENT} is {alignment}, {_EXPECTED}")
        tensors = read_tensors(self, n_tensors, alignment)
        data_bytes = sum(tensor.n_bytes for tensor in tensors)
        sizes = n_tensors, data_bytes, self.size
        return Summary(self.path, keys, *sizes, tuple(tensors), self.arrays)

    def keys(self, n: int) -> dict[str, Any]:
        keys = self.found
        for _ in range(n):
            name = self.string("a key's name", MAX_NAME)
            if not name:
                raise self.fail("a key has no name")
            if name in keys:
                raise self.fail(f"the key {quoted(name)} stands twice")
            keys[name] = self.value(name)
            self.release()
        return keys

    def value(self, key: str) -> Any:
        kind = self.take("I")
        if key == _ALIGNMENT and kind != _U32:
            raise self.fail(f"{key} has the type {kind}, expected {_U32} (32 bits, unsigned)")
        if kind in _SCALARS:
            return self.take(_SCALARS[kind])
        if kind == STRING:
            return self.string(f"the value of {quoted(key)}")
        if kind == _ARRAY:
            return self.array(key)
        raise self.fail(f"the key {quoted(key)} has the unknown type {kind}")

    def array(self, key: str) -> int:
        """Step over an array; its length stands for it."""
        kind = self.take("I")
        n = self.count(f"the length of the array {quoted(key)}", MAX_ARRAY)
        self.n_items += n
        if self.n_items > MAX_ARRAY:
            raise self.fail(f"its arrays have more than {MAX_ARRAY} items")
        self.arrays[key] = ArrayPlace(kind, n, self.at)
        if kind in _SCALARS:
            self.skip(n * struct.calcsize("<" + _SCALARS[kind]))
        elif kind == STRING:
            self.skip_strings(key, n)
        else:
            raise self.fail(f"the array {quoted(key)} has elements of the type {kind}")
        return n

    def skip_strings(self, key: str, n: int) -> None:
        needed = self.distinct.get(key)
        if needed is not None and n > MAX_DISTINCT:
            raise self.fail(f"the length of {quoted(key)} is {n}, expected at most {MAX_DISTINCT}")
        vocabulary = None if needed is None else Vocabulary()
        try:
            self.at = walk(self.view, self.at, n, vocabulary)
        except Misfit as misfit:
            raise self.misfit(key, misfit.length) from None
        if self.at > self.end:
            raise self.cut()
        if vocabulary is None or needed is None:
            return
        if len(vocabulary) != n:
            raise self.fail(f"{n - len(vocabulary)} of its {n} tokens stand twice")
        if b"" in vocabulary or vocabulary.has_nul:
            raise self.fail(f"a token in {key} is empty or holds a NUL, expected a text")
        lacking = next((text for text in needed if text not in vocabulary), None)
        if lacking is not None:
            raise self.fail(f"{key} lacks {lacking.decode()!r}, expected a token for each byte")

    def misfit(self, key: str, length: int | None) -> BadModelFile:
        """What to raise where a text of an array does not fit."""
        if length is None:
            return self.fail(f"the file ends at byte {self.end} inside its header")
        limit = f" or is longer than {MAX_STRING}" if length > MAX_STRING else ""
        return self.fail(
            f"a string of {length} bytes in {quoted(key)} does not fit the file{limit}"
        )
