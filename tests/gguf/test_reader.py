"""A GGUF file is checked before native code reads it: one clear error line, never a crash."""

from __future__ import annotations

import os
import random
import struct
from typing import TYPE_CHECKING

import pytest

import edgesppo
from edgesppo.gguf import gemma2, reader
from tests.support import gguf_maker as make

if TYPE_CHECKING:
    from pathlib import Path

N_MUTATIONS = 1_000  # on the disk; test_malformed.py has many more in memory
KEYS, INFOS = make.sound_keys(), make.sound_infos()
HUGE = 2**63
CASES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty, expected a GGUF file"),
    "not a GGUF": (b"PK\x03\x04 a zip", r"not a GGUF file: it begins with b'PK"),
    "a web page": (b"<!DOCTYPE html>", r"begins with b'<!DO', expected b'GGUF'"),
    "big-endian": (make.file(version=0x03000000), "a big-endian GGUF file"),
    "version 1": (make.file(version=1), "GGUF version 1 of 2023"),
    "countless tensors": (make.file(n_tensors=HUGE), "number of tensors is 9223372036854775808"),
    "countless keys": (make.file(n_keys=HUGE), "number of keys is 9223372036854775808"),
    "a key twice": (make.file([*KEYS, KEYS[0]]), "the key 'general.architecture' occurs twice"),
    "a long name": (make.file([struct.pack("<Q", HUGE)]), "length of a key's name"),
    "a name of bad bytes": (make.file([make.key(b"\xff", 4, b"\0" * 4)]), "not UTF-8"),
    "an unknown type": (make.file([make.key(b"x", 99, b"")]), "'x' has the unknown type 99"),
    "a nested array": (
        make.file([make.key(b"x", 9, make.array(9, []))]),
        "array 'x' has elements of the type 9",
    ),
    "an endless array": (
        make.file([make.key(b"x", 9, make.array(4, [], n=HUGE))]),
        "length of the array 'x'",
    ),
    "an endless string in an array": (
        make.file([make.key(b"x", 9, make.array(8, [struct.pack("<Q", 2**62)]))]),
        "does not fit the file",
    ),
    "another architecture": (
        make.file([make.key(b"general.architecture", 8, make.string(b"llama")), *KEYS[1:]]),
        "architecture 'llama', expected 'gemma2'",
    ),
    "no architecture": (make.file(KEYS[1:]), "architecture None, expected 'gemma2'"),
    "no vocabulary": (make.file(KEYS[:1]), "no array tokenizer.ggml.tokens"),
    **{
        f"{name} that is a number": (
            make.file([KEYS[0], *(k for k in KEYS[1:] if name.encode() not in k), scalar]),
            f"no array tokenizer.ggml.{name}",
        )
        for name in ("tokens", "scores", "token_type")
        for scalar in [make.key(f"tokenizer.ggml.{name}".encode(), 4, struct.pack("<I", 2))]
    },
    "scores of one byte": (
        make.file([*KEYS[:2], make.key(b"tokenizer.ggml.scores", 9, make.array(0, [b"1"] * 258))]),
        "tokenizer.ggml.scores has elements of the type 0, expected 6",
    ),
    "an odd alignment": (
        make.file([*KEYS, make.key(b"general.alignment", 4, struct.pack("<I", 24))]),
        "general.alignment is 24",
    ),
    "a tensor twice": (make.file(infos=[INFOS[0], INFOS[0]]), "'blk.0.attn_q.weight' occurs twice"),
    "no dimensions": (make.file(infos=[make.info(b"t", [], 0, 0)]), "0 dimensions"),
    "five dimensions": (make.file(infos=[make.info(b"t", [1] * 5, 0, 0)]), "5 dimensions"),
    "a product that overflows": (
        make.file(infos=[make.info(b"t", [2**32, 2**32, 2**32], 0, 0)]),
        "larger than the file",
    ),
    "an empty tensor": (make.file(infos=[make.info(b"t", [0], 0, 0)]), "rows of 0"),
    "broken rows": (make.file(infos=[make.info(b"t", [255], 12, 0)]), "expected a multiple of 256"),
    "an unknown block": (make.file(infos=[make.info(b"t", [32], 77, 0)]), "unknown type 77"),
    "an unaligned tensor": (make.file(infos=[make.info(b"t", [8], 0, 4)]), "multiple of 32"),
    "overlapping tensors": (
        make.file(infos=[INFOS[0], make.info(b"t", [8], 0, 32)]),
        "'t' overlaps 'blk.0.attn_q.weight'",
    ),
    "a tensor past the end": (
        make.file(infos=[make.info(b"t", [8], 0, 2**40)]),
        "truncated GGUF: 't' ends at byte",
    ),
    "an offset that overflows": (
        make.file(infos=[make.info(b"t", [8], 0, 2**64 - 32)]),
        "truncated GGUF",
    ),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_a_valid_file_gives_its_summary(path: Path) -> None:
    path.write_bytes(make.file())
    summary = gemma2.load_summary(path)
    assert summary.keys["general.architecture"] == "gemma2"
    assert (summary.n_tensors, summary.data_bytes) == (2, 256 + 144)


@pytest.mark.parametrize("case", CASES)
def test_a_malformed_file_is_refused_in_one_clear_line(path: Path, case: str) -> None:
    data, complaint = CASES[case]
    make.assert_refused(path, data, complaint)


def test_a_truncated_file_is_refused(path: Path) -> None:
    whole = make.file()
    for length in [*range(64), *range(64, len(whole), 61), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(edgesppo.BadModelFile):
            gemma2.load_summary(path)


def test_a_mutated_file_is_valid_or_gives_our_own_error(path: Path) -> None:
    whole, rng = make.file(), random.Random(5)
    for _ in range(N_MUTATIONS):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data) - 400)] = rng.choice(
                [0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)]
            )
        path.write_bytes(data)
        try:
            gemma2.load_summary(path)
        except edgesppo.BadModelFile as error:
            assert "\n" not in str(error)  # noqa: PT017 - most mutations must fail, not all


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context_length", struct.pack("<II", 4, 0)),
        ("context_length", struct.pack("<II", 4, 2**32 - 1)),
        ("block_count", struct.pack("<II", 4, 0)),
        ("block_count", struct.pack("<II", 4, 2**31 - 1)),
        ("attention.layer_norm_rms_epsilon", struct.pack("<If", 6, float("nan"))),
        ("attention.head_count_kv", struct.pack("<II", 4, 0)),
        ("feed_forward_length", struct.pack("<IQ", 8, 1) + b"x"),
    ],
)
def test_an_invalid_hyper_parameter_is_refused_with_its_name(
    path: Path, name: str, value: bytes
) -> None:
    key = make.string(b"gemma2." + name.encode()) + value
    path.write_bytes(make.file([*KEYS, key]))
    with pytest.raises(edgesppo.BadModelFile, match=f"gemma2.{name} is .*, expected"):
        gemma2.load_summary(path)


@pytest.mark.parametrize(
    ("name", "kind", "value", "complaint"),
    [
        ("", 4, struct.pack("<I", 1), "damaged GGUF: tokenizer.chat_template is not a string"),
        ("", 9, make.array(8, []), "tokenizer.chat_template is not a string"),
        ("", 8, make.string(b"{{ '<start_of_turn><end_of_turn>' }}" + b" " * 65_536), "65,536"),
        ("", 8, make.string(b"\xff"), "not UTF-8"),
        ("", 8, make.string(b"<|im_start|>"), "is not Gemma-2's: it has no '<start_of_turn>'"),
        ("", 8, make.string(b"<start_of_turn>"), "is not Gemma-2's: it has no '<end_of_turn>'"),
    ],
)
def test_a_chat_template_of_another_model_is_refused(
    path: Path, name: str, kind: int, value: bytes, complaint: str
) -> None:
    sound = make.key(b"tokenizer.chat_template", 8, make.string(b"<start_of_turn><end_of_turn>"))
    path.write_bytes(make.file([*KEYS, sound]))
    gemma2.load_summary(path)
    key = make.key(b"tokenizer.chat_template" + name.encode(), kind, value)
    path.write_bytes(make.file([*KEYS, key]))
    with pytest.raises(edgesppo.BadModelFile, match=complaint) as caught:
        gemma2.load_summary(path)
    assert str(caught.value).isprintable()


def test_a_duplicate_token_is_refused(path: Path) -> None:
    path.write_bytes(make.model(tokens=[*make.BYTES, b"a", b"a"]))
    with pytest.raises(edgesppo.BadModelFile, match="257 of its 258 tokens differ"):
        gemma2.load_summary(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_without_waiting(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(edgesppo.BadModelFile, match="not a regular file"):
        gemma2.load_summary(path)


def test_a_missing_file_and_a_folder_have_errors_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(edgesppo.ModelNotFound, match="no such file"):
        gemma2.load_summary(tmp_path / "none.gguf")
    with pytest.raises(edgesppo.BadModelFile, match="is a folder"):
        gemma2.load_summary(tmp_path)


def test_a_truncated_real_model_is_refused_before_it_is_loaded(path: Path, demo_gguf: Path) -> None:
    whole = demo_gguf.read_bytes()
    for length in (3, 100, 20_000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(edgesppo.BadModelFile, match=r"download or convert it again|not a GGUF"):
            edgesppo.load(path)


def test_llamas_own_refusal_is_passed_on_in_one_line(path: Path, demo_gguf: Path) -> None:
    whole = demo_gguf.read_bytes()
    path.write_bytes(whole.replace(b"blk.0.attn_k.weight", b"blk.9.attn_k.weight"))
    with pytest.raises(
        edgesppo.BadModelFile, match=r"tensor 'blk\.0\.attn_k\.weight' not found"
    ) as caught:
        edgesppo.load(path)
    assert "\n" not in str(caught.value)


def test_tensors_and_arrays_can_be_read(path: Path) -> None:
    path.write_bytes(make.file())
    summary = gemma2.load_summary(path)
    assert [(t.name, t.type, t.dims, t.n_bytes) for t in summary.tensors] == [
        ("blk.0.attn_q.weight", "F32", (32, 2), 256),
        ("blk.0.attn_k.weight", "Q4_K", (256,), 144),
    ]
    assert gemma2.read_array(summary, "tokenizer.ggml.tokens")[:3] == ["a", "b", "<0x00>"]
    assert gemma2.read_array(summary, "tokenizer.ggml.scores") == [0.0] * 258
    os.truncate(path, 500)
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.scores"):
        with pytest.raises(edgesppo.BadModelFile, match="became shorter"):
            gemma2.read_array(summary, key)


def test_check_head_agrees_with_the_check_of_the_complete_file(path: Path) -> None:
    whole = make.file()
    path.write_bytes(whole)
    head = whole[: -(256 + 144)]
    assert gemma2.check_head(head, len(whole), path) == gemma2.load_summary(path)
    with pytest.raises(edgesppo.BadModelFile, match="truncated GGUF"):
        gemma2.check_head(head, len(whole) - 1, path)
    with pytest.raises(edgesppo.BadModelFile, match="inside its header"):
        gemma2.check_head(head[:40], len(whole), path)


@pytest.mark.skipif(os.name == "nt", reason="Windows does not shorten a file that is open")
def test_a_file_that_is_shortened_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    many = [make.info(b"blk.%d.attn_q.weight" % n, [32, 2], 0, 256 * n) for n in range(2_000)]
    path.write_bytes(make.file(KEYS, many, data=256 * 2_000))

    def shorten(*_: object) -> None:
        os.truncate(path, 4_096)

    with pytest.raises(edgesppo.BadModelFile, match="became shorter while it was read"):
        reader.read(path, shorten)
