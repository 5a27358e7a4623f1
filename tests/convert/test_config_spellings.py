"""A config is read in every spelling that transformers understands, and what scales is refused."""

from __future__ import annotations

from typing import Any

import pytest

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo.system import notices
from edgesppo_convert.gemma2.architecture import read_hparams
from edgesppo_convert.source.json_reader import JsonObject
from tests.support.checkpoints import SHAPES, config

BOTH = ("full_attention", "sliding_attention")


def rope_base(**keys: Any) -> float:
    """The base that is read of a config with these keys in place of its `rope_theta`."""
    values = {k: v for k, v in config(SHAPES["tiny"]).items() if k != "rope_theta"}
    return read_hparams(JsonObject("config.json", {**values, **keys})).rope_base


@pytest.mark.parametrize(
    ("keys", "base"),
    [
        ({}, 10000),
        ({"rope_theta": 5e5}, 5e5),
        ({"rope_theta": 5e5, "rope_scaling": None}, 5e5),
        ({"rope_theta": 5e5, "rope_scaling": {}}, 5e5),
        ({"rope_theta": 5e5, "rope_scaling": {"rope_type": "default"}}, 5e5),
        ({"rope_theta": 5e5, "rope_scaling": {"type": "default"}}, 5e5),
        ({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 1.0}}, 5e5),
        ({"rope_theta": 5e5, "rope_scaling": {"rope_type": "yarn", "factor": 1}}, 5e5),
        ({"rope_scaling": {"rope_type": "default", "rope_theta": 7e4}}, 7e4),
        ({"rope_theta": 5e5, "rope_parameters": None}, 5e5),
        ({"rope_theta": 5e5, "rope_parameters": {}}, 5e5),
        ({"rope_theta": 5e5, "rope_parameters": {"rope_type": "default"}}, 5e5),
        ({"rope_theta": 5e5, "rope_parameters": {"type": "default"}}, 5e5),
        ({"rope_theta": 5e5, "rope_parameters": {"rope_theta": None}}, 5e5),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, 5e5),
        ({"rope_parameters": {"rope_theta": 5e5, "type": "default"}}, 5e5),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 1.0}}, 5e5),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}, 5e5),
        ({"rope_parameters": {kind: {"rope_theta": 5e5} for kind in BOTH}}, 5e5),
        ({"rope_theta": 5e5, "rope_parameters": {kind: {"type": "default"} for kind in BOTH}}, 5e5),
        ({"rope_theta": 5e5, "rope_parameters": {"full_attention": {"rope_theta": 5e5}}}, 5e5),
        ({"rope_theta": 5e5, "rope_parameters": dict.fromkeys(BOTH)}, 5e5),
    ],
)
def test_the_base_is_found_wherever_it_stands(keys: dict[str, Any], base: float) -> None:
    assert rope_base(**keys) == base


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 8.0}}, "'linear'.*factor 8"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 1, "attention_factor": 2}}, "attention_"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 1.0}}, "'llama3'"),
        ({"rope_scaling": {"factor": 8.0}}, "'factor' is 8"),
        ({"rope_scaling": "linear"}, "rope_scaling.*an object"),
        ({"rope_parameters": {"type": "linear", "factor": 8.0}}, "'type' is 'linear'.*factor 8"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "'longrope'"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_theta": 1e6},
                    "sliding_attention": {"rope_theta": 1e4},
                }
            },
            "the same rope_theta for all layers",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}}},
            "'full_attention': 'rope_type' is 'linear'",
        ),
        (
            {
                "rope_scaling": {"rope_type": "default", "rope_theta": 1e4},
                "rope_parameters": {"rope_type": "linear", "factor": 8.0},
            },
            "'rope_parameters': 'rope_type' is 'linear'",
        ),
        ({"rope_parameters": {"full_attention": {}, "chunked_attention": {}}}, "chunked_attention"),
    ],
)
def test_what_scales_the_positions_is_refused_by_name(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(BadCheckpoint, match=words):
        rope_base(**keys)


def test_two_bases_are_said() -> None:
    with notices.collected():
        assert rope_base(rope_theta=5e5, rope_parameters={"rope_theta": 1e4}) == 1e4
        (notice,) = notices.take()
    assert "10000 inside its rope_parameters, and 500000 beside them" in notice


@pytest.mark.parametrize("found", [None, [], ["Gemma2ForCausalLM"], ["Gemma2Model"], ...])
def test_the_model_type_says_what_missing_architectures_do_not(found: object) -> None:
    values = config(SHAPES["tiny"])
    if found is ...:
        del values["architectures"]
    else:
        values["architectures"] = found
    assert read_hparams(JsonObject("config.json", values)).layers == 2


@pytest.mark.parametrize("kind", [None, "gemma", "gemma3_text", 2])
def test_without_either_it_is_refused(kind: object) -> None:
    values = {**config(SHAPES["tiny"]), "architectures": None, "model_type": kind}
    with pytest.raises(UnsupportedCheckpoint, match="Gemma2ForCausalLM"):
        read_hparams(JsonObject("config.json", values))


def test_a_quantised_checkpoint_is_named_by_its_method() -> None:
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    with pytest.raises(UnsupportedCheckpoint, match=r"bitsandbytes.*unquantised"):
        read_hparams(JsonObject("config.json", {**config(SHAPES["tiny"]), **quantised}))
