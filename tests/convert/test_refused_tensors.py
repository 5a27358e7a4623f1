"""Tensors that must be refused: what they hold, their shapes, too few or too many."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo_convert import convert
from tests.support.bad_checkpoint import (
    EMBEDDING,
    NORM,
    append_tensor,
    change_header,
    change_json,
    poke,
    refused,
)
from tests.support.llama_quantizer import differences, llama_quantize
from tests.support.same_model import model_of
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from pathlib import Path


def test_a_shard_of_the_right_size_whose_download_has_not_finished(
    single: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights, out = single / "model.safetensors", tmp_path / "model.gguf"
    convert(single, out)
    assert not caplog.text
    size = weights.stat().st_size
    os.truncate(weights, size * 6 // 10)
    os.truncate(weights, size)
    control = single / "model.safetensors.aria2"
    control.touch()
    refused(single, BadCheckpoint, control.name, "has not finished")
    control.unlink()
    convert(single, out, force=True)
    assert caplog.text.count("is zero from row") == 1


@pytest.mark.parametrize("dtype", ["I8", "F8_E4M3", "F64"])
def test_a_dtype_that_is_not_read(single: Path, dtype: str) -> None:
    change_header(single / "model.safetensors", lambda h: h[NORM].update(dtype=dtype))
    refused(single, UnsupportedCheckpoint, NORM, dtype, "BF16, F16 and F32")


@pytest.mark.parametrize(
    ("tensor", "element", "half", "words"),
    [
        (EMBEDDING, 5 * 288 + 17, 0x7FC0, "has the value nan at [5, 17]"),
        (EMBEDDING, 599 * 288 + 287, 0x7F80, "has the value inf at [599, 287]"),
        ("model.layers.1.mlp.down_proj.weight", 416, 0xFF80, "has the value -inf at [1, 0]"),
        (NORM, 7, 0xFFFF, "has the value nan at [7]"),
    ],
)
def test_a_weight_that_is_no_number(
    single: Path, tensor: str, element: int, half: int, words: str
) -> None:
    poke(single / "model.safetensors", tensor, element, half)
    refused(single, BadCheckpoint, tensor, words)


@pytest.mark.parametrize(
    ("kind", "half", "value"),
    [("f16", 0x4780, "65536.0"), ("q8_0", 0x4C00, "33554432.0"), ("q4_k_m", 0x7E80, "8.5.*e\\+37")],
)
def test_a_weight_too_large_for_its_type(
    single: Path, tmp_path: Path, kind: str, half: int, value: str
) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    poke(single / "model.safetensors", name, 289, half)
    with pytest.raises(
        BadCheckpoint, match=rf"{name} has the value {value} at \[1, 1\]; that is too"
    ):
        convert(single, tmp_path / "out.gguf", type=kind)
    convert(single, tmp_path / "out.gguf", type="bf16")


@pytest.mark.parametrize(
    "kind", ["q4_k_m", *(("q8_0", "q4_0", "q5_k_m", "q6_k", "iq4_xs") if LONG else ())]
)
def test_a_weight_beyond_float16_is_quantised_as_llama_cpp_does(
    single: Path, tmp_path: Path, kind: str
) -> None:
    for element in (289, 600, 5000):
        poke(single / "model.safetensors", "model.layers.0.mlp.up_proj.weight", element, 0x4786)
    convert(single, tmp_path / "plain.gguf", type="f32", layout="standard")
    llama_quantize(tmp_path / "plain.gguf", tmp_path / "theirs.gguf", kind)
    convert(single, tmp_path / "ours.gguf", type=kind)
    assert differences(tmp_path / "ours.gguf", tmp_path / "theirs.gguf") == []


def test_a_wrong_shape(single: Path) -> None:
    name = "model.layers.2.self_attn.k_proj.weight"
    change_header(single / "model.safetensors", lambda h: h[name]["shape"].reverse())
    refused(single, BadCheckpoint, name, "[288, 144]", "[144, 288]")


def test_a_tensor_too_few(single: Path) -> None:
    change_header(single / "model.safetensors", lambda h: h.update({"x.weight": h.pop(NORM)}))
    refused(single, BadCheckpoint, "has no tensor model.norm.weight")


def test_a_tensor_too_many(single: Path) -> None:
    append_tensor(single, "model.layers.3.mlp.up_proj.weight", [1], b"\0\0")
    refused(single, BadCheckpoint, "'model.layers.3.mlp.up_proj.weight'")


def _embedding(folder: Path) -> np.ndarray[Any, np.dtype[np.uint16]]:
    data = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return np.frombuffer(data, np.uint16, 600 * 288, start).copy()


def test_a_head_that_is_the_embedding_changes_nothing(single: Path, tmp_path: Path) -> None:
    without = convert(single, tmp_path / "without.gguf")
    change_json(single / "config.json", lambda c: c.update(tie_word_embeddings=False))
    append_tensor(single, "lm_head.weight", [600, 288], _embedding(single).tobytes())
    ours = convert(single, tmp_path / "with.gguf")
    assert model_of(ours.output) == model_of(without.output)


def test_a_head_stored_as_another_float_is_compared_by_value(single: Path, tmp_path: Path) -> None:
    wide = (_embedding(single).astype(np.uint32) << 16).tobytes()
    append_tensor(single, "lm_head.weight", [600, 288], wide, "F32")
    convert(single, tmp_path / "with.gguf")


def test_a_head_that_differs_in_one_bit(single: Path) -> None:
    head = _embedding(single)
    head[-1] ^= 1
    append_tensor(single, "lm_head.weight", [600, 288], head.tobytes())
    refused(single, BadCheckpoint, "lm_head.weight", "differs", EMBEDDING)


def test_an_untied_head_that_is_missing(single: Path) -> None:
    change_json(single / "config.json", lambda c: c.update(tie_word_embeddings=False))
    refused(single, BadCheckpoint, "has no tensor lm_head.weight", "tie_word_embeddings")


def test_old_rotary_tables_are_ignored(single: Path, tmp_path: Path) -> None:
    before = convert(single, tmp_path / "before.gguf")
    append_tensor(single, "model.layers.0.self_attn.rotary_emb.inv_freq", [1], b"\0\0")
    after = convert(single, tmp_path / "after.gguf")
    assert model_of(after.output) == model_of(before.output)
