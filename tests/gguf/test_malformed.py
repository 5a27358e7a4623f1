"""Malformed files (llama.cpp's own catalogue, truncated, fuzzed) give one clear error line."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

from edgesppo.errors import BadModelFile
from edgesppo.gguf import gemma2
from tests.support import gguf_maker as make

# A longer run, of any length:
# EDGESPPO_FUZZ=1000000 python -m pytest tests/gguf/test_malformed.py -o faulthandler_timeout=0
N_MUTATIONS = int(os.environ.get("EDGESPPO_FUZZ", "10000"))
KEYS, INFOS = make.sound_keys(), make.sound_infos()
PATH = Path("model.gguf")
I64_MAX = 2**63 - 1


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def aligned(kind: int, value: bytes, infos: list[bytes] = INFOS) -> bytes:
    return make.file([*KEYS, make.key(b"general.alignment", kind, value)], infos)


def tensors(*infos: bytes, data: int = 400) -> bytes:
    return make.file(infos=[*infos], data=data)


ALIGNED_13, ALIGNED_64 = (make.number(b"general.alignment", size) for size in (13, 64))
RANDOM = random.Random(3)
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # type: bytes
RANDOM_KEYS = [
    *(make.key(b"key %d" % kind, kind, RANDOM.randbytes(SCALARS[kind])) for kind in SCALARS),
    *(
        make.key(
            b"list %d" % kind,
            make.ARRAY,
            make.array(kind, [RANDOM.randbytes(SCALARS[kind]) for _ in range(RANDOM.randrange(9))]),
        )
        for kind in SCALARS
    ),
    make.key(b"text", make.STRING, make.string(b"\x01 any text")),
    make.key(
        b"texts", make.ARRAY, make.array(make.STRING, [make.string(b"\xff"), make.string(b"")])
    ),
]
CUSTOM = [
    make.info(b"blk.0.attn_q.weight", [8], 0, 0),
    make.info(b"blk.0.attn_k.weight", [8], 0, 64),
]

# The names are those of llama.cpp's tests/test-gguf.cpp, here and below.
CATALOGUE: dict[str, tuple[bytes, str]] = {
    "HEADER_BAD_MAGIC": (make.file(magic=b"FUGG"), "begins with b'FUGG'"),
    "HEADER_BAD_VERSION_0": (make.file(version=0), "GGUF version 0, expected 2 or 3"),
    "HEADER_BAD_VERSION_1": (make.file(version=1), "GGUF version 1 of 2023"),
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
    "KV_DUPLICATE_KEY": (make.file([*KEYS, KEYS[1]]), "'tokenizer.ggml.tokens' occurs twice"),
    "KV_BAD_ALIGN": (aligned(4, u32(13)), "general.alignment is 13, expected a power of two"),
    "KV_ZERO_ALIGN": (aligned(4, u32(0)), "general.alignment is 0, expected a power of two"),
    "KV_WRONG_TYPE_ALIGN": (aligned(2, b"\x20\0"), "general.alignment has the type 2, expected 4"),
    "KV_TEXT_AS_ALIGN": (aligned(8, make.string(b"32")), "general.alignment has the type 8"),
    "TENSORS_BAD_NAME_SIZE": (
        tensors(make.info(b"n" * 64, [32], 0, 0)),
        "the length of a tensor's name is 64, expected at most 63",
    ),
    "TENSORS_BAD_N_DIMS": (tensors(make.info(b"t", [1] * 5, 0, 0)), "5 dimensions"),
    "TENSORS_BAD_SHAPE": (tensors(make.info(b"t", [2**64 - 1], 0, 0)), "truncated GGUF"),
    "TENSORS_BAD_SHAPE_LATER": (tensors(make.info(b"t", [1, 2**64 - 1], 0, 0)), "larger than"),
    "TENSORS_NE_TOO_BIG": (
        tensors(make.info(b"t", [32, I64_MAX, 2, 2], 0, 0)),
        "empty or larger than the file",
    ),
    "TENSORS_NBYTES_TOO_BIG": (
        tensors(make.info(b"t", [I64_MAX - I64_MAX % 256], 12, 0)),
        "truncated GGUF",
    ),
    "TENSORS_NBYTES_PAD_WRAP": (
        tensors(make.info(b"t", [4, 1073741823, 1073741825], 0, 0)),
        "empty or larger than the file",
    ),
    "TENSORS_BAD_TYPE": (tensors(make.info(b"t", [32], 43, 0)), "unknown type 43"),
    "TENSORS_REMOVED_TYPE": (tensors(make.info(b"t", [32], 4, 0)), "the type Q4_2, which llama"),
    "TENSORS_BAD_OFFSET": (tensors(make.info(b"t", [32], 0, 1)), "not a multiple of 32"),
    "TENSORS_DUPLICATE_NAME": (tensors(INFOS[0], INFOS[0]), "'blk.0.attn_q.weight' occurs"),
    "TENSORS_BAD_ALIGN": (aligned(4, u32(13), [INFOS[0]]), "general.alignment is 13, expected"),
    "TENSORS_INCONSISTENT_ALIGN": (
        aligned(4, u32(64), [INFOS[0], make.info(b"t", [8], 0, 288)]),
        "not a multiple of 64",
    ),
    "DATA_NOT_ENOUGH_DATA": (make.file(data=399), "truncated GGUF: 'blk.0.attn_k.weight' ends at"),
    "DATA_BAD_ALIGN": (
        make.file([*KEYS, ALIGNED_13], INFOS, alignment=13),
        "general.alignment is 13, expected a power of two",
    ),
    "DATA_INCONSISTENT_ALIGN": (
        tensors(INFOS[0], make.info(b"t", [256], 12, 257), data=257 + 144),
        "'t' begins at 257, not a multiple of 32",
    ),
    "DATA_MEM_SIZE_OVERFLOW": (
        tensors(
            make.info(b"a", [0x7FFFFFFFFFFFFFC0], 30, 0),
            make.info(b"b", [0x7FFFFFFFFFFFFFC0], 30, 0x7FFFFFFFFFFFFFC0),
        ),
        "truncated GGUF|overlaps",
    ),
}

CONTROLS = {
    "KV_RANDOM_KV": make.file([*KEYS, *RANDOM_KEYS], [], data=0),
    "TENSORS_SUCCESS": make.file(
        infos=[make.info(b"blk.0.attn_q.weight", [0x100], 0, 0)], data=1024
    ),
    "TENSORS_CUSTOM_ALIGN": make.file([*KEYS, ALIGNED_64], CUSTOM[:1], data=32, alignment=64),
    "DATA_SUCCESS": make.file([*KEYS, *RANDOM_KEYS]),
    "DATA_CUSTOM_ALIGN": make.file([*KEYS, ALIGNED_64], CUSTOM, data=64 + 32, alignment=64),
}


def judged(data: bytes) -> str | None:
    """The error for a file of these bytes, in one line; None if it is valid."""
    try:
        gemma2.check_head(data, len(data), PATH)
    except BadModelFile as error:
        assert "\n" not in str(error)  # noqa: PT017
        return str(error)
    return None


@pytest.mark.parametrize("case", CATALOGUE)
def test_each_malformation_that_llama_refuses_is_refused_by_name(case: str, tmp_path: Path) -> None:
    data, complaint = CATALOGUE[case]
    make.assert_refused(tmp_path / "model.gguf", data, complaint)


@pytest.mark.parametrize("case", CONTROLS)
def test_the_sound_files_of_the_catalogue_are_accepted(case: str) -> None:
    assert judged(CONTROLS[case]) is None


def test_a_tensor_of_no_weights_is_refused_though_llama_reads_it() -> None:
    complaint = judged(tensors(make.info(b"t", [32, 0], 0, 0)))  # TENSORS_ZERO_DIM
    assert "empty or larger than the file" in (complaint or "")


def test_a_header_cut_at_any_byte_is_refused() -> None:
    whole = make.file()
    assert judged(whole) is None
    for length in range(4, len(whole)):
        assert judged(whole[:length]) is not None


def test_mutations_give_our_own_error_or_a_sound_file() -> None:
    whole, rng = make.file(), random.Random(20)
    # The middle of the tokens is much of the same.
    dull = range(whole.index(b"<0x04>"), whole.index(b"<0xFC>"))
    places = [at for at in range(4, len(whole) - 400) if at not in dull]
    refused = 0
    for _ in range(N_MUTATIONS):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            _mutate(data, places, rng)
        refused += judged(bytes(data)) is not None
    assert N_MUTATIONS // 4 < refused < N_MUTATIONS


def _mutate(data: bytearray, places: list[int], rng: random.Random) -> None:
    """One mutation: a byte or a number changed, a range copied, inserted or removed."""
    at, kind = rng.choice(places), rng.randrange(5)
    if kind == 0:
        data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    elif kind == 1:
        value = rng.choice([0, 1, 2**31, 2**32 - 1, 2**62, I64_MAX, 2**63, 2**64 - 1])
        data[at : at + 8] = struct.pack("<Q", value)
    elif kind == 2:
        source = rng.choice(places)
        data[at : at + 16] = data[source : source + 16]
    elif kind == 3:
        data[at:at] = rng.randbytes(rng.randint(1, 12))
    else:
        del data[at : at + rng.randint(1, 12)]
