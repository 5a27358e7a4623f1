"""Every malformation of llama.cpp's own catalogue, truncation, fuzz: one clear line, 50 MB."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgesppo import gguf_reader, preflight
from edgesppo.errors import BadModelFile
from tests import gguf_maker as make

if TYPE_CHECKING:
    from collections.abc import Callable

# A longer run: EDGESPPO_FUZZ=1000000 python -m pytest tests/test_malformed.py
N_MUTATIONS = int(os.environ.get("EDGESPPO_FUZZ", "10000"))
MAX_MEMORY = 50_000_000
KEYS, INFOS = make.sound_keys(), make.sound_infos()
PATH = Path("model.gguf")
ROOT = Path(__file__).parent.parent
I64_MAX = 2**63 - 1


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def aligned(kind: int, value: bytes, infos: list[bytes] = INFOS) -> bytes:
    return make.file([*KEYS, make.key(b"general.alignment", kind, value)], infos)


def tensors(*infos: bytes, data: int = 400) -> bytes:
    return make.file(infos=[*infos], data=data)


# The names are those of llama.cpp's tests/test-gguf.cpp.
CATALOGUE: dict[str, tuple[bytes, str]] = {
    "HEADER_BAD_MAGIC": (make.file(magic=b"FUGG"), "begins with b'FUGG'"),
    "HEADER_BAD_VERSION_0": (make.file(version=0), "GGUF version 0, expected 2 or 3"),
    "HEADER_BAD_VERSION_1": (make.file(version=1), "GGUF version 1, expected 2 or 3"),
    "HEADER_BAD_VERSION_FUTURE": (make.file(version=4), "GGUF version 4, expected 2 or 3"),
    "HEADER_BAD_N_TENSORS": (make.file(n_tensors=2**64 - 1), "the number of tensors is 1844"),
    "HEADER_BAD_N_KV": (make.file(n_keys=2**64 - 1), "the number of keys is 1844"),
    "HEADER_EMPTY": (make.file([], [], data=0), "architecture None"),
    "KV_BAD_KEY_SIZE": (make.file([struct.pack("<Q", 2**64 - 1) + b"x"]), "a key's name is 1844"),
    "KV_EMPTY_KEY": (make.file([make.key(b"", 4, u32(1)), *KEYS]), "a key has no name"),
    "KV_BAD_TYPE": (make.file([make.key(b"k", 13, b"\0" * 8)]), "unknown type 13"),
    "KV_BAD_ARRAY_TYPE": (
        make.file([make.key(b"k", 9, make.array(13, [b"\0"]))]),
        "elements of the type 13",
    ),
    "KV_BAD_VALUE_SIZE": (
        make.file([make.key(b"k", 8, struct.pack("<Q", 2**64 - 1))]),
        "the length of the value of 'k' is 1844",
    ),
    "KV_DUPLICATE_KEY": (make.file([*KEYS, KEYS[1]]), "'tokenizer.ggml.tokens' stands twice"),
    "KV_BAD_ALIGN": (aligned(4, u32(13)), "general.alignment is 13, expected a power of two"),
    "KV_ZERO_ALIGN": (aligned(4, u32(0)), "general.alignment is 0, expected a power of two"),
    "KV_WRONG_TYPE_ALIGN": (aligned(2, b"\x20\0"), "general.alignment has the type 2, expected 4"),
    "KV_TEXT_AS_ALIGN": (aligned(8, make.string(b"32")), "general.alignment has the type 8"),
    "TENSORS_BAD_NAME_SIZE": (
        tensors(make.info(b"n" * 64, [32], 0, 0)),
        "the length of a tensor's name is 64, expected at most 63",
    ),
    "TENSORS_BAD_N_DIMS": (tensors(make.info(b"t", [1] * 5, 0, 0)), "5 dimensions"),
    "TENSORS_BAD_SHAPE": (tensors(make.info(b"t", [2**64 - 1], 0, 0)), "does not fit|truncated"),
    "TENSORS_BAD_SHAPE_LATER": (tensors(make.info(b"t", [1, 2**64 - 1], 0, 0)), "larger than"),
    "TENSORS_ZERO_DIM": (tensors(make.info(b"t", [32, 0], 0, 0)), "larger than the file or empty"),
    "TENSORS_NE_TOO_BIG": (
        tensors(make.info(b"t", [32, I64_MAX, 2, 2], 0, 0)),
        "larger than the file or empty",
    ),
    "TENSORS_NBYTES_TOO_BIG": (
        tensors(make.info(b"t", [I64_MAX - I64_MAX % 256], 12, 0)),
        "truncated GGUF",
    ),
    "TENSORS_NBYTES_PAD_WRAP": (
        tensors(make.info(b"t", [4, 1073741823, 1073741825], 0, 0)),
        "larger than the file or empty",
    ),
    "TENSORS_BAD_TYPE": (tensors(make.info(b"t", [32], 41, 0)), "unknown type 41"),
    "TENSORS_REMOVED_TYPE": (tensors(make.info(b"t", [32], 4, 0)), "unknown type 4"),
    "TENSORS_BAD_OFFSET": (tensors(make.info(b"t", [32], 0, 1)), "not a multiple of 32"),
    "TENSORS_DUPLICATE_NAME": (tensors(INFOS[0], INFOS[0]), "'one.weight' stands twice"),
    "TENSORS_INCONSISTENT_ALIGN": (
        aligned(4, u32(64), [INFOS[0], make.info(b"t", [8], 0, 288)]),
        "not a multiple of 64",
    ),
    "DATA_NOT_ENOUGH_DATA": (make.file(data=399), "truncated GGUF: 'two.weight' ends at byte"),
    "DATA_MEM_SIZE_OVERFLOW": (
        tensors(
            make.info(b"a", [0x7FFFFFFFFFFFFFC0], 30, 0),
            make.info(b"b", [0x7FFFFFFFFFFFFFC0], 30, 0x7FFFFFFFFFFFFFC0),
        ),
        "truncated GGUF|overlaps",
    ),
}


# What a process takes while it looks at a file, and its complaint; as the system counts it, which
# is ten times faster than to trace every allocation.
PEAK = """
import sys, tracemalloc
from pathlib import Path
from edgesppo import errors, preflight
status = Path("/proc/self/status")
def memory(key):
    if not status.exists():
        return tracemalloc.get_traced_memory()[key == "VmHWM"]
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[key].split()[0]) * 1024
if not status.exists():
    tracemalloc.start()
before, found = memory("VmRSS"), ""
try:
    preflight.check(Path(sys.argv[1]))
except errors.BadModelFile as error:
    found = str(error)
print(memory("VmHWM") - before, found)
"""


def judged(data: bytes) -> str | None:
    """What is wrong with a file of these bytes, in one line; None where nothing is."""
    try:
        preflight.check_head(data, len(data), PATH)
    except BadModelFile as error:
        assert "\n" not in str(error)  # noqa: PT017
        return str(error)
    return None


@pytest.mark.parametrize("case", CATALOGUE)
def test_each_malformation_that_llama_refuses_is_refused_by_name(case: str, tmp_path: Path) -> None:
    data, complaint = CATALOGUE[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(BadModelFile, match=complaint) as caught:
        preflight.check(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_what_llama_accepts_of_alignments_is_accepted(alignment: int) -> None:
    head = aligned(4, u32(alignment), [make.info(b"t", [8], 0, 0)])
    assert judged(head + b"\0" * 2 * alignment) is None


def test_a_header_cut_at_any_byte_is_refused() -> None:
    whole = make.file()
    assert judged(whole) is None
    for length in range(4, len(whole)):
        assert judged(whole[:length]) is not None


def test_mutations_give_our_own_error_or_a_sound_file() -> None:
    whole, rng = make.file(), random.Random(20)
    head = len(whole) - 400
    refused = 0
    for _ in range(N_MUTATIONS):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            _mutate(data, head, rng)
        refused += judged(bytes(data)) is not None
    assert N_MUTATIONS // 4 < refused < N_MUTATIONS


def _mutate(data: bytearray, head: int, rng: random.Random) -> None:
    """One change: a byte, a whole number, a stretch copied, put in or taken out."""
    at, kind = rng.randrange(4, head), rng.randrange(5)
    if kind == 0:
        data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    elif kind == 1:
        value = rng.choice([0, 1, 2**31, 2**32 - 1, 2**62, I64_MAX, 2**63, 2**64 - 1])
        data[at : at + 8] = struct.pack("<Q", value)
    elif kind == 2:
        source = rng.randrange(4, head)
        data[at : at + 16] = data[source : source + 16]
    elif kind == 3:
        data[at:at] = rng.randbytes(rng.randint(1, 12))
    else:
        del data[at : at + rng.randint(1, 12)]


def _many_tokens() -> bytes:
    n = gguf_reader.MAX_DISTINCT
    text = b"".join(make.string(b"%d" % i) for i in range(n))
    listed = make.key(b"tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, n) + text)
    scores = make.key(b"tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, n) + b"\0" * 4 * n)
    types = make.key(b"tokenizer.ggml.token_type", 9, struct.pack("<IQ", 4, n) + b"\0" * 4 * n)
    return make.file([KEYS[0], listed, scores, types])


def _many_keys() -> bytes:
    n = gguf_reader.MAX_KEYS - len(KEYS)
    value = make.string("\U0001f642".encode() * 100)
    return make.file([*KEYS, *(make.key(b"key %d" % i, 8, value) for i in range(n))])


def _many_tensors() -> bytes:
    infos = [make.info(b"t" * 50 + b"%d" % i, [8], 0, 32 * i) for i in range(8192)]
    return make.file(infos=infos, data=32 * len(infos))


def _long_texts() -> bytes:
    values = [make.key(b"k%d" % i, 8, make.string(b"x" * 2_000_000)) for i in range(4)]
    return make.file([*KEYS, *values])


@pytest.mark.parametrize(
    ("data", "complaint"),
    [(_many_tokens, None), (_many_keys, None), (_many_tensors, None), (_long_texts, "4194304")],
)
def test_the_largest_head_that_is_read_takes_less_than_50_megabytes(
    data: Callable[[], bytes], complaint: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data())
    words = [sys.executable, "-c", PEAK, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    peak, _, found = done.stdout.strip().partition(" ")
    assert 0 < int(peak) < MAX_MEMORY
    assert complaint in found if complaint else not found
