"""Read the header of an untrusted GGUF file: its keys, and where its tensors are.

No count, size or offset of the file is trusted, and neither tensors nor arrays are held in memory.
The result is a `Summary`, or one clear `BadModelFile`.

    file:  magic "GGUF" | version u32 | n_tensors u64 | n_keys u64 | keys | infos | pad | data
    key:   name | type u32 | value           name, string: length u64 | bytes
    info:  see tensors.py
    (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadModelFile, ModelNotFound, ModelUnreadable, OutOfMemory
from edgesppo.gguf.cursor import ADVICE, Cursor
from edgesppo.gguf.file_bytes import FileBytes
from edgesppo.gguf.strings import MAX_STRING, StringOutOfBounds, Vocabulary, skip_array
from edgesppo.gguf.tensors import TensorEntry, read_tensors
from edgesppo.system.content import HEAD, mistaken_for
from edgesppo.system.shell import shell_word
from edgesppo.system.validate import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    # Arrays whose strings must differ, not be empty and contain no NUL -> strings required in them.
    Distinct = Mapping[str, Collection[bytes]]

    # Returns what is wrong with the keys and arrays, None if nothing is; called before the tensors
    # are read.
    KeyCheck = Callable[[Mapping[str, Any], Mapping[str, "ArrayInfo"]], str | None]

__all__ = [
    "ADVICE",
    "ArrayInfo",
    "Summary",
    "TensorEntry",
    "peek",
    "read",
    "read_head",
]

MAX_KEYS = MAX_TENSORS = 8_192
MAX_ARRAY = 4_194_304  # items of all arrays together
MAX_DISTINCT = 300_000  # strings of an array that must differ; Gemma-2 has 256,000
MAX_NAME = 65_535
_ALIGNMENT, _U32 = "general.alignment", 4
# GGUF allows smaller ones, but llama.cpp aborts on some of them where weights are mapped.
_ALIGNMENTS = [2**n for n in range(5, 17)]
_EXPECTED = f"expected a power of two from {_ALIGNMENTS[0]} to {_ALIGNMENTS[-1]}"

SCALARS = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}
STRING, _ARRAY = 8, 9
_NONE: Distinct = {}


@dataclass(frozen=True)
class ArrayInfo:
    """The type of an array's elements (GGUF's number), its length, and its offset in the file.

    `n_bytes` is its size there: 0 if the head that was read ends inside it.
    """

    element_type: int
    length: int
    offset: int
    n_bytes: int = 0


@dataclass(frozen=True)
class Summary:
    """The header of a valid GGUF file; in `keys` an array is represented by its length."""

    path: Path
    keys: dict[str, Any]
    n_tensors: int
    data_bytes: int
    file_bytes: int
    tensors: tuple[TensorEntry, ...]  # in the order of their data
    arrays: dict[str, ArrayInfo]


def read(path: Path, check_keys: KeyCheck | None = None, distinct: Distinct = _NONE) -> Summary:
    """Check a file's structure against its real size, reading its head only.

    `distinct` maps names of string arrays to strings that they must contain. Their strings must
    differ, and none may be empty or contain a NUL: llama.cpp looks them up as C strings. Raises
    ModelNotFound when there is no such file, BadModelFile when it is not a complete GGUF file
    (ModelUnreadable when that is not known), and what `check_keys` raises.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):  # on Windows to open one is refused as anything is
            raise BadModelFile(f"{path} is a folder, expected a GGUF file")
        if not stat.S_ISREG(mode):
            raise BadModelFile(f"{path} is not a regular file, expected a GGUF file")
        with path.open("rb") as file:
            head = file.read(4)
            if head != b"GGUF":
                raise BadModelFile(_not_gguf(path, head + file.read(HEAD)))
            view = FileBytes(path, file)
            return _Reader(path, view, len(view), distinct).read_summary(check_keys)
    except FileNotFoundError:
        raise ModelNotFound(f"{path}: no such file") from None
    except MemoryError:
        raise OutOfMemory(f"{path}: cannot be read: {os.strerror(errno.ENOMEM)}") from None
    except OSError as error:
        kind = OutOfMemory if error.errno == errno.ENOMEM else ModelUnreadable
        raise kind(f"{path}: cannot be read: {error.strerror or error}") from None


def read_head(
    head: bytes, size: int, path: Path, check_keys: KeyCheck, distinct: Distinct
) -> Summary:
    """Like `read`, for a file of `size` bytes that begins with `head` and is yet to be written."""
    return _Reader(path, head, size, distinct).read_summary(check_keys)


def peek(head: bytes, size: int) -> dict[str, Any]:
    """The keys in the first bytes of a file of `size` bytes, arrays as their length.

    Keys that the bytes do not reach are left out; bytes that are not GGUF have no keys.
    """
    reader = _Reader(Path(), head, size)
    if head[:4] == b"GGUF":
        with suppress(BadModelFile):
            reader.read_summary(None)
    return {**{name: array.length for name, array in reader.arrays.items()}, **reader.keys}


def _not_gguf(path: Path, head: bytes) -> str:
    if not head:
        return f"{path} is empty, expected a GGUF file{ADVICE}"
    fault = f"{path} is not a GGUF file: it begins with {head[:4]!r}, expected b'GGUF'"
    mistaken = mistaken_for(head)
    if mistaken is not None:
        return f"{fault}; it is {mistaken}"
    with_config = (".json", ".model", ".bin") if (path.parent / "config.json").exists() else ()
    if path.suffix in (".safetensors", *with_config):
        folder = shell_word(str(path.parent))
        return (
            f"{path} is one file of a checkpoint, expected a GGUF file; give the checkpoint's"
            f" folder, which is converted first: edgesppo chat {folder}"
        )
    return fault


class _Reader(Cursor):
    """Reads what follows the magic: the keys and the tensor infos."""

    def __init__(
        self, path: Path, view: FileBytes | bytes, size: int, distinct: Distinct = _NONE
    ) -> None:
        super().__init__(path, view, size)
        self.distinct = distinct
        self.n_items = 0
        self.keys: dict[str, Any] = {}
        self.arrays: dict[str, ArrayInfo] = {}

    def read_summary(self, check_keys: KeyCheck | None) -> Summary:
        version = self.take("I")
        if version not in (2, 3):
            raise self.bad_version(version)
        n_tensors = self.count("the number of tensors", MAX_TENSORS)
        n_keys = self.count("the number of keys", MAX_KEYS)
        keys = self.read_keys(n_keys)
        complaint = check_keys(keys, self.arrays) if check_keys else None
        if complaint:
            raise self.fail(complaint)
        alignment = keys.get(_ALIGNMENT, 32)
        if alignment not in _ALIGNMENTS:
            raise self.fail(f"{_ALIGNMENT} is {alignment}, {_EXPECTED}")
        tensors = read_tensors(self, n_tensors, alignment)
        data_bytes = sum(tensor.n_bytes for tensor in tensors)
        sizes = n_tensors, data_bytes, self.size
        return Summary(self.path, keys, *sizes, tuple(tensors), self.arrays)

    def bad_version(self, version: int) -> BadModelFile:
        """The error to raise for a version that llama.cpp does not read."""
        if version == 1:
            return BadModelFile(
                f"{self.path}: GGUF version 1 of 2023, which llama.cpp no longer reads; take a"
                " newer file of the model"
            )
        if version and version & 0xFFFF == 0:
            return BadModelFile(
                f"{self.path}: a big-endian GGUF file, expected little-endian; take the file for"
                " PCs, or convert the checkpoint"
            )
        return self.fail(f"GGUF version {version}, expected 2 or 3")

    def read_keys(self, n: int) -> dict[str, Any]:
        keys = self.keys
        for _ in range(n):
            name = self.string("a key's name", MAX_NAME)
            if not name:
                raise self.fail("a key has no name")
            if name in keys:
                raise self.fail(f"the key {quoted(name)} occurs twice")
            keys[name] = self.read_value(name)
        return keys

    def read_value(self, key: str) -> Any:
        kind = self.take("I")
        if key == _ALIGNMENT and kind != _U32:
            raise self.fail(f"{key} has the type {kind}, expected {_U32} (32 bits, unsigned)")
        if kind in SCALARS:
            return self.take(SCALARS[kind])
        if kind == STRING:
            return self.string(f"the value of {quoted(key)}")
        if kind == _ARRAY:
            return self.skip_array(key)
        raise self.fail(f"the key {quoted(key)} has the unknown type {kind}")

    def skip_array(self, key: str) -> int:
        """Skip an array and remember where it is; returns its length."""
        kind = self.take("I")
        n = self.count(f"the length of the array {quoted(key)}", MAX_ARRAY)
        self.n_items += n
        if self.n_items > MAX_ARRAY:
            raise self.fail(f"its arrays have more than {MAX_ARRAY} items")
        self.arrays[key] = ArrayInfo(kind, n, self.at)
        if kind in SCALARS:
            self.skip(n * struct.calcsize("<" + SCALARS[kind]))
        elif kind == STRING:
            self.skip_strings(key, n)
        else:
            raise self.fail(f"the array {quoted(key)} has elements of the type {kind}")
        found = self.arrays[key]
        self.arrays[key] = replace(found, n_bytes=self.at - found.offset)
        return n

    def skip_strings(self, key: str, n: int) -> None:
        required = self.distinct.get(key)
        if required is not None and n > MAX_DISTINCT:
            raise self.fail(f"the length of {quoted(key)} is {n}, expected at most {MAX_DISTINCT}")
        vocabulary = None if required is None else Vocabulary()
        try:
            self.at = skip_array(self.view, self.at, n, vocabulary)
        except StringOutOfBounds as error:
            raise self.out_of_bounds(key, error.length) from None
        if self.at > self.end:
            raise self.truncated()
        if vocabulary is None or required is None:
            return
        if len(vocabulary) != n:
            raise self.fail(f"{len(vocabulary)} of its {n} tokens differ, expected all of them")
        if b"" in vocabulary or b"\0" in (vocabulary.nul or b""):
            raise self.fail(f"a token in {key} is empty or contains a NUL character")
        if vocabulary.nul is not None:
            raise self.fail(
                f"the token {quoted(vocabulary.nul)} in {key} is not UTF-8, and llama.cpp would "
                "read a NUL character in it"
            )
        missing = next((text for text in required if text not in vocabulary), None)
        if missing is not None:
            raise self.fail(f"{key} lacks {missing.decode()!r}, expected a token for each byte")

    def out_of_bounds(self, key: str, length: int | None) -> BadModelFile:
        """The error to raise where a string of an array reaches beyond the file."""
        if length is None:
            return self.fail(f"the file ends at byte {self.end} inside its header")
        limit = f" or is longer than {MAX_STRING}" if length > MAX_STRING else ""
        return self.fail(
            f"a string of {length} bytes in {quoted(key)} does not fit the file{limit}"
        )
