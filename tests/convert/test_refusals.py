"""Every checkpoint that must be refused: the right error, on one line, and no file is left."""

from __future__ import annotations

import dataclasses
import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgesppo.errors import BadCheckpoint, EdgesppoError, ModelNotFound, UnsupportedCheckpoint
from edgesppo.sampling.fields import Integer
from edgesppo.sampling.file_defaults import _KEYS
from edgesppo.sampling.params import SamplingParams
from edgesppo_convert import convert, look_ahead
from tests.support.checkpoints import SHAPES, config, write_checkpoint, write_json
from tests.support.llama_quantizer import differences, llama_quantize
from tests.support.same_model import keys_of, model_of
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = SHAPES["odd"]
SHARD = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"
EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"


def refused(folder: Path, kind: type[EdgesppoError], *words: str) -> None:
    """Check that converting fails with this type of error, on one line, and leaves no file."""
    out = folder.parent / "out"
    out.mkdir()
    with pytest.raises(kind) as caught:
        convert(folder, out / "model.gguf")
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert list(out.iterdir()) == []


@pytest.fixture
def single(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source", SHAPE)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source", SHAPE, shards=3)


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    write_json(path, value)


def change_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Replace the header; the tensors' bytes stay the same."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[start:])


def poke(path: Path, name: str, element: int, half: int) -> None:
    """Overwrite one bfloat16 element of a tensor."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    begin = start + json.loads(data[8:start])[name]["data_offsets"][0]
    data[begin + 2 * element : begin + 2 * element + 2] = struct.pack("<H", half)
    path.write_bytes(data)


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", ModelNotFound, "no checkpoint folder", "nothing")


def test_no_config(single: Path) -> None:
    (single / "config.json").unlink()
    refused(single, BadCheckpoint, "has no config.json")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "config.json is not valid JSON"),
        (b"[1]", "holds a list; expected a JSON object"),
        (b"\xff\xfe{}", "config.json is not valid JSON"),
        (b'{"a": 1, "a": 2}', "key 'a' appears twice"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "config.json is not valid JSON"),
    ],
)
def test_a_config_that_is_no_json_object(single: Path, data: bytes, words: str) -> None:
    (single / "config.json").write_bytes(data)
    refused(single, BadCheckpoint, words)


@pytest.mark.parametrize("found", [["LlamaForCausalLM"], "Gemma2ForCausalLM", [{}]])
def test_another_architecture(single: Path, found: object) -> None:
    write_json(single / "config.json", {**config(SHAPE), "architectures": found})
    refused(single, UnsupportedCheckpoint, "architecture", "Gemma2ForCausalLM")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 0),
        ("num_hidden_layers", True),
        ("hidden_size", "288"),
        ("hidden_size", 1 << 40),
        ("intermediate_size", 41.5),
        ("num_key_value_heads", 3),
        ("head_dim", 71),
        ("vocab_size", None),
        ("rms_norm_eps", 0),
        ("sliding_window", None),
        ("attn_logit_softcapping", None),
        ("final_logit_softcapping", -30.0),
        ("query_pre_attn_scalar", 256),
        ("hidden_activation", "relu"),
        ("attention_bias", True),
        ("attention_bias", "no"),
        ("use_bidirectional_attention", True),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_theta", -1),
        ("layer_types", ["full_attention", "sliding_attention", "full_attention"]),
        ("layer_types", "sliding_attention"),
        ("sliding_window_pattern", 6),
        ("bos_token_id", 600),
        ("bos_token_id", 1),
        ("max_position_embeddings", 8),
        ("max_position_embeddings", 1 << 29),
        ("sliding_window", 1 << 29),
        ("rms_norm_eps", 1e-13),
        ("rms_norm_eps", 1e-12),  # in float32 it is less
        ("rms_norm_eps", 10**400),
        ("final_logit_softcapping", 1e-7),
        ("attn_logit_softcapping", 2e9),
        ("rope_theta", True),
        ("eos_token_id", ["a"]),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_named(single: Path, key: str, value: object) -> None:
    write_json(single / "config.json", {**config(SHAPE), key: value})
    refused(single, BadCheckpoint, "config.json", repr(key), "expected")
    with pytest.raises(BadCheckpoint, match=repr(key)):
        look_ahead(single)


@pytest.mark.parametrize(
    ("key", "gguf", "value"),
    [
        ("max_position_embeddings", "context_length", 16),
        ("sliding_window", "attention.sliding_window", 1 << 27),
        ("rms_norm_eps", "attention.layer_norm_rms_epsilon", 1.001e-12),
        ("final_logit_softcapping", "final_logit_softcapping", 1e9),
        ("rope_theta", "rope.freq_base", 1),
    ],
)
def test_the_last_value_that_is_allowed_is_converted(
    single: Path, tmp_path: Path, key: str, gguf: str, value: float
) -> None:
    write_json(single / "config.json", {**config(SHAPE), key: value})
    keys = keys_of(convert(single, tmp_path / "out.gguf").output)
    assert keys[f"gemma2.{gguf}"] == pytest.approx(value)


FIELDS = {field.name: field.metadata["kind"] for field in dataclasses.fields(SamplingParams)}


@pytest.mark.parametrize(("name", "key"), _KEYS.items())
def test_sampling_is_kept_as_far_as_the_sampler_takes_it(
    single: Path, tmp_path: Path, name: str, key: str
) -> None:
    theirs = {"temp": "temperature", "penalty_repeat": "repetition_penalty"}.get(key, key)
    kind = FIELDS[name]
    low, high, whole = kind.low, kind.high, isinstance(kind, Integer)
    # Stored as float32, 0.01 and 0.0001 are less.
    least, less = (low, ()) if low == 0 else (low * 1.001, (low / 10, low))
    if kind.also is None and low > 0:
        less = (0, *less)
    beyond = (*less, low - 1, high + 1, False, "1", 10**400, *((0.5,) if whole else ()))
    for value in (least, high) if kind.also is None else (kind.also, least, high):
        write_json(single / "generation_config.json", {theirs: value})
        keys = keys_of(convert(single, tmp_path / "out.gguf", force=True).output)
        SamplingParams().replace(**{name: keys[f"general.sampling.{key}"]})
    for value in beyond:
        write_json(single / "generation_config.json", {theirs: value})
        with pytest.raises(BadCheckpoint, match=f"generation_config.*{theirs}.*; expected a"):
            look_ahead(single)


def test_a_scaled_rope_of_newer_configs(single: Path) -> None:
    rope = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "yarn"}}
    write_json(single / "config.json", {**config(SHAPE), **rope})
    refused(single, BadCheckpoint, "'rope_type'", "'yarn'")


def test_an_already_quantised_checkpoint(single: Path) -> None:
    change_json(single / "config.json", lambda c: c.update(quantization_config={"bits": 4}))
    refused(single, UnsupportedCheckpoint, "quantization_config", "unquantised")


def test_only_a_pickle(single: Path) -> None:
    (single / "model.safetensors").rename(single / "pytorch_model.bin")
    refused(single, UnsupportedCheckpoint, "pytorch_model.bin", "safetensors", "save_pretrained")


def test_no_weights_at_all(single: Path) -> None:
    (single / "model.safetensors").unlink()
    refused(single, BadCheckpoint, "neither model.safetensors nor model.safetensors.index.json")


def test_a_missing_shard(sharded: Path) -> None:
    (sharded / SHARD).unlink()
    refused(sharded, BadCheckpoint, SHARD, "missing")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_shard(sharded: Path, keep: int) -> None:
    data = (sharded / SHARD).read_bytes()
    (sharded / SHARD).write_bytes(data[:keep])
    refused(sharded, BadCheckpoint, SHARD, "bytes")


def test_a_shard_that_is_too_long(sharded: Path) -> None:
    with (sharded / SHARD).open("ab") as file:
        file.write(b"\0")
    refused(sharded, BadCheckpoint, SHARD, "longer than its header says")


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        "\\\\host\\share\\model.safetensors",
        "a\nb.safetensors",
        "a\0.safetensors",
        "model.bin",
        "..",
        "",
        7,
    ],
)
def test_an_index_that_leads_out_of_the_folder(sharded: Path, name: object) -> None:
    change_json(sharded / INDEX, lambda index: index["weight_map"].update({NORM: name}))
    refused(sharded, BadCheckpoint, INDEX, NORM)


def test_an_index_that_places_a_tensor_elsewhere(sharded: Path) -> None:
    change_json(sharded / INDEX, lambda index: index["weight_map"].update({NORM: SHARD}))
    refused(sharded, BadCheckpoint, NORM, "model-00003-of-00003.safetensors", SHARD)


def test_an_index_that_names_a_tensor_no_shard_has(sharded: Path) -> None:
    change_json(sharded / INDEX, lambda index: index["weight_map"].update({"extra.weight": SHARD}))
    refused(sharded, BadCheckpoint, SHARD, "has no tensor 'extra.weight'")


def test_an_index_that_forgets_a_tensor(sharded: Path) -> None:
    change_json(sharded / INDEX, lambda index: index["weight_map"].pop(NORM))
    refused(sharded, BadCheckpoint, NORM, "no shard")


def test_an_index_without_a_map(sharded: Path) -> None:
    write_json(sharded / INDEX, {"weight_map": []})
    refused(sharded, BadCheckpoint, INDEX, "'weight_map' is []", "expected an object")


Header = dict[str, Any]
BAD_HEADERS: dict[str, tuple[Callable[[Header], object], str]] = {
    "overlap": (lambda h: _shift(h, -2), "overlaps another"),
    "hole": (lambda h: _shift(h, 2), "leaves a gap"),
    "beyond the end": (lambda h: h[NORM].update(shape=[300]) or _grow(h, 24), "truncated"),
    "not its size": (lambda h: h[NORM].update(shape=[289]), "takes 578 bytes"),
    "backwards": (lambda h: h[NORM]["data_offsets"].reverse(), "its offsets are"),
    "three offsets": (lambda h: h[NORM]["data_offsets"].append(0), "its offsets are"),
    "no offsets": (lambda h: h[NORM].pop("data_offsets"), "has no 'data_offsets'"),
    "negative": (lambda h: h[NORM].update(data_offsets=[-4, -2]), "expected a list of at most"),
    "huge": (lambda h: h[NORM].update(shape=[1 << 60]), "expected a list of at most"),
    "true": (lambda h: h[NORM].update(shape=[True, 288]), "expected a list of at most"),
    "no dtype": (lambda h: h[NORM].pop("dtype"), "has no 'dtype'"),
    "no object": (lambda h: h.update({NORM: 3}), "expected an object"),
    "no name": (lambda h: h.update({"": h.pop(NORM)}), "is not a tensor name"),
}


def _shift(header: Header, by: int) -> None:
    """Move the offsets of the last tensor, the norm."""
    header[NORM]["data_offsets"] = [offset + by for offset in header[NORM]["data_offsets"]]


def _grow(header: Header, by: int) -> None:
    header[NORM]["data_offsets"][1] += by


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_header_that_breaks_the_formats_rules(single: Path, name: str) -> None:
    change, words = BAD_HEADERS[name]
    change_header(single / "model.safetensors", change)
    refused(single, BadCheckpoint, "model.safetensors", words)


@pytest.mark.parametrize("length", [100_000_001, (1 << 64) - 1])
def test_a_header_longer_than_the_format_allows(single: Path, length: int) -> None:
    with (single / "model.safetensors").open("r+b") as file:
        file.write(struct.pack("<Q", length))
    refused(single, BadCheckpoint, "model.safetensors", f"its header has {length:,} bytes")


def test_a_tensor_that_stands_twice_in_a_header(single: Path) -> None:
    path = single / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    twice = data[8 : 7 + length] + b', "model.norm.weight": {}}'
    path.write_bytes(struct.pack("<Q", len(twice)) + twice + data[8 + length :])
    refused(single, BadCheckpoint, "model.safetensors", "'model.norm.weight' appears twice")


@pytest.mark.parametrize("dtype", ["I8", "F8_E4M3", "F64"])
def test_a_dtype_that_is_not_read(single: Path, dtype: str) -> None:
    change_header(single / "model.safetensors", lambda h: h[NORM].update(dtype=dtype))
    refused(single, UnsupportedCheckpoint, NORM, dtype, "BF16, F16 and F32")


def test_no_tokenizer(single: Path) -> None:
    (single / "tokenizer.model").unlink()
    refused(single, BadCheckpoint, "has no tokenizer.model")


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


def test_a_link_to_nothing_is_an_incomplete_download(single: Path) -> None:
    (single / "tokenizer_config.json").unlink()
    (single / "tokenizer_config.json").symlink_to("../blobs/not-yet")
    refused(single, BadCheckpoint, "has no tokenizer_config.json", "download")


@pytest.mark.parametrize("key", ["-1", "x", "\u0663", "00000000009999999", "1" * 5000])
def test_an_added_token_that_has_no_row(single: Path, key: str) -> None:
    added = {"added_tokens_decoder": {key: {"content": "<t>"}}}
    write_json(single / "tokenizer_config.json", added)
    refused(single, BadCheckpoint, "tokenizer_config.json", "is not a token id; expected 0 to 599")


def test_a_wrong_shape(single: Path) -> None:
    name = "model.layers.2.self_attn.k_proj.weight"
    change_header(single / "model.safetensors", lambda h: h[name]["shape"].reverse())
    refused(single, BadCheckpoint, name, "[288, 144]", "[144, 288]")


def test_a_tensor_too_few(single: Path) -> None:
    change_header(single / "model.safetensors", lambda h: h.update({"x.weight": h.pop(NORM)}))
    refused(single, BadCheckpoint, "has no tensor model.norm.weight")


def test_a_tensor_too_many(single: Path) -> None:
    _append_tensor(single, "model.layers.3.mlp.up_proj.weight", [1], b"\0\0")
    refused(single, BadCheckpoint, "'model.layers.3.mlp.up_proj.weight'")


def _append_tensor(
    folder: Path, name: str, shape: list[int], data: bytes, dtype: str = "BF16"
) -> None:
    path = folder / "model.safetensors"

    def add(header: Header) -> None:
        end = header[NORM]["data_offsets"][1]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}

    change_header(path, add)
    with path.open("ab") as file:
        file.write(data)


def _embedding(folder: Path) -> np.ndarray[Any, np.dtype[np.uint16]]:
    data = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return np.frombuffer(data, np.uint16, 600 * 288, start).copy()


def test_a_head_that_is_the_embedding_changes_nothing(single: Path, tmp_path: Path) -> None:
    without = convert(single, tmp_path / "without.gguf")
    change_json(single / "config.json", lambda c: c.update(tie_word_embeddings=False))
    _append_tensor(single, "lm_head.weight", [600, 288], _embedding(single).tobytes())
    ours = convert(single, tmp_path / "with.gguf")
    assert model_of(ours.output) == model_of(without.output)


def test_a_head_stored_as_another_float_is_compared_by_value(single: Path, tmp_path: Path) -> None:
    wide = (_embedding(single).astype(np.uint32) << 16).tobytes()
    _append_tensor(single, "lm_head.weight", [600, 288], wide, "F32")
    convert(single, tmp_path / "with.gguf")


def test_a_head_that_differs_in_one_bit(single: Path) -> None:
    head = _embedding(single)
    head[-1] ^= 1
    _append_tensor(single, "lm_head.weight", [600, 288], head.tobytes())
    refused(single, BadCheckpoint, "lm_head.weight", "differs", EMBEDDING)


def test_an_untied_head_that_is_missing(single: Path) -> None:
    change_json(single / "config.json", lambda c: c.update(tie_word_embeddings=False))
    refused(single, BadCheckpoint, "has no tensor lm_head.weight", "tie_word_embeddings")


def test_old_rotary_tables_are_ignored(single: Path, tmp_path: Path) -> None:
    before = convert(single, tmp_path / "before.gguf")
    _append_tensor(single, "model.layers.0.self_attn.rotary_emb.inv_freq", [1], b"\0\0")
    after = convert(single, tmp_path / "after.gguf")
    assert model_of(after.output) == model_of(before.output)


def test_newer_configs_give_the_same_file(single: Path, tmp_path: Path) -> None:
    before = convert(single, tmp_path / "before.gguf")
    newer = config(SHAPE)
    newer["rope_parameters"] = {"rope_theta": newer.pop("rope_theta"), "rope_type": "default"}
    newer["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
    newer["eos_token_id"] = [1, 107]
    write_json(single / "config.json", newer)
    after = convert(single, tmp_path / "after.gguf")
    assert model_of(after.output) == model_of(before.output)


def test_a_cache_of_symbolic_links_is_read(single: Path, tmp_path: Path) -> None:
    before = convert(single, tmp_path / "before.gguf")
    repository = tmp_path / "models--someone--source"  # as the Hugging Face cache lays it out
    snapshot = repository / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    blobs = single.rename(repository / "blobs")
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")
    assert convert(snapshot, tmp_path / "after.gguf").sha256 == before.sha256
