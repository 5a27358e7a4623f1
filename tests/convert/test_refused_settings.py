"""Settings that cannot be honoured are refused by name, on one line; no file is left."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo.sampling.fields import Integer
from edgesppo.sampling.file_defaults import _KEYS
from edgesppo.sampling.params import SamplingParams
from edgesppo_convert import convert, look_ahead
from tests.support.bad_checkpoint import SHAPE, change_json, refused
from tests.support.checkpoints import config, write_json
from tests.support.same_model import keys_of, model_of

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize("key", ["-1", "x", "\u0663", "00000000009999999", "1" * 5000])
def test_an_added_token_that_has_no_row(single: Path, key: str) -> None:
    added = {"added_tokens_decoder": {key: {"content": "<t>"}}}
    write_json(single / "tokenizer_config.json", added)
    refused(single, BadCheckpoint, "tokenizer_config.json", "is not a token id; expected 0 to 599")


def test_newer_configs_give_the_same_file(single: Path, tmp_path: Path) -> None:
    before = convert(single, tmp_path / "before.gguf")
    newer = config(SHAPE)
    newer["rope_parameters"] = {"rope_theta": newer.pop("rope_theta"), "rope_type": "default"}
    newer["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
    newer["eos_token_id"] = [1, 107]
    write_json(single / "config.json", newer)
    after = convert(single, tmp_path / "after.gguf")
    assert model_of(after.output) == model_of(before.output)
