"""Prefixes that tools leave in tensors' names are seen through, where all names agree."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo.system import notices
from edgesppo_convert import convert, look_ahead
from edgesppo_convert.gemma2.tensor_names import plain_names
from tests.support.adapters import read_tensors, write_tensors
from tests.support.checkpoints import SHAPES, resized, tensor_shapes, write_checkpoint
from tests.support.same_model import keys_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = resized(SHAPES["tiny"], layers=1)
NAMES = [*(name for name, _ in tensor_shapes(SHAPE)), "lm_head.weight"]
INNER = "model.layers.0.self_attn.q_proj"


def wrapped(name: str) -> str:
    """As torch.compile names the tensors where only the layers were compiled."""
    return name.replace("model.layers.0.", "model.layers.0._orig_mod.")


def bare(prefix: str) -> Callable[[str], str]:
    """As a model names its tensors that has this in place of `model.`; the head has none."""
    return lambda name: prefix + name.removeprefix("model.")


@pytest.mark.parametrize(
    "rename",
    [
        str,
        wrapped,
        bare(""),
        bare("language_model."),
        *(
            lambda name, prefix=prefix: prefix + name
            for prefix in (
                "_orig_mod.",
                "module.",
                "base_model.model.",
                "model.",
                "language_model.",
                "model.language_model.",
                "module._orig_mod.",
                "_orig_mod.base_model.model.",
                "_fsdp_wrapped_module.",
            )
        ),
        lambda name: name if name == "lm_head.weight" else "model.language_" + name,
    ],
)
def test_a_prefix_of_all_names_goes(rename: Callable[[str], str]) -> None:
    assert list(plain_names({rename(name): 0 for name in NAMES}, "it")) == NAMES


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name if "norm" in name else f"base_model.{name}",
        lambda name: f"vision_tower.{name}",
        lambda name: f"base_model_{name}",
    ],
)
def test_names_that_do_not_agree_stay(rename: Callable[[str], str]) -> None:
    names = [rename(name) for name in NAMES]
    assert list(plain_names(dict.fromkeys(names, 0), "it")) == names


def test_a_tensor_under_two_names_is_refused() -> None:
    with pytest.raises(BadCheckpoint, match=r"'model\.norm\.weight' twice"):
        plain_names(dict.fromkeys((*NAMES, "_orig_mod.model.norm.weight"), 0), "it")


@pytest.mark.parametrize("mark", ["lora_A.default.weight", "base_layer.weight"])
def test_an_adapter_inside_the_model_is_named(mark: str) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="with an adapter that is not merged"):
        plain_names(dict.fromkeys((*NAMES, f"base_model.model.{INNER}.{mark}"), 0), "it")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source", SHAPE)


def test_it_is_converted_to_the_same_tensors(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    tensors = read_tensors(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_tensors(
        other / "model.safetensors", {f"base_model.model.{n}": t for n, t in tensors.items()}
    )
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    convert(folder, theirs, type="f32")
    convert(other, ours, type="f32")
    size = sum(tensor.nbytes for name, tensor in tensors.items() if name != "lm_head.weight")
    assert ours.read_bytes()[-size:] == theirs.read_bytes()[-size:]


@pytest.mark.parametrize(("rows", "pad"), [(603, 3), (598, -2)])
def test_the_rows_of_the_embedding_count(folder: Path, tmp_path: Path, rows: int, pad: int) -> None:
    tensors = dict(read_tensors(folder / "model.safetensors"))
    name = "model.embed_tokens.weight"
    tensors[name] = np.resize(tensors[name], (rows, SHAPE.hidden))
    write_tensors(folder / "model.safetensors", tensors)
    with notices.collected():
        found = keys_of(convert(folder, tmp_path / "out.gguf", type="f32").output)
        said = notices.take()
    assert len(found["tokenizer.ggml.tokens"]) == rows
    assert f"'vocab_size' is 600, but the embedding has {rows} rows; that number is used" in said[0]
    assert len(said) == (1 if pad > 0 else 2)
    unused = [text for text in found["tokenizer.ggml.tokens"] if text.startswith("[PAD")]
    assert len(unused) == max(pad, 0)


def test_an_embedding_of_another_width_is_refused(folder: Path) -> None:
    tensors = dict(read_tensors(folder / "model.safetensors"))
    tensors["model.embed_tokens.weight"] = np.zeros((600, 7), np.float32)
    write_tensors(folder / "model.safetensors", tensors)
    with pytest.raises(BadCheckpoint, match=r"has shape \[600, 7\]; expected \[600, 256\]"):
        look_ahead(folder)
